"""Stores the logs of ended tasks in NATS for the supervisors, which have no login.

One process of each worker that keeps logs in NATS, started by exec with one end of a socket, and of
another one over which it gets the settings once it is private. Supervisors have the other end of
the first, and each sends a packet with msgpack of `queue` and `path`, and two descriptors: the log,
open for reading, and a socket for the answer, msgpack of `error`, '' for none, and `is_away`.
No name of a file is followed here.

It outlives the main process: the end of the socket is the one order to stop, and comes once the
fork server and every supervisor are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import signal
import socket
import sys
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from setproctitle import setproctitle

from nats_executor.broker.connection import connect
from nats_executor.errors import BrokerUnavailable, NatsExecutorError
from nats_executor.logs import store
from nats_executor.logs.store import UPLOAD_SECONDS
from nats_worker.log_lines import Text
from nats_worker.processes.linux import keep_private
from nats_worker.processes.protocol import MAX_EVENT_BYTES, pack, unpack
from nats_worker.processes.upload_requests import ANSWER_SECONDS, PRIVATE

if TYPE_CHECKING:
    from nats_executor.broker.port import Broker
    from nats_executor.settings import Settings

__all__ = []

# Not `__name__`: this module runs as `__main__`.
log = logging.getLogger("nats_worker.uploads.uploader")

# Each holds a megabyte at most.
AT_A_TIME = 8
# A worker without tasks needs no second connection.
IDLE_SECONDS = 10.0
DESCRIPTORS = 2
CHUNK = 65536


class Upload(NamedTuple):
    """One log to store, and where to say whether it is."""

    queue: str
    path: str
    file: BinaryIO
    answers: socket.socket


def received(packet: bytes, file: int, answers: int) -> Upload:
    """Read a request with its descriptors, which it closes if it cannot."""
    with contextlib.ExitStack() as opened:
        opened.callback(os.close, file)
        opened.callback(os.close, answers)
        request = unpack(packet)
        queue, path = str(request["queue"]), str(request["path"])
        log_file = os.fdopen(file, "rb", closefd=True)
        opened.pop_all()
    return Upload(queue, path, log_file, socket.socket(fileno=answers))


class Uploader:
    """Stores what it is asked for, over one connection that lasts for as long as there is work."""

    def __init__(self, settings: Settings, served: socket.socket) -> None:
        self._settings = settings
        self._served = served
        self._requests: asyncio.Queue[Upload | None] = asyncio.Queue()
        self._slots = asyncio.Semaphore(AT_A_TIME)

    async def run(self) -> None:
        """Serve until no process is left that could ask."""
        loop = asyncio.get_running_loop()
        self._served.setblocking(False)
        loop.add_reader(self._served, self._receive)
        try:
            while first := await self._requests.get():
                async with connect(self._settings, role="task log") as broker:
                    if not await self._serve(broker, first):
                        return
        finally:
            loop.remove_reader(self._served)

    def _receive(self) -> None:
        try:
            packet, fds, _, _ = socket.recv_fds(self._served, MAX_EVENT_BYTES, DESCRIPTORS)
        except BlockingIOError:
            return
        if not packet:
            asyncio.get_running_loop().remove_reader(self._served)
            self._requests.put_nowait(None)
            return
        if len(fds) < DESCRIPTORS:  # this process may open no more
            for fd in fds:
                os.close(fd)
            return
        try:
            upload = received(packet, *fds)
        except Exception as exc:  # noqa: BLE001 - from a task that has got at a supervisor's socket
            log.error("an upload cannot be read: %s; next: ignoring it", exc)  # noqa: TRY400
        else:
            self._requests.put_nowait(upload)

    async def _serve(self, broker: Broker, first: Upload) -> bool:
        """Store logs until none was asked for in a while; return whether more may come."""
        storing = {asyncio.create_task(self._store(broker, first), name=first.path)}
        while True:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    upload = await self._requests.get()
            except TimeoutError:
                storing = {task for task in storing if not task.done()}
                if not storing:
                    return True
                continue
            if upload is None:
                await asyncio.gather(*storing)
                return False
            storing = {task for task in storing if not task.done()}
            storing.add(asyncio.create_task(self._store(broker, upload), name=upload.path))

    async def _store(self, broker: Broker, upload: Upload) -> None:
        error, is_away = "", False
        with upload.file, upload.answers:
            try:
                async with asyncio.timeout(ANSWER_SECONDS), self._slots:
                    await store.keep(
                        broker, self._settings.names, upload.queue, upload.path, upload.file,
                        seconds=UPLOAD_SECONDS,
                    )  # fmt: skip
            except (NatsExecutorError, TimeoutError, OSError) as exc:
                error = str(exc) or "too many logs at once"
                is_away = isinstance(exc, BrokerUnavailable | TimeoutError)
            except Exception as exc:
                log.exception("a fault while %s is stored; next: the file stays", upload.path)
                error = f"{type(exc).__name__} in the worker's uploader"
            with contextlib.suppress(OSError):  # its supervisor was killed
                upload.answers.send(pack({"error": error, "is_away": is_away}))


def settings_from(handover: socket.socket) -> Settings | None:
    """Ask for the settings; None if the main process has ended.

    They come only now: until this process was private, a task could have opened what it inherits.
    """
    with handover:
        handover.sendall(PRIVATE)
        data = b"".join(iter(lambda: handover.recv(CHUNK), b""))
    return pickle.loads(data) if data else None  # noqa: S301 - from the worker's main process


def main(served: int, handover: int) -> None:
    """Serve on an inherited socket until its other end is closed everywhere."""
    keep_private()
    for sig in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, signal.SIG_IGN)
    # Supervisors say what is not stored, and why; the main process tells of an outage.
    handler = logging.StreamHandler()
    handler.setFormatter(Text())
    logging.basicConfig(level=logging.ERROR, handlers=[handler])
    if (settings := settings_from(socket.socket(fileno=handover))) is None:
        return
    setproctitle("airflow nats worker: logs")
    asyncio.run(Uploader(settings, socket.socket(fileno=served)).run())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

"""Keeps the uploader alive for the worker's main process: starts it, restarts it, ends it last."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Self

from nats_executor.retrying import end_task
from nats_worker.processes.linux import exit_in_words
from nats_worker.processes.upload_requests import PRIVATE

if TYPE_CHECKING:
    from types import TracebackType

    from nats_executor.settings import Settings

__all__ = ["Uploads"]

log = logging.getLogger(__name__)

# One that cannot live is not started over and over.
PAUSE_SECONDS = 1.0
# More than it takes for what it was asked for.
UPLOADER_END_SECONDS = 15.0
# Far more than an interpreter takes on a busy machine.
START_SECONDS = 60.0


class Uploads:
    """Keeps an uploader alive for as long as its context lasts; `uploader.py` is the process.

    Args:
        is_wanted: whether there is an uploader at all.

    Attributes:
        to_uploader: the end of a socket over which supervisors ask; the fork server gets it. None
            if there is no uploader.
    """

    def __init__(self, settings: Settings, *, is_wanted: bool) -> None:
        self._settings = settings
        self._is_wanted = is_wanted
        self._served: socket.socket | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.to_uploader: socket.socket | None = None

    async def __aenter__(self) -> Self:
        if self._is_wanted:
            self.to_uploader, self._served = socket.socketpair(
                socket.AF_UNIX, socket.SOCK_SEQPACKET
            )
            self._keeper = asyncio.create_task(self._keep(self._served), name="uploader")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._keeper is None or self.to_uploader is None or self._served is None:
            return
        await end_task(self._keeper)
        # The fork server has ended, so this was the last one of these ends.
        self.to_uploader.close()
        self._served.close()
        if self.process is not None:
            await asyncio.to_thread(end, self.process)

    async def _keep(self, served: socket.socket) -> None:
        """Start one, and another whenever it dies; what it was asked for waits in the socket."""
        while True:
            if self.process is not None and self.process.poll() is not None:
                how = exit_in_words(self.process.returncode)
                log.error("the uploader of task logs %s; next: another", how)
            if self.process is None or self.process.poll() is not None:
                try:
                    await self._launch(served)
                except (OSError, TimeoutError) as exc:
                    log.error("no uploader can be started: %s; next: trying again", exc)  # noqa: TRY400 - the text says it all
            await asyncio.sleep(PAUSE_SECONDS)

    async def _launch(self, served: socket.socket) -> None:
        """Start an uploader, and give it the settings once no task can look into it.

        Before that, a task could open whatever it inherits.
        """
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self.process = launch(served, theirs)
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(START_SECONDS):
                if await loop.sock_recv(ours, len(PRIVATE)) == PRIVATE:
                    await loop.sock_sendall(ours, pickle.dumps(self._settings))


def launch(*inherited: socket.socket) -> subprocess.Popen[bytes]:
    numbers = [end.fileno() for end in inherited]
    return subprocess.Popen(  # noqa: S603 - our own interpreter, module and numbers
        [sys.executable, "-P", "-m", "nats_worker.uploads.uploader", *map(str, numbers)],
        stdin=subprocess.DEVNULL,
        pass_fds=numbers,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of an uploader that no process can ask any more."""
    try:
        process.wait(UPLOADER_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""Keeps one fork server: its process, the sockets to it, and the news of its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from nats_worker.processes.linux import exit_in_words
from nats_worker.processes.protocol import MAX_EVENT_BYTES, pack_request, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ForkServerHandle"]

# More than the fork server takes for its own end; then it hangs and is killed.
FORK_SERVER_END_SECONDS = 10.0


class ForkServerHandle:
    """One fork server process and the sockets to it.

    Args:
        on_event: gets each event of it, decoded.
        is_preloaded: whether it has imported Airflow.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        events: socket.socket,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        on_event: Callable[[dict[str, Any]], None],
        is_preloaded: Callable[[], bool],
    ) -> None:
        self.process = process
        self.events = events
        self.reader = reader
        self.writer = writer
        self.on_event = on_event
        self.is_preloaded = is_preloaded
        self.deadline: asyncio.TimerHandle | None = None

    @classmethod
    async def launch(
        cls,
        uploads: socket.socket | None,
        *,
        on_event: Callable[[dict[str, Any]], None],
        is_preloaded: Callable[[], bool],
    ) -> ForkServerHandle:
        process, requests, events = spawn(uploads)
        reader, writer = await asyncio.open_connection(sock=requests)
        self = cls(process, events, reader, writer, on_event=on_event, is_preloaded=is_preloaded)
        asyncio.get_running_loop().add_reader(events, self.read_events)
        return self

    def send(self, request: dict[str, Any]) -> None:
        # If it is dead, `ended` is about to say so and to end the run that was asked for.
        self.writer.write(pack_request(request))

    def read_events(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while packet := self.events.recv(MAX_EVENT_BYTES):
                self.on_event(unpack(packet))

    def close(self) -> None:
        """Ask the fork server to kill everything and exit; if it hangs, it is killed."""
        self.writer.close()
        if not self.is_preloaded():
            # It imports Airflow, which takes seconds, and has forked nothing yet.
            self.process.kill()
        loop = asyncio.get_running_loop()
        self.deadline = loop.call_later(FORK_SERVER_END_SECONDS, self.process.kill)

    async def ended(self) -> str:
        """Wait for the process's end, read its last events and return how it ended."""
        # It alone holds the other end of this stream.
        with contextlib.suppress(ConnectionError):
            await self.reader.read()
        exit_code = await asyncio.to_thread(self.process.wait)
        self.read_events()
        asyncio.get_running_loop().remove_reader(self.events)
        self.events.close()
        self.writer.close()
        if self.deadline is not None:
            self.deadline.cancel()
        return exit_in_words(exit_code)


def spawn(
    uploads: socket.socket | None,
) -> tuple[subprocess.Popen[bytes], socket.socket, socket.socket]:
    """Start a fork server; return it with our ends of its request and event sockets."""
    requests, served_requests = socket.socketpair()
    events, served_events = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    events.setblocking(False)
    with served_requests, served_events:
        sockets = filter(None, (served_requests, served_events, uploads))
        inherited = [inherited.fileno() for inherited in sockets]
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, module and numbers
            [sys.executable, "-P", "-m", "nats_worker.processes.forkserver", *map(str, inherited)],
            stdin=subprocess.DEVNULL,
            pass_fds=inherited,
            start_new_session=True,
        )
    return process, requests, events

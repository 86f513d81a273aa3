"""A TCP line with a delay, in a thread of its own; it may end TLS before a server without it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, Self

from tests.support.nats_server import free_port

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

__all__ = ["DelayedLine"]

CHUNK = 65_536
# Of each direction of a connection: more than any client here sends without an answer.
CHUNKS_ON_THE_WAY = 1024
STEP_SECONDS = 10.0


class DelayedLine:
    """Forwards a loopback port to another one; what is sent arrives later, in order.

    Args:
        there: seconds from a client to the server.
        back: seconds from the server to a client; both may be changed while the line is used.
        tls: what the line shows to clients; the server gets the text in the clear.
    """

    def __init__(
        self, port: int, *, there: float = 0.0, back: float = 0.0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.target = port
        self.port = free_port()
        self.there = there
        self.back = back
        self.tls = tls
        self.tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="delayed line")

    def __enter__(self) -> Self:
        self.thread.start()
        self.server: asyncio.Server = self.do(
            asyncio.start_server(self.connected, "127.0.0.1", self.port, ssl=self.tls)
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def do(self, step: Coroutine[Any, Any, Any]) -> Any:
        result: Future[Any] = asyncio.run_coroutine_threadsafe(step, self.loop)
        return result.result(STEP_SECONDS)

    # In the thread

    async def close(self) -> None:
        self.server.close()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        ends = [writer]
        # An end is gone, or the line is put away: the other end sees a closed connection.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            ends.append(far_writer)
            await asyncio.gather(
                self.carry(reader, far_writer, lambda: self.there),
                self.carry(far_reader, writer, lambda: self.back),
            )
        for end in ends:
            end.transport.abort()

    async def carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        seconds: Callable[[], float],
    ) -> None:
        """Carry one direction to its end."""
        way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_ON_THE_WAY)
        arrival = asyncio.create_task(self.arrive(way, writer))
        try:
            data = b"-"
            while data:
                with contextlib.suppress(OSError):  # a reset is an end, too
                    data = b""
                    data = await reader.read(CHUNK)
                await way.put((self.loop.time() + seconds(), data))
            await arrival
        finally:
            arrival.cancel()

    async def arrive(
        self, way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        while True:
            due, data = await way.get()
            await asyncio.sleep(due - self.loop.time())
            if not data:
                # TLS has no half of an end.
                writer.write_eof() if writer.can_write_eof() else writer.close()
                return
            writer.write(data)
            await writer.drain()

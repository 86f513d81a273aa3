"""A TCP balancer, as a platform has one in front of its API servers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from typing import TYPE_CHECKING, Self

from tests.support.nats_server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Balancer"]

CHUNK = 65_536
CONNECT_SECONDS = 2.0
STEP_SECONDS = 10.0


class Balancer:
    """Forwards one loopback port to several, in turn, from a thread of its own.

    A connection that one of them refuses goes to the next one. Where all refuse, it is closed.
    A target that is taken out gets no new connection; those that it has go on.
    """

    def __init__(self, targets: Sequence[int]) -> None:
        self.port = free_port()
        self.targets = tuple(targets)
        self.turn = itertools.count()
        self.tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="balancer", daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        starting = asyncio.start_server(self.connected, "127.0.0.1", self.port)
        self.server = asyncio.run_coroutine_threadsafe(starting, self.loop).result(STEP_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.close(), self.loop).result(STEP_SECONDS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def take_out(self, port: int) -> None:
        self.targets = tuple(target for target in self.targets if target != port)

    def put_in(self, port: int) -> None:
        """Give a target connections, as a platform does once its readiness probe succeeds."""
        if port not in self.targets:
            self.targets = (*self.targets, port)

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
        try:
            if (far := await self.connect()) is not None:
                ends.append(far[1])
                async with asyncio.TaskGroup() as group:
                    group.create_task(pump(reader, far[1]))
                    group.create_task(pump(far[0], writer))
        except asyncio.CancelledError:
            pass  # it is put away
        finally:
            for end in ends:
                end.transport.abort()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for port in self.next_targets():
            with contextlib.suppress(OSError, TimeoutError):  # it is being restarted
                connecting = asyncio.open_connection("127.0.0.1", port)
                return await asyncio.wait_for(connecting, CONNECT_SECONDS)
        return None

    def next_targets(self) -> Iterator[int]:
        targets = self.targets
        first = next(self.turn) % max(1, len(targets))
        yield from (*targets[first:], *targets[:first])


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one direction to its end, and tell the other side of it."""
    with contextlib.suppress(OSError):  # the other end is gone
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.write_eof()

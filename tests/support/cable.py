"""A TCP proxy that can be cut: packets vanish, and neither end is told."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from tests.support.nats_server import free_port

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future

__all__ = ["Cable"]

CHUNK = 65_536
STEP_SECONDS = 10.0


@dataclass(eq=False)
class Wire:
    """One connection through the cable.

    Attributes:
        is_open: whether anything passes; what came before waits, as TCP sends it again.
        ends: of the client and, once there is one, of the server.
    """

    is_open: asyncio.Event
    ends: list[asyncio.StreamWriter]


class Cable:
    """Forwards a loopback port to another one, from a thread of its own.

    `cut` and `mend` are a broken network: connections stay open, nothing passes, new ones hang.
    `unplug` and `plug` are a broken route: every end is closed, new connections are closed at once.
    `deafen` strikes the connections of the moment with silence for ever; new ones are sound.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = free_port()
        self.is_plugged = True
        self.is_whole = True
        self.wires: set[Wire] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="cable")

    def __enter__(self) -> Self:
        self.thread.start()
        self.server: asyncio.Server = self.do(
            asyncio.start_server(self.connected, "127.0.0.1", self.port)
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

    def cut(self) -> None:
        self.do(self.set_whole(is_whole=False))

    def mend(self) -> None:
        self.do(self.set_whole(is_whole=True))

    def unplug(self) -> None:
        self.is_plugged = False
        self.do(self.drop())

    def plug(self) -> None:
        self.is_plugged = True

    def deafen(self) -> None:
        self.do(self.forget())

    # In the thread

    async def set_whole(self, *, is_whole: bool) -> None:
        self.is_whole = is_whole
        for wire in self.wires:
            if is_whole:
                wire.is_open.set()
            else:
                wire.is_open.clear()

    async def drop(self) -> None:
        for wire in list(self.wires):
            for end in wire.ends:
                end.transport.abort()

    async def forget(self) -> None:
        for wire in self.wires:
            wire.is_open.clear()
        self.wires.clear()

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
        if not self.is_plugged:
            writer.transport.abort()
            return
        wire = Wire(asyncio.Event(), [writer])
        self.wires.add(wire)
        if self.is_whole:
            wire.is_open.set()
        try:
            await self.carry(wire, reader)
        except (OSError, asyncio.CancelledError):
            pass  # the cable is put away, or an end is
        finally:
            self.wires.discard(wire)
            for end in wire.ends:
                end.transport.abort()

    async def carry(self, wire: Wire, reader: asyncio.StreamReader) -> None:
        await wire.is_open.wait()
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        wire.ends.append(far_writer)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.pump(wire, reader, far_writer))
            group.create_task(self.pump(wire, far_reader, wire.ends[0]))

    async def pump(
        self, wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):  # the other end is gone
            while data := await reader.read(CHUNK):
                await wire.is_open.wait()
                writer.write(data)
                await writer.drain()
        # The end of a stream is a packet as well.
        await wire.is_open.wait()
        for end in wire.ends:
            end.close()

"""A fake broker each of whose steps waits for a test, and an event loop whose time does as well."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from nats_executor.errors import BrokerUnavailable
from nats_executor.wire.messages import Report, decode
from tests.support.fake_broker import FakeBroker, FakeServer

__all__ = ["GatedBroker", "Loop", "RememberingServer"]


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still until a test moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        """Run until everything waits for something from outside."""
        while True:
            self.call_soon(self.stop)
            self.run_forever()
            if not cast("Any", self)._ready:
                return


class RememberingServer(FakeServer):
    """A server that remembers every report of one subject, where the stream keeps the last."""

    def __init__(self, subject: str) -> None:
        super().__init__(monotonic=lambda: 0.0)
        self.subject = subject
        self.said: list[Report] = []

    def put(self, subject: str, body: bytes, **conditions: Any) -> int:
        sequence = super().put(subject, body, **conditions)
        if subject == self.subject:
            self.said.append(decode(Report, body))
        return sequence


class GatedBroker(FakeBroker):
    """A connection each of whose steps waits at a gate, a publish for its answer once more."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__(server)
        self.gates: list[asyncio.Future[bool]] = []

    async def pass_gate(self) -> None:
        gate: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        if not await gate or not self.is_connected:
            raise BrokerUnavailable("lost on its way")

    async def enter(self, method: str, *, needs_server: bool = True) -> None:  # noqa: ARG002
        await self.pass_gate()

    async def publish(self, *args: Any, **conditions: Any) -> int:
        sequence = await super().publish(*args, **conditions)
        await self.pass_gate()
        return sequence

    @property
    def is_waiting(self) -> bool:
        return any(not gate.done() for gate in self.gates)

    def open_gate(self, *, lose: bool = False) -> bool:
        """Let the oldest step happen; False if none waits."""
        self.gates = [gate for gate in self.gates if not gate.done()]
        if self.gates:
            self.gates.pop(0).set_result(not lose)
            return True
        return False

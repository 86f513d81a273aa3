"""The API server's connections to NATS: one in each of its processes, opened at the first question.

Airflow asks from any thread, and may fork a process that has asked before.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

from nats_executor.bridge import Bridge
from nats_executor.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from nats_executor.ports import Broker
    from nats_executor.settings import Settings

__all__ = ["Line", "Lines"]

# Somebody looks at a page and waits for it.
CONNECT_SECONDS = 2.0
# Of the loop, to cut off by itself what takes too long.
CUT_SECONDS = 1.0

Result = TypeVar("Result")
OfProcess = TypeVar("OfProcess", bound="Line")


class Line:
    """The connection of one process.

    Args:
        budget_seconds: what one question may take.
    """

    def __init__(self, settings: Settings, *, budget_seconds: float) -> None:
        self.settings = settings
        self._budget = budget_seconds
        self._lock = threading.Lock()
        self._bridge: Bridge | None = None
        self._broker: Broker | None = None
        self._is_open = asyncio.Event()
        self._opened_at = 0.0

    def ask(self, question: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Ask in the connection's loop; raises `BrokerError` when NATS cannot be asked in time."""
        with self._lock:
            if self._bridge is None:
                self._opened_at = time.monotonic()
                self._bridge = Bridge(self._stay_open)
                self._bridge.start()
        return self._bridge.call(self._in_time(question), timeout=self._budget + CUT_SECONDS)

    def close(self) -> None:
        if self._bridge is not None:
            self._bridge.stop()

    async def _stay_open(self) -> None:
        # Here, as every Airflow process loads what reads logs, and most never do.
        from nats_executor.broker import connect

        async with connect(self.settings, role="api server") as broker:
            self._broker = broker
            self._is_open.set()
            await asyncio.Event().wait()

    async def _in_time(self, question: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        try:
            async with asyncio.timeout(self._budget):
                await self._is_open.wait()
                # Only who asks first waits for what may not come.
                left = self._opened_at + CONNECT_SECONDS - time.monotonic()
                await self.require_broker().ready(max(left, 0.01))
                return await question()
        except TimeoutError:
            raise BrokerUnavailable(f"no answer within {self._budget:g} s") from None

    def require_broker(self) -> Broker:
        if self._broker is None:
            raise BrokerUnavailable("the connection to NATS is closed")
        return self._broker


class Lines(Generic[OfProcess]):
    """The line of this process; a forked one and a copy that was pickled make their own."""

    def __init__(self, make: Callable[[], OfProcess]) -> None:
        self._begin(make)

    def _begin(self, make: Callable[[], OfProcess]) -> None:
        self._make = make
        # By process: a forked one has the object, but not the thread of its parent's line.
        self._lines: dict[int, OfProcess] = {}
        weakref.finalize(self, hang_up, self._lines)

    def __getstate__(self) -> Callable[[], OfProcess]:
        return self._make

    def __setstate__(self, make: Callable[[], OfProcess]) -> None:
        self._begin(make)

    def mine(self) -> OfProcess:
        here = os.getpid()
        # No lock: one that another thread holds at a fork stays locked in the child for ever.
        return self._lines.get(here) or self._lines.setdefault(here, self._make())

    def close(self) -> None:
        hang_up(self._lines)


def hang_up(lines: dict[int, OfProcess]) -> None:
    if line := lines.pop(os.getpid(), None):
        line.close()

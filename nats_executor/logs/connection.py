"""The API server's connections to NATS: one in each of its processes, opened at the first question.

Airflow asks from any thread, and may fork a process that has asked before.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

from nats_executor.broker.bridge import Bridge
from nats_executor.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from nats_executor.broker.port import Broker
    from nats_executor.settings import Settings

__all__ = ["Complaints", "Line", "Lines"]

# Of a question, for a new connection: a page waits for it.
CONNECT_SECONDS = 2.0
# Reconnects take less. A page of an API server that never reaches NATS is not to wait each time.
OUTAGE_SECONDS = 60.0
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
        self._missed_at = math.inf

    def ask(self, question: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Ask in the connection's loop; raises `BrokerError` when NATS cannot be asked in time."""
        with self._lock:
            if self._bridge is None:
                self._bridge = Bridge(self._stay_open)
                self._bridge.start()
        return self._bridge.call(self._in_time(question), timeout=self._budget + CUT_SECONDS)

    def close(self) -> None:
        if self._bridge is not None:
            self._bridge.stop()

    async def _stay_open(self) -> None:
        # Here, as every Airflow process loads what reads logs, and most never do.
        from nats_executor.broker.connection import connect

        async with connect(self.settings, role="api server") as broker:
            self._broker = broker
            self._is_open.set()
            await asyncio.Event().wait()

    async def _in_time(self, question: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        try:
            async with asyncio.timeout(self._budget):
                await self._is_open.wait()
                return await self._answer(question)
        except TimeoutError:
            raise BrokerUnavailable(f"no answer within {self._budget:g} s") from None

    async def _answer(self, question: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Ask, and again on the next connection if this one is lost over it: it is only reading."""
        give_up_at = time.monotonic() + CONNECT_SECONDS
        broker = self.require_broker()
        while True:
            await self._connected(broker, give_up_at)
            since = broker.connected_since
            try:
                return await question()
            except BrokerUnavailable:
                if broker.connected_since == since:
                    raise

    async def _connected(self, broker: Broker, give_up_at: float) -> None:
        """Wait for the connection, unless it has been missed for too long to be back soon."""
        now = time.monotonic()
        if broker.is_connected:
            self._missed_at = math.inf
            return
        self._missed_at = min(self._missed_at, now)
        is_hopeless = now - self._missed_at > OUTAGE_SECONDS
        await broker.ready(0.01 if is_hopeless else max(give_up_at - now, 0.01))
        self._missed_at = math.inf

    @property
    def is_away(self) -> bool:
        """Whether the last question found no connection; may be asked from any thread."""
        return self._missed_at < math.inf

    def require_broker(self) -> Broker:
        if self._broker is None:
            raise BrokerUnavailable("the connection to NATS is closed")
        return self._broker


class Complaints:
    """The complaints of one outage that were logged already."""

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._is_outage_told = False

    def is_news(self, text: str, *, is_away: bool) -> bool:
        """Whether to say this: each outage once, whatever its texts, all else once for ever."""
        if is_away:
            is_told, self._is_outage_told = self._is_outage_told, True
            return not is_told
        is_told = text in self._texts
        self._texts.add(text)
        return not is_told

    def end_outage(self) -> None:
        self._is_outage_told = False


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

"""Keeps a connection to NATS in each process of the API server, from its first question on.

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
from nats_executor.pacing import Once

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from nats_executor.broker.port import Broker
    from nats_executor.settings import Settings

__all__ = ["Complaints", "PerProcess", "ProcessConnection"]

# How long a question waits for a new connection, because a page waits for the question.
CONNECT_SECONDS = 2.0
# Reconnecting takes less. If NATS cannot be reached for longer, pages no longer wait for it.
OUTAGE_SECONDS = 60.0
# How much longer the loop has to end a question by itself that takes too long.
CUT_SECONDS = 1.0

LogsResult = TypeVar("LogsResult")
OfProcess = TypeVar("OfProcess", bound="ProcessConnection")


class ProcessConnection:
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

    def ask(
        self,
        question: Callable[[], Coroutine[Any, Any, LogsResult]],
        *,
        budget_seconds: float | None = None,
    ) -> LogsResult:
        """Ask in the connection's loop; raises `BrokerError` when NATS cannot be asked in time.

        Args:
            budget_seconds: of this question, if it is not as all others.
        """
        budget = self._budget if budget_seconds is None else budget_seconds
        with self._lock:
            if self._bridge is None:
                self._bridge = Bridge(self._stay_open)
                self._bridge.start()
        return self._bridge.call(self._in_time(question, budget), timeout=budget + CUT_SECONDS)

    def close(self) -> None:
        if self._bridge is not None:
            self._bridge.stop()

    async def _stay_open(self) -> None:
        # Imported here: every Airflow process loads what reads logs, and few processes read any.
        from nats_executor.broker.connection import connect

        async with connect(self.settings, role="api server") as broker:
            self._broker = broker
            self._is_open.set()
            await asyncio.Event().wait()

    async def _in_time(
        self, question: Callable[[], Coroutine[Any, Any, LogsResult]], budget: float
    ) -> LogsResult:
        try:
            async with asyncio.timeout(budget):
                await self._is_open.wait()
                return await self._answer(question)
        except TimeoutError:
            raise BrokerUnavailable(f"no answer within {budget:g} s") from None

    async def _answer(self, question: Callable[[], Coroutine[Any, Any, LogsResult]]) -> LogsResult:
        """Ask, and again on the next connection if this one is lost: a question changes nothing."""
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
        """Wait for the connection, unless it has been away for too long to be back soon."""
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
    """Remembers which complaints were logged, so that each is logged once."""

    def __init__(self) -> None:
        self._told = Once()
        self._is_outage_told = False

    def is_news(self, text: str, *, is_away: bool) -> bool:
        """Whether to log this: each outage once, whatever its texts, and any other text once.

        Args:
            is_away: whether there is no connection.
        """
        if not is_away:
            return self._told.is_new(text)
        is_news, self._is_outage_told = not self._is_outage_told, True
        return is_news

    def end_outage(self) -> None:
        self._is_outage_told = False


class PerProcess(Generic[OfProcess]):
    """The connection of this process; a forked one and a copy that was pickled make their own."""

    def __init__(self, make: Callable[[], OfProcess]) -> None:
        self._begin(make)

    def _begin(self, make: Callable[[], OfProcess]) -> None:
        self._make = make
        # By process id: a forked process has the object, but not the thread of its parent.
        self._connections: dict[int, OfProcess] = {}
        weakref.finalize(self, close_here, self._connections)

    def __getstate__(self) -> Callable[[], OfProcess]:
        return self._make

    def __setstate__(self, make: Callable[[], OfProcess]) -> None:
        self._begin(make)

    def here(self) -> OfProcess:
        """Return the connection of this process; it opens at the first question."""
        pid = os.getpid()
        # No lock: one that another thread holds at a fork stays locked in the child for ever.
        return self._connections.get(pid) or self._connections.setdefault(pid, self._make())

    def close(self) -> None:
        """Close the connection of this process."""
        close_here(self._connections)


def close_here(connections: dict[int, OfProcess]) -> None:
    if connection := connections.pop(os.getpid(), None):
        connection.close()

"""Finds the dispatches that wait in NATS though Airflow no longer wants them.

A task that is marked or cleared while it is queued leaves its message behind. It would be counted
as backlog, have workers started for it, and be dropped by the worker that takes it. This runs in
the scheduler's thread and asks the database about a limited number of rows in each loop.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from nats_executor.scheduler import database
from nats_executor.text import number_of
from nats_executor.wire.messages import Kind

if TYPE_CHECKING:
    from nats_executor.broker.bridge import Bridge
    from nats_executor.scheduler.events import Events
    from nats_executor.scheduler.ledger import Dispatch
    from nats_executor.scheduler.withdrawals import Withdrawals
    from nats_executor.settings import Settings

__all__ = ["Leftovers"]

log = logging.getLogger(__name__)

# Rows that one loop of the scheduler asks about: some milliseconds of the database's time.
ROWS_PER_LOOP = 1000


class Leftovers:
    """The messages of one executor's tasks that are to go; `tick` is called in every loop."""

    def __init__(
        self, events: Events, settings: Settings, bridge: Bridge, withdrawals: Withdrawals
    ) -> None:
        self._events = events
        self._bridge = bridge
        self._withdrawals = withdrawals
        self._round_seconds = settings.heartbeat_seconds
        self._search_seconds = settings.sweep_seconds
        self._next_round = 0.0
        self._next_search = 0.0
        self._left: deque[Dispatch] = deque()  # to be asked about in this round

    def tick(self) -> None:
        """Do what is due; a round over many dispatches takes many loops."""
        now, withdrawals = time.monotonic(), self._withdrawals
        if withdrawals.done:
            self._settle()
        if now >= self._next_search:
            self._next_search = now + self._search_seconds
            self._bridge.post(withdrawals.look_for_strays(len(self._events.ledger)))
        if withdrawals.is_busy:
            return
        if not self._left and now >= self._next_round:
            self._left.extend(d for d in self._events.ledger if d.kind == Kind.TASK)
        if self._left or withdrawals.strays:
            self._look()
            # Counted from a round's end, so that a long one is not followed by the next at once.
            self._next_round = now + self._round_seconds

    def _look(self) -> None:
        """Ask about some more rows, and have the messages removed that none of them waits for."""
        ledger = self._events.ledger
        asked: list[Dispatch] = []
        while self._left and len(asked) < ROWS_PER_LOOP:
            dispatch = self._left.popleft()
            # What a worker has is the worker's to end: it hears from Airflow by itself.
            if dispatch in ledger and not dispatch.is_held:
                asked.append(dispatch)
        while (strays := self._withdrawals.strays) and len(asked) < ROWS_PER_LOOP:
            stray = strays.popleft()
            if not ledger.knows(stray.id):
                asked.append(stray)
        if asked and (unwanted := database.unwanted(asked)):
            self._withdrawals.is_busy = True
            self._bridge.post(self._withdrawals.withdraw(unwanted))

    def _settle(self) -> None:
        """Free the slots of dispatches whose messages are gone; no event is made."""
        done, ledger = self._withdrawals.done, self._events.ledger
        for _ in range(number := len(done)):
            dispatch = done.popleft()
            log.debug("%s: Airflow no longer wants it; its message was removed", dispatch.name)
            # Where a worker has it by now, its report ends it.
            if dispatch in ledger and not dispatch.is_held:
                self._events.forget(dispatch.key)
        text = "took %s out of the queue that Airflow no longer wants"
        log.info(text, number_of(number, "workload"))

"""Keeps the reports of workers until the scheduler takes them, and no more than there is room for.

The bridge's thread puts them in; the scheduler's thread takes them out.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import deque
from typing import TYPE_CHECKING

from nats_executor.errors import DecodeError
from nats_executor.pacing import Once
from nats_executor.text import presentable
from nats_executor.wire.messages import Report, decode
from nats_executor.wire.names import is_probe, token
from nats_executor.wire.sizes import WAITING_BYTES, WAITING_REPORTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_executor.broker.port import Stored
    from nats_executor.wire.names import Names

__all__ = ["Mailbox"]

log = logging.getLogger(__name__)

# The scheduler's thread takes reports in every loop of its own.
ROOM_SECONDS = 0.05


class Mailbox:
    """The reports that one executor has received.

    Attributes:
        reports: oldest first; the scheduler's thread pops them from the left.
        listeners: who hears the reports of probes, by dispatch id; the scheduler hears none.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self.reports: deque[Report] = deque()
        self.listeners: dict[str, Callable[[Report], None]] = {}
        self._sizes: deque[int] = deque()  # of what `take` has added to the reports
        self._bytes = 0  # the sum of these
        self._complaints = Once()

    def take(self, message: Stored) -> None:
        """Add a message of the result stream to the reports."""
        if is_probe(self._names.place(message.subject).dispatch_id):
            self._tell_of_probe(message)
        elif report := self.read(message):
            self._sizes.append(len(message.body))
            self._bytes += len(message.body)
            self.reports.append(report)

    def _tell_of_probe(self, message: Stored) -> None:
        hear = self.listeners.get(self._names.place(message.subject).dispatch_id)
        if hear and (report := self.read(message)):
            hear(report)

    async def room(self) -> None:
        """Wait until the scheduler's thread has taken some of the reports, if they are many.

        Reports that are not read yet wait in NATS.
        """
        while self._is_full():  # noqa: ASYNC110 - another thread takes them, without a signal
            await asyncio.sleep(ROOM_SECONDS)

    def _is_full(self) -> bool:
        if self._is_much():
            while len(self._sizes) > len(self.reports):
                self._bytes -= self._sizes.popleft()
        return self._is_much()

    def _is_much(self) -> bool:
        return self._bytes > WAITING_BYTES or len(self._sizes) >= WAITING_REPORTS

    def read(self, message: Stored) -> Report | None:
        """Decode a report, unless it speaks for a subject other than the one it came on."""
        place = self._names.place(message.subject)
        try:
            report = decode(Report, message.body)
        except DecodeError as exc:
            self._complain(f"unreadable report on {message.subject}: {exc}")
            return None
        if (token(report.queue), token(report.dispatch_id)) != (place.queue, place.dispatch_id):
            self._complain(f"report on {message.subject} is about another workload")
            return None
        texts = presentable(report.info), presentable(report.worker_name)
        if texts == (report.info, report.worker_name):
            return report
        return dataclasses.replace(report, info=texts[0], worker_name=texts[1])

    def _complain(self, text: str) -> None:
        """Log a complaint once; every sweep will find it again."""
        if self._complaints.is_new(text):
            log.warning("%s; next: ignoring it", text)

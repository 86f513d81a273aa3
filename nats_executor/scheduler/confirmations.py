"""Remembers the events that Airflow's database shows no effect of yet. No I/O, no clock.

A worker's death reaches Airflow by an event alone. Airflow 3.3 drops the events of rows that some
transaction has locked at that moment (`process_executor_events` skips locked rows), so such an
event is emitted again until its row has moved on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats_executor.pacing import pauses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats_executor.scheduler.ledger import Ended

__all__ = ["Confirmations"]

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


@dataclass(slots=True)
class Confirmation:
    """One end that the scheduler was told, and when to look for its effect."""

    ended: Ended
    due: float
    pauses: Iterator[float]


class Confirmations:
    """The ends whose effect was not seen yet."""

    def __init__(self) -> None:
        self._expected: dict[str, Confirmation] = {}

    def __len__(self) -> int:
        return len(self._expected)

    def expect(self, ended: Ended, now: float) -> None:
        """Look after an event from now on; times are in seconds of any clock."""
        growing = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        self._expected[ended.dispatch.id] = Confirmation(ended, now + next(growing), growing)

    def due(self, now: float) -> list[Confirmation]:
        """Return what is to be looked at now; each one again after a pause that doubles."""
        found = [c for c in self._expected.values() if c.due <= now]
        for confirmation in found:
            confirmation.due = now + next(confirmation.pauses)
        return found

    def settle(self, confirmation: Confirmation) -> None:
        """Strike out an event that has had its effect."""
        self._expected.pop(confirmation.ended.dispatch.id, None)

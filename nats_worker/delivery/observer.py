"""Tells an observer how one delivery goes on; the metrics are one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats_executor.wire.messages import State

__all__ = ["Observer"]


class Observer:
    """Hears of each step of one delivery once it has succeeded; this one does nothing.

    Nothing that it does may fail or wait: the delivery goes on after it.
    """

    def claimed(self, attempt: int, generation: int) -> None:
        """This worker has the claim; the arguments are the record's."""

    def started(self) -> None:
        """Airflow's API server has accepted the start, or the callback has begun."""

    def exited(self) -> None:
        """The process is gone."""

    def reported(self, seconds: float) -> None:
        """The broker has confirmed a report, so many seconds after it was sent."""

    def ended(self, state: State) -> None:
        """The last report of this worker about it is there: it is over, or another one's."""

    def buried(self) -> None:
        """The message is a dead letter."""

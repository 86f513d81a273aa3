"""Chooses by what the broker knows: what to take over of a dead scheduler, and what to remove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats_executor.wire.messages import State

if TYPE_CHECKING:
    from nats_executor.wire.messages import Report

__all__ = ["Evidence", "can_adopt", "can_withdraw"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The last report and the message of one dispatch, as the streams hold them."""

    last_report: Report | None
    is_in_stream: bool  # its message is queued, or delivered and not acked

    @property
    def is_over(self) -> bool:
        """Whether its end was reported."""
        return self.last_report is not None and self.last_report.state.is_final

    @property
    def is_lost(self) -> bool:
        """Whether no worker will ever run it: it has no message, and no worker has it."""
        return not self.is_in_stream and can_withdraw(self)


def can_adopt(*, is_waiting: bool, evidence: Evidence | None) -> bool:
    """Whether to keep a task instance, rather than have the scheduler queue it again.

    A task that runs is always kept: un-adopted it would run twice until its next heartbeat. A task
    that waits is kept, too, and sent (again) where the broker has no message: queued again, it
    would lose a try. Absence is proof, because the id was assigned before the message was sent;
    other executors have to wait for a time-out. Only a task that Airflow itself has refused to
    start is given back.

    Args:
        is_waiting: the row is still QUEUED.
        evidence: None when the broker could not be asked; then everything is kept and the sweep
            finds out later.
    """
    if not is_waiting or evidence is None or evidence.last_report is None:
        return True
    return evidence.last_report.state is not State.DROPPED


def can_withdraw(evidence: Evidence) -> bool:
    """Whether no worker has a dispatch or had it to its end, so that its message may be removed.

    The report of a worker may be on its way to the ledger, and tells more than a row does.
    """
    report = evidence.last_report
    return report is None or not (report.state.is_held or report.state.is_final)

"""The end of the harm that a fault has done, as questions to the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.chaos.database import Database, Execution
    from tests.chaos.processes import Member

__all__ = ["left_by", "moved_on", "starts_again", "starts_there", "went_on"]


def moved_on(number: int, *, after: int) -> Callable[[Database], bool]:
    """A workload is over, or was started once more than so many times."""

    def check(database: Database) -> bool:
        starts = len(database.executions("number = ?", number))
        return starts > after or database.row(number).is_over

    return check


def went_on(ran: Sequence[Execution]) -> Callable[[Database], bool]:
    """Everything that ran there is over, or has started again."""

    def has(database: Database, execution: Execution) -> bool:
        later = database.executions("number = ? AND seq > ?", execution.number, execution.seq)
        return bool(later) or database.row(execution.number).is_over

    return lambda database: all(has(database, execution) for execution in ran)


def left_by(jobs: Sequence[int]) -> Callable[[Database], bool]:
    """No task that is not over belongs to a dead scheduler any more."""
    owned = (
        "queued_by = ? AND behaviour != 'callback' AND"
        " state IN ('queued', 'running', 'restarting') LIMIT 1"
    )
    return lambda database: not any(database.rows(owned, job) for job in jobs)


def starts_again(since: float) -> Callable[[Database], bool]:
    """A workload that was queued after a moment has started."""
    query = (
        "SELECT 1 FROM history h JOIN executions e ON e.dispatch = h.dispatch"
        " WHERE h.what = 'queued' AND h.at > ? LIMIT 1"
    )
    return lambda database: bool(database.do(query, since))


def starts_there(worker: Member, pid: int, since: float) -> Callable[[Database], bool]:
    """A worker has started something after a moment, or lives no more."""

    def check(database: Database) -> bool:
        is_gone = worker.pid != pid
        return is_gone or bool(database.executions("worker = ? AND started_at > ?", pid, since))

    return check

"""Compares the demo's run with what it has to come to. Pure.

State and tries come from Airflow. The workers come from NATS, which holds one last report for each
dispatch.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nats_executor.wire.messages import Report

__all__ = ["WORKERS", "TaskRow", "deviations", "rows_of"]

DEFAULT, HEAVY = "default", "heavy"
WORKERS = {DEFAULT: "worker-1", HEAVY: "worker-2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The end that one task of the Dag has to have.

    Attributes:
        dispatches: how often its workload has to reach a worker: more than `tries` for a task
            that is deferred or rescheduled.
    """

    task_id: str
    queue: str = DEFAULT
    instances: int = 1
    tries: int = 1
    dispatches: int = 1


EXPECTED = (
    Expected(task_id="delivered", dispatches=2),
    Expected(task_id="batches"),
    Expected(task_id="clean", instances=4),
    Expected(task_id="rates", tries=2, dispatches=2),
    Expected(task_id="market_closes", dispatches=2),
    Expected(task_id="price", queue=HEAVY, instances=4),
    Expected(task_id="invoice", queue=HEAVY),
    Expected(task_id="report"),
)
# 1 + ... + 100 without every fifth is 4000, three for each.
RESULT = {"batches": 4, "total": 12000}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One task instance at one moment; durations in seconds, None while unknown."""

    task_id: str
    map_index: int
    state: str
    queue: str
    tries: int
    workers: tuple[str, ...]
    dispatches: int
    waited: float | None
    ran: float | None

    @property
    def name(self) -> str:
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


def rows_of(instances: Iterable[dict[str, Any]], reports: Iterable[Report]) -> list[TaskRow]:
    """Join the task instances of one run with the reports about them, in the Dag's order."""
    of_task: dict[tuple[str, int], list[Report]] = {}
    for report in sorted(reports, key=lambda report: report.at):
        _dag_id, task_id, _run_id, _try_number, map_index = report.key
        of_task.setdefault((task_id, map_index), []).append(report)
    order = [expected.task_id for expected in EXPECTED]
    rows = [row_of(i, of_task.get((i["task_id"], i["map_index"]), [])) for i in instances]
    return sorted(rows, key=lambda row: (order.index(row.task_id), row.map_index))


def row_of(instance: dict[str, Any], reports: Sequence[Report]) -> TaskRow:
    started, ended = time_in(instance["start_date"]), time_in(instance["end_date"])
    queued = time_in(instance["queued_when"])
    return TaskRow(
        task_id=instance["task_id"],
        map_index=instance["map_index"],
        state=instance["state"] or "-",
        queue=instance["queue"],
        tries=instance["try_number"],
        workers=tuple(name for name, _ in itertools.groupby(r.worker_name for r in reports)),
        dispatches=len(reports),
        waited=between(queued, started),
        ran=between(started, ended),
    )


def time_in(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def between(earlier: datetime | None, later: datetime | None) -> float | None:
    """Return the seconds between two moments; None if one is missing or they are of two tries."""
    if earlier is None or later is None or later < earlier:
        return None
    return (later - earlier).total_seconds()


def deviations(rows: Sequence[TaskRow], *, run_state: str, result: Any) -> list[str]:
    """Return one line for everything that is not as it has to be."""
    found = [] if run_state == "success" else [f"the run is {run_state}, expected success"]
    for expected in EXPECTED:
        mine = [row for row in rows if row.task_id == expected.task_id]
        if len(mine) != expected.instances:
            found.append(
                f"{expected.task_id}: {len(mine)} instances, expected {expected.instances}"
            )
        found += [line for row in mine for line in deviations_of(row, expected)]
    if result != RESULT:
        found.append(f"the result is {result}, expected {RESULT}")
    return found


def deviations_of(row: TaskRow, expected: Expected) -> list[str]:
    worker = WORKERS[expected.queue]
    compared = [
        ("state", row.state, "success"),
        ("queue", row.queue, expected.queue),
        ("tries", row.tries, expected.tries),
        ("worker", ", ".join(row.workers) or "none", worker),
    ]
    lines = [f"{row.name}: {what} {is_}, expected {be}" for what, is_, be in compared if is_ != be]
    if row.dispatches < expected.dispatches:
        lines.append(
            f"{row.name}: {row.dispatches} dispatches, expected at least {expected.dispatches}"
        )
    return lines

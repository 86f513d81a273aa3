"""The runs of a chaos run's tasks, from the files that they keep, and what must not be there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["Execution", "TaskKey", "judge_rows", "judge_runs", "read_journal"]

# A task that lost its row is told at its next heartbeat, a second later in these settings, and
# is gone when the signal has arrived; the rest is for two busy cores.
OVERLAP_SECONDS = 3.0
FINAL = {"success", "failed", "upstream_failed", "skipped"}


class TaskKey(NamedTuple):
    """One task instance."""

    run_id: str
    task_id: str
    map_index: int

    def __str__(self) -> str:
        return f"{self.run_id}.{self.task_id}[{self.map_index}]"


@dataclass(frozen=True, slots=True)
class Execution:
    """One task process.

    Attributes:
        last: when it was last known to live; its end, if it came to that.
    """

    key: TaskKey
    try_number: int
    pid: int
    start: float
    last: float
    has_ended: bool


def read_journal(directory: Path) -> list[Execution]:
    """Return all executions so far, by the time of their start."""
    found = [execution_of(path) for path in directory.glob("*")]
    return sorted((e for e in found if e is not None), key=lambda execution: execution.start)


def execution_of(path: Path) -> Execution | None:
    run_id, task_id, map_index, try_number, pid = path.name.split("#")
    # The last line may be half written, by a task that was killed or lives.
    lines = [line.split() for line in path.read_text().splitlines(keepends=True) if "\n" in line]
    if not lines:
        return None
    key = TaskKey(run_id, task_id, int(map_index))
    return Execution(
        key, int(try_number), int(pid), float(lines[0][1]), float(lines[-1][1]),
        lines[-1][0] == "end",
    )  # fmt: skip


def by_key(executions: Iterable[Execution]) -> dict[TaskKey, list[Execution]]:
    found: dict[TaskKey, list[Execution]] = {}
    for execution in executions:
        found.setdefault(execution.key, []).append(execution)
    return found


def judge_runs(executions: Sequence[Execution]) -> list[str]:
    """Return what ran twice: the same try, or two tries at the same time."""
    violations = []
    for key, found in by_key(executions).items():
        for one, other in combinations(found, 2):
            overlap = min(one.last, other.last) - max(one.start, other.start)
            if overlap > OVERLAP_SECONDS:
                tries = f"tries {one.try_number} and {other.try_number}"
                violations.append(f"{key}: {tries} ran at the same time for {overlap:.1f} s")
            if one.try_number == other.try_number:
                pids = f"processes {one.pid} and {other.pid}"
                violations.append(f"{key}: try {one.try_number} ran twice, as {pids}")
    return violations


def judge_rows(
    rows: Sequence[dict[str, Any]],
    history: Sequence[dict[str, Any]],
    executions: Sequence[Execution],
) -> list[str]:
    """Return what the database says that cannot be: unfinished, unearned, spent for nothing."""
    ran = by_key(executions)
    past: dict[TaskKey, list[dict[str, Any]]] = {}
    for row in sorted(history, key=lambda row: row["try_number"]):
        past.setdefault(key_of(row), []).append(row)
    violations = []
    for row in rows:
        key, state, number = key_of(row), row["state"], row["try_number"]
        if state not in FINAL:
            violations.append(f"{key}: left {state} at try {number}")
        found = ran.get(key, [])
        if state == "success" and not any(e.has_ended and e.try_number == number for e in found):
            violations.append(f"{key}: says success, but its try {number} did not run to its end")
        started = {execution.try_number for execution in found}
        violations += [
            f"{key}: try {spent} of {number} was spent, though nothing had started"
            for spent in sorted(spent_for_nothing(past.get(key, []), started))
        ]
    return violations


def key_of(row: dict[str, Any]) -> TaskKey:
    return TaskKey(row["run_id"], row["task_id"], row["map_index"])


def spent_for_nothing(past: Sequence[dict[str, Any]], started: set[int]) -> set[int]:
    """Return the tries that neither a task nor the API server has seen start.

    A task that is killed before it could open its journal has started for Airflow all the same;
    a row that never started still bears the start of the try before.
    """
    spent, before = set(), None
    for row in past:
        if row["try_number"] not in started and row["start_date"] in {before, None}:
            spent.add(row["try_number"])
        before = row["start_date"]
    return spent

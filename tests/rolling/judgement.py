"""Judge what a rolling restart has cost: from database rows and the tasks' own notes. Pure."""

from __future__ import annotations

import signal
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.rolling.plan import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Done", "Execution", "Wait", "causes", "judge", "read_runs", "too_long", "waits_in"]

FINAL = frozenset({"success", "failed", "upstream_failed", "skipped"})
# What the loss of a NATS leader may add to a wait: NATS elects the next one.
ELECTION_SECONDS = 3.0


class TaskKey(NamedTuple):
    """One task instance of the load's Dag."""

    run_id: str
    map_index: int

    def __str__(self) -> str:
        return f"{self.run_id}[{self.map_index}]"


class Execution(NamedTuple):
    """One process of a task; `has_ended` by itself."""

    key: TaskKey
    try_number: int
    pid: int
    has_ended: bool


@dataclass(frozen=True, slots=True)
class Done:
    """One restart as it was carried out, in seconds since the epoch.

    Attributes:
        back: when the component, or its replacement, was of use.
    """

    kind: Kind
    name: str
    how: signal.Signals
    began: float
    back: float

    @property
    def seconds(self) -> float:
        return self.back - self.began

    def __str__(self) -> str:
        return f"{self.how.name} to {self.name}"


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a task instance was queued, in seconds since the epoch."""

    key: TaskKey
    queued: float
    started: float

    @property
    def seconds(self) -> float:
        return self.started - self.queued


def read_runs(text: str) -> list[Execution]:
    """Return the executions that tasks have written down."""
    started: list[tuple[TaskKey, int, int]] = []
    ended: set[tuple[TaskKey, int, int]] = set()
    # The last line may be half written.
    for line in text[: text.rfind("\n") + 1].splitlines():
        what, run_id, map_index, try_number, pid = line.split()
        one = TaskKey(run_id, int(map_index)), int(try_number), int(pid)
        if what == "start":
            started.append(one)
        else:
            ended.add(one)
    return [Execution(*one, has_ended=one in ended) for one in started]


def judge(
    rows: Sequence[dict[str, Any]],
    history: Sequence[dict[str, Any]],
    executions: Iterable[Execution],
) -> list[str]:
    """Return what was lost, spent or run twice.

    Args:
        rows: of `task_instance`.
        history: of `task_instance_history`, which has the tries that were spent.
    """
    ran: dict[TaskKey, list[Execution]] = defaultdict(list)
    for execution in executions:
        ran[execution.key].append(execution)
    found = []
    for row in rows:
        key, state, number = key_of(row), row["state"], row["try_number"]
        if state not in FINAL:
            found.append(f"{key}: left {state}")
        elif state != "success":
            found.append(f"{key}: lost, {state} at try {number}")
        elif not any(e.has_ended for e in ran[key]):
            found.append(f"{key}: says success, but it did not run to its end")
        if number > 1 and state in FINAL:
            found.append(f"{key}: needed {number} tries")
    found += [f"{key_of(row)}: try {row['try_number']} was spent" for row in history]
    for key, ones in ran.items():
        if len(ones) > 1:
            pids = ", ".join(str(execution.pid) for execution in ones)
            found.append(f"{key}: ran {len(ones)} times, as processes {pids}")
    return found


def key_of(row: dict[str, Any]) -> TaskKey:
    return TaskKey(row["run_id"], row["map_index"])


def lost(rows: Iterable[dict[str, Any]]) -> int:
    return sum(row["state"] != "success" for row in rows)


def waits_in(rows: Iterable[dict[str, Any]]) -> list[Wait]:
    """Return how long everything that has started was queued, the longest last."""
    waits = [
        Wait(key_of(row), row["queued_dttm"].timestamp(), row["start_date"].timestamp())
        for row in rows
        if row["queued_dttm"] and row["start_date"]
    ]
    return sorted(waits, key=lambda wait: wait.seconds)


def causes(wait: Wait, done: Iterable[Done]) -> list[Done]:
    """Return the restarts that were under way while a task was queued."""
    return [d for d in done if d.began <= wait.started and wait.queued <= d.back]


def too_long(waits: Iterable[Wait], done: Sequence[Done], bound: float) -> list[str]:
    """Return the waits above a bound, which is higher across the kill of a NATS server."""
    found = []
    for wait in waits:
        around = causes(wait, done)
        is_election = any(d.kind is Kind.NATS_SERVER and d.how is signal.SIGKILL for d in around)
        if wait.seconds > (allowed := bound + ELECTION_SECONDS * is_election):
            text = f"{wait.key}: queued for {wait.seconds:.1f} s, more than {allowed:g}"
            found.append(f"{text} ({said(around)})")
    return found


def said(done: Iterable[Done]) -> str:
    return "; ".join(str(d) for d in done) or "no restart at that time"


def restarts_by_kind(done: Iterable[Done]) -> list[dict[str, Any]]:
    """Return one record for each kind of component and signal."""
    counts = Counter((d.kind, d.how) for d in done)
    longest: dict[tuple[Kind, signal.Signals], float] = defaultdict(float)
    for d in done:
        longest[d.kind, d.how] = max(longest[d.kind, d.how], d.seconds)
    return [
        {
            "restarted": str(kind),
            "signal": how.name,
            "times": count,
            "longest_seconds": round(longest[kind, how], 1),
        }
        for (kind, how), count in sorted(counts.items())
    ]

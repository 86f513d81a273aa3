"""The outcome of a run, as tables for people or as JSON. Pure."""

from __future__ import annotations

import json
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.chaos.database import FINAL, Behaviour
from tests.chaos.plan import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.evidence import Evidence
    from tests.chaos.injections import Injection
    from tests.chaos.invariants import Violation

__all__ = ["as_json", "as_text", "dispatches", "fault_rows", "table", "workload_rows"]

AFTER_ITS_END = "from its end until a workload that was queued after it has started"
RAN_THERE = "from it until everything that ran there is over or runs again"
STARTS_THERE = "from its end until that worker has started something again, or is no more"
# What "recovered" means, for the legend of the table.
MEANING = {
    Kind.WORKER_KILLED: RAN_THERE,
    Kind.WORKER_STOPPED: RAN_THERE,
    Kind.WORKER_FROZEN: RAN_THERE,
    Kind.WORKER_CUT_OFF: RAN_THERE,
    Kind.WORKER_CUT_SHORT: AFTER_ITS_END,
    Kind.WORKER_WITHOUT_API: "from its end until everything that ran there is over or runs again",
    Kind.WORKER_DRAINED: "from it until the worker has ended in good order",
    Kind.WORKER_UNFIT: STARTS_THERE,
    Kind.STARTS_HANG: STARTS_THERE,
    Kind.FORK_SERVER_KILLED: RAN_THERE,
    Kind.SUPERVISOR_KILLED: RAN_THERE,
    Kind.TASK_KILLED: RAN_THERE,
    Kind.SCHEDULER_KILLED: "from it until no unfinished task belongs to the dead scheduler",
    Kind.SCHEDULER_STOPPED: "from it until no unfinished task belongs to the dead scheduler",
    Kind.WORKER_REPLACED: RAN_THERE,
    Kind.SCHEDULER_REPLACED: "from it until no unfinished task belongs to the dead scheduler",
    Kind.BROKER_KILLED: AFTER_ITS_END,
    Kind.BROKER_STOPPED: AFTER_ITS_END,
    Kind.BROKER_AWAY: AFTER_ITS_END,
    Kind.BROKER_FROZEN: AFTER_ITS_END,
    Kind.BROKER_WIPED: AFTER_ITS_END,
    Kind.NODE_KILLED: "from it until a workload that was queued after it has started",
    Kind.NODE_STOPPED: "from it until a workload that was queued after it has started",
    Kind.NODE_FROZEN: "from it until a workload that was queued after it has started",
    Kind.QUORUM_LOST: AFTER_ITS_END,
    Kind.API_AWAY: AFTER_ITS_END,
    Kind.API_FROZEN: AFTER_ITS_END,
    Kind.API_SLOW: AFTER_ITS_END,
    Kind.API_MUTE: AFTER_ITS_END,
    Kind.API_BEHIND_PROXY: AFTER_ITS_END,
    Kind.POISON: "from it until it has failed as a dead letter",
    Kind.REVOKED: "from it until the workload is over or was started again",
    Kind.CLEARED: "from it until the task is over or was started again",
}
SPENT = "retry"
# Of the workloads that broke a rule, so many are told from beginning to end.
MOST_STORIES = 5
Record = dict[str, Any]


def fault_rows(injections: Sequence[Injection]) -> list[Record]:
    """One record for each kind of fault that was planned."""
    kinds: dict[Kind, list[Injection]] = {kind: [] for kind in Kind}
    for injection in injections:
        kinds[injection.fault.kind].append(injection)
    rows = []
    for kind, ones in kinds.items():
        times = [one.seconds for one in ones if one.seconds is not None]
        if ones:
            rows.append(
                {
                    "fault": str(kind),
                    "planned": len(ones),
                    "injected": sum(one.has_recovered is not None for one in ones),
                    "recovered": len(times),
                    "median_seconds": round(median(times), 2) if times else None,
                    "maximum_seconds": round(max(times), 2) if times else None,
                }
            )
    return rows


def injection_row(injection: Injection) -> Record:
    fault, seconds = injection.fault, injection.seconds
    return {
        "at": fault.at,
        "fault": str(fault.kind),
        "lasting": fault.seconds,
        "victim": injection.victim,
        "recovered_seconds": None if seconds is None else round(seconds, 2),
        "problem": injection.problem,
    }


def workload_rows(evidence: Evidence) -> list[Record]:
    """One record for each behaviour: how many came, how they ended and what it cost."""
    behaviour_of = {row.number: row.behaviour for row in evidence.rows}
    happened = Counter((behaviour_of[x.number], x.what) for x in evidence.history)
    ran = Counter(behaviour_of[x.number] for x in evidence.executions)
    rows = []
    for behaviour in sorted(set(behaviour_of.values())):
        states = Counter(row.state for row in evidence.rows if row.behaviour == behaviour)
        rows.append(
            {
                "workloads": behaviour,
                "submitted": states.total(),
                "succeeded": states["success"],
                "failed": states["failed"],
                "unended": sum(n for state, n in states.items() if state not in FINAL),
                "processes": ran[behaviour],
                "tries_spent": happened[behaviour, SPENT],
                "adopted": happened[behaviour, "adopted"],
                "reset": happened[behaviour, "reset"],
            }
        )
    return rows


def as_json(
    seed: int, evidence: Evidence, found: Sequence[Violation], *, seconds: float, place: str
) -> str:
    """Return everything as one JSON object."""
    answer = {
        "seed": seed,
        "seconds": round(seconds, 1),
        "directory": place,
        "faults": fault_rows(evidence.injections),
        "workloads": workload_rows(evidence),
        "injections": [injection_row(injection) for injection in evidence.injections],
        "violations": [
            {"rule": v.rule, "about": v.about, "text": v.text, "look": v.look} for v in found
        ],
    }
    return json.dumps(answer, indent=2) + "\n"


def as_text(
    seed: int, evidence: Evidence, found: Sequence[Violation], *, seconds: float, place: str
) -> str:
    """Return the tables with their legend and the verdict."""
    rows = fault_rows(evidence.injections)
    parts = [table(rows)] if rows else []
    parts.append(table(workload_rows(evidence)))
    if found:
        lines = [
            {"violated": v.rule, "about": v.about, "what": v.text, "where": v.look} for v in found
        ]
        parts += [table(lines), *story(found, evidence)]
    if rows:
        parts.append(legend(evidence.injections))
    poison = sum(row.behaviour == Behaviour.POISON for row in evidence.rows)
    verdict = f"{len(found)} violations" if found else "no violation"
    parts.append(
        f"{len(evidence.rows)} workloads ({poison} poison), {len(evidence.injections)} faults,"
        f" {seconds:.0f} s: {verdict}; repeat with --seed {seed}"
        + (f"; logs and database in {place}" if place else "")
    )
    return "\n\n".join(parts) + "\n"


def story(found: Sequence[Violation], evidence: Evidence) -> list[str]:
    """Return what is needed to explain violations of which nothing else is kept.

    A storm repeats its faults by its seed, but not the moment at which they meet a workload.
    """
    faults = [
        {"began": round(i.began, 2), "fault": str(i.fault.kind), "victim": i.victim or "-"}
        for i in sorted(evidence.injections, key=lambda i: i.began)
    ]
    return [table(faults), *(table(life(number, evidence)) for number in numbers(found, evidence))]


def numbers(found: Sequence[Violation], evidence: Evidence) -> list[int]:
    """Return the first workloads that broke a rule; `about` is `w7 (plain)` or w7."""
    names = {violation.about.partition(" ")[0] for violation in found}
    known = sorted(row.number for row in evidence.rows if f"w{row.number}" in names)
    return known[:MOST_STORIES]


def dispatches(found: Sequence[Violation], evidence: Evidence) -> set[str]:
    """Return the dispatches of these workloads, by which logs name them."""
    told = set(numbers(found, evidence))
    return {x.dispatch for x in evidence.history if x.number in told and x.dispatch}


def life(number: int, evidence: Evidence) -> list[Record]:
    """Return all that happened to one workload, in the order of time."""
    told = [
        (x.at, f"w{number}", x.what, f"try {x.try_number}, {x.teller}: {x.info}")
        for x in evidence.history
        if x.number == number
    ]
    for ran in (x for x in evidence.executions if x.number == number):
        what = f"try {ran.try_number}, process {ran.pid} of {ran.supervisor} of {ran.worker}"
        told.append((ran.started_at, f"w{number}", "began to run", what))
        if ran.ended_at is not None:
            told.append((ran.ended_at, f"w{number}", "no longer runs", f"{what}: {ran.outcome}"))
    titles = ("at", "workload", "what_happened", "told")
    return [dict(zip(titles, (round(at, 2), *rest), strict=True)) for at, *rest in sorted(told)]


def legend(injections: Sequence[Injection]) -> str:
    """Say what recovery means for each kind of fault that came."""
    kinds: dict[str, list[str]] = {}
    for kind in Kind:
        if any(injection.fault.kind is kind for injection in injections):
            kinds.setdefault(MEANING[kind], []).append(str(kind))
    lines = [f"  {', '.join(names)}: {meaning}" for meaning, names in kinds.items()]
    return "\n".join(["recovered, in seconds:", *lines])


def table(rows: Sequence[Record]) -> str:
    """Return records of the same fields as aligned columns."""
    if not rows:
        return ""
    titles = list(rows[0])
    lines = [[title.replace("_", " ") for title in titles]]
    lines += [["-" if row[t] is None else one_line(row[t]) for t in titles] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    is_number = [isinstance(rows[0][title], int | float | None) for title in titles]

    def shown(line: list[str]) -> str:
        cells = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, is_number, strict=True)
        ]
        return "  ".join(cells).rstrip()

    head, *body = lines
    return "\n".join([shown(head), "  ".join("-" * width for width in widths), *map(shown, body)])


def one_line(value: Any) -> str:
    return " ".join(str(value).split())

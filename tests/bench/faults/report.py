"""From what became of tasks to the table of faults. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.bench.faults.table import FAULTS
from tests.bench.report import INCOMPLETE, MET, columns, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Outcome", "Report", "as_json", "as_table", "exit_code", "judge", "recalled"]

HEADER = ("fault", "executor", "failed", "lost", "extra tries", "extra begins", "seconds", "rounds")
UNITS = "failed, lost, extra tries and begins: the worst round; seconds: median, and the spread"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the tasks of one Dag run.

    Attributes:
        failed: tasks whose last state is a failure.
        lost: tasks that had no end when the time was over.
        extra_tries: tries beyond the first of each task.
        extra_begins: begins of the tasks' own code beyond one for each task that has succeeded.
        seconds: from the fault to the end of the last task; None if there was none.
        states: the last state and try of each task, as Airflow's database has them.
        restarted: what ended during the run, by name, and was started again.
    """

    fault: str
    executor: str
    tasks: int
    failed: int
    lost: int
    extra_tries: int
    extra_begins: int
    seconds: float | None
    states: Sequence[tuple[int, str, int]] = ()
    restarted: Sequence[str] = ()


@dataclass
class Report:
    """All outcomes, and why there is none, by fault and executor."""

    outcomes: list[Outcome] = field(default_factory=list)
    missing: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))


def judge(
    fault: str,
    executor: str,
    rows: Iterable[tuple[int, str | None, int]],
    begins: int,
    *,
    seconds: float | None,
    restarted: Sequence[str] = (),
) -> Outcome:
    """Judge a Dag run.

    Args:
        rows: of each task its number, its state, None before the scheduler saw it, and its try.
        begins: how often the code of any task began.
        seconds: None where the run was not over in time.
    """
    states = [(number, state or "none", tries) for number, state, tries in rows]
    failed = sum(state in {"failed", "upstream_failed"} for _, state, _ in states)
    succeeded = sum(state == "success" for _, state, _ in states)
    return Outcome(
        fault,
        executor,
        tasks=len(states),
        failed=failed,
        lost=len(states) - failed - succeeded,
        extra_tries=sum(max(0, tries - 1) for _, _, tries in states),
        extra_begins=max(0, begins - succeeded),
        seconds=seconds,
        states=states,
        restarted=restarted,
    )


def exit_code(report: Report) -> int:
    """Return 2 where something could not be run, else 0: no goal is set for others."""
    return INCOMPLETE if any(report.missing.values()) else MET


# For scripts


def as_json(environment: Mapping[str, Any], report: Report) -> dict[str, Any]:
    names = [n for n in FAULTS if n in report.missing or any(o.fault == n for o in report.outcomes)]
    return {
        "environment": dict(environment),
        "faults": {
            name: {
                "what": FAULTS[name].what,
                "outcomes": [asdict(o) for o in report.outcomes if o.fault == name],
                "missing": dict(report.missing.get(name, {})),
            }
            for name in names
        },
    }


def recalled(document: Mapping[str, Any]) -> Report:
    """Return the report that a file tells of."""
    report = Report()
    for name, entry in document["faults"].items():
        report.missing[name] = dict(entry["missing"])
        for values in entry["outcomes"]:
            states = [(number, state, tries) for number, state, tries in values["states"]]
            report.outcomes.append(Outcome(**{**values, "states": states}))
    return report


# For people


def as_table(report: Report) -> str:
    """Return a row for each fault and executor, then what was not run and what has no such part."""
    rows = [row for name in FAULTS for row in rows_of(name, report)]
    parts = [columns([HEADER, *rows]) if rows else "", UNITS if rows else ""]
    parts.append("\n".join(f"{name}: {FAULTS[name].what}" for name in FAULTS if row_of(name, rows)))
    parts.append("\n".join(lines_of(report)))
    return "\n\n".join(part for part in parts if part) + "\n"


def row_of(name: str, rows: Sequence[Sequence[str]]) -> bool:
    return any(row[0] == name for row in rows)


def rows_of(name: str, report: Report) -> Iterable[tuple[str, ...]]:
    found: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in report.outcomes:
        if outcome.fault == name:
            found[outcome.executor].append(outcome)
    shown = name
    for executor, outcomes in found.items():
        yield shown, executor, *cells(outcomes)
        shown = ""
    if found:
        for executor in FAULTS[name].lacks:
            yield "", executor, "-", "-", "-", "-", "-", ""


def cells(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    tasks = outcomes[0].tasks
    worst = [max(getattr(o, name) for o in outcomes) for name in ("failed", "lost")]
    extra = [max(getattr(o, name) for o in outcomes) for name in ("extra_tries", "extra_begins")]
    return (
        *(f"{number} of {tasks}" if number else "0" for number in worst),
        *map(str, extra),
        duration([o.seconds for o in outcomes]),
        str(len(outcomes)),
    )


def duration(seconds: Sequence[float | None]) -> str:
    """Return the median and the spread; a run without an end is longer than any."""
    found = sorted(s for s in seconds if s is not None)
    if len(found) < len(seconds):
        return f"no end in {len(seconds) - len(found)} of {len(seconds)}"
    if len(found) == 1:
        return short(found[0])
    return f"{short(median(found))} ({short(found[0])} .. {short(found[-1])})"


def lines_of(report: Report) -> Iterable[str]:
    for name, reasons in report.missing.items():
        for reason in dict.fromkeys(reasons.values()):
            executors = ", ".join(e for e, why in reasons.items() if why == reason)
            yield f"not run: {name}, {executors}: {reason}"
    run = {outcome.fault for outcome in report.outcomes}
    for name, fault in FAULTS.items():
        for executor, reason in fault.lacks.items():
            if name in run:
                yield f"-: {name}, {executor}: {reason}"

"""What came of each check, its table, and the exit code."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "Line",
    "Outcome",
    "State",
    "Step",
    "exit_code",
    "failed",
    "passed",
    "table",
    "unchecked",
]


class State(StrEnum):
    PASSED = "passed"
    FAILED = "FAILED"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One thing that a step looked at."""

    state: State
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """An outcome with its step, and how long it took."""

    step: str
    outcome: Outcome
    seconds: float


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the check that can be run alone."""

    name: str
    what: str
    run: Callable[[], Iterator[Outcome]]


def passed(text: str) -> Outcome:
    return Outcome(State.PASSED, text)


def unchecked(text: str) -> Outcome:
    return Outcome(State.NOT_CHECKED, text)


def failed(text: str) -> Outcome:
    return Outcome(State.FAILED, text)


def table(lines: list[Line]) -> str:
    """Return a row for each step, and under them each check that did not pass."""
    steps = list(dict.fromkeys(line.step for line in lines))
    wide = max(map(len, ["step", *steps]))
    rows = [f"{'step':{wide}}  passed  failed  not checked  seconds"]
    for step in [*steps, "all"]:
        own = [line for line in lines if step in (line.step, "all")]
        count = {state: sum(line.outcome.state is state for line in own) for state in State}
        rows.append(
            f"{step:{wide}}  {count[State.PASSED]:6}  {count[State.FAILED]:6}"
            f"  {count[State.NOT_CHECKED]:11}  {sum(line.seconds for line in own):7.0f}"
        )
    rows += [
        f"{line.outcome.state}: {line.step}: {line.outcome.text}"
        for state in (State.NOT_CHECKED, State.FAILED)
        for line in lines
        if line.outcome.state is state
    ]
    return "\n".join(rows)


def exit_code(lines: list[Line]) -> int:
    """Return 0 when all passed, 1 when a check failed, 2 when one could not be made."""
    states = {line.outcome.state for line in lines}
    if State.FAILED in states:
        return 1
    return 2 if State.NOT_CHECKED in states or not states else 0

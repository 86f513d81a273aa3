"""The chaos driver's plan can be repeated, and its judgement finds each thing that must not be."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow.chaos_journal import (
    Execution,
    TaskKey,
    execution_of,
    judge_rows,
    judge_runs,
)
from tests.airflow.chaos_plan import KINDS, make_airflow_plan

if TYPE_CHECKING:
    from pathlib import Path

KEY = TaskKey("run", "red", 0)


def ran(
    try_number: int = 1, pid: int = 7, *, start: float = 0, last: float = 2, has_ended: bool = True
) -> Execution:
    return Execution(KEY, try_number, pid, start, last, has_ended)


def row(try_number: int = 1, state: str = "success", start: object = 1) -> dict[str, Any]:
    return {**KEY._asdict(), "try_number": try_number, "state": state, "start_date": start}


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_can_be_repeated_and_hits_one_of_a_group_at_a_time(seed: int) -> None:
    plan = make_airflow_plan(seed, seconds=300)

    assert plan == make_airflow_plan(seed, seconds=300)
    assert {fault.kind for fault in plan} == set(KINDS)
    for group in ("worker", "scheduler", "broker", "API"):
        faults = [fault for fault in plan if fault.kind.startswith(group)]
        for one, other in itertools.pairwise(faults):
            assert one.at + one.seconds < other.at


def test_a_sound_run_is_sound() -> None:
    executions = [ran(1, 7, last=1, has_ended=False), ran(2, 8, start=1.5, last=4)]

    assert judge_runs(executions) == []
    assert judge_rows([row(2, start=2)], [row(1, "failed")], executions) == []


def test_two_tries_at_the_same_time_are_found() -> None:
    executions = [ran(1, 7, start=0, last=9), ran(2, 8, start=1, last=9)]

    assert judge_runs(executions) == ["run.red[0]: tries 1 and 2 ran at the same time for 8.0 s"]


def test_a_try_that_ran_twice_is_found() -> None:
    executions = [ran(1, 7, last=1), ran(1, 8, start=2, last=3)]

    assert judge_runs(executions) == ["run.red[0]: try 1 ran twice, as processes 7 and 8"]


@pytest.mark.parametrize("state", ["queued", "running", "scheduled", "up_for_retry", "None"])
def test_what_was_left_is_found(state: str) -> None:
    assert judge_rows([row(1, state)], [], []) == [f"run.red[0]: left {state} at try 1"]


@pytest.mark.parametrize("executions", [[], [ran(has_ended=False)], [ran(2)]])
def test_a_success_that_nobody_earned_is_found(executions: list[Execution]) -> None:
    [found] = judge_rows([row(1)], [], executions)

    assert found == "run.red[0]: says success, but its try 1 did not run to its end"


def test_a_try_that_was_spent_for_nothing_is_found() -> None:
    """Its row bears no start, or still that of the try before."""
    history = [row(1, "failed", None), row(2, "failed", 5), row(3, "failed", 5)]

    found = judge_rows([row(4)], history, [ran(4)])
    assert [line.split(": ")[1].split(" was")[0] for line in found] == [
        "try 1 of 4",
        "try 3 of 4",
    ]


def test_a_journal_that_breaks_off_is_read_to_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "run#red#0#1#7"
    path.write_text("start 1.5\nbeat 2.5\nbeat 3.")

    assert execution_of(path) == ran(start=1.5, last=2.5, has_ended=False)
    path.write_text("sta")
    assert execution_of(path) is None

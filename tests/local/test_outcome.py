"""The demo's verdict: what it accepts and how it names what it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nats_executor.local.expected import EXPECTED, RESULT, WORKERS, TaskRow, deviations, rows_of
from nats_executor.wire.messages import Kind, Report, State


def rows_as_expected() -> list[TaskRow]:
    return [
        TaskRow(
            task_id=task.task_id,
            map_index=index if task.instances > 1 else -1,
            state="success",
            queue=task.queue,
            tries=task.tries,
            workers=(WORKERS[task.queue],),
            dispatches=task.dispatches,
            waited=0.1,
            ran=0.2,
        )
        for task in EXPECTED
        for index in range(task.instances)
    ]


def verdict(rows: list[TaskRow], *, run_state: str = "success", result: Any = RESULT) -> list[str]:
    return deviations(rows, run_state=run_state, result=result)


def test_what_is_expected_is_what_the_dag_does() -> None:
    expected = {
        task.task_id: (task.queue, task.instances, task.tries, task.dispatches) for task in EXPECTED
    }

    assert expected == {
        "delivered": ("default", 1, 1, 2),
        "batches": ("default", 1, 1, 1),
        "clean": ("default", 4, 1, 1),
        "rates": ("default", 1, 2, 2),
        "market_closes": ("default", 1, 1, 2),
        "price": ("heavy", 4, 1, 1),
        "invoice": ("heavy", 1, 1, 1),
        "report": ("default", 1, 1, 1),
    }
    assert RESULT == {"batches": 4, "total": 12000}


def test_a_run_as_expected_has_no_deviation() -> None:
    assert verdict(rows_as_expected()) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"state": "failed"}, "rates: state failed, expected success"),
        ({"queue": "heavy"}, "rates: queue heavy, expected default"),
        ({"tries": 1}, "rates: tries 1, expected 2"),
        ({"workers": ("worker-2",)}, "rates: worker worker-2, expected worker-1"),
        ({"workers": ()}, "rates: worker none, expected worker-1"),
        ({"dispatches": 1}, "rates: 1 dispatches, expected at least 2"),
    ],
)
def test_each_deviation_of_a_task_has_a_line(change: dict[str, Any], line: str) -> None:
    rows = [replace(row, **change) if row.task_id == "rates" else row for row in rows_as_expected()]

    assert verdict(rows) == [line]


@pytest.mark.parametrize("state", ["failed", "unknown"])
def test_a_run_in_another_state_has_a_line(state: str) -> None:
    found = verdict(rows_as_expected(), run_state=state)

    assert found == [f"the run is {state}, expected success"]


def test_a_missing_instance_a_failed_run_and_a_wrong_result_have_a_line() -> None:
    rows = [row for row in rows_as_expected() if row.map_index != 3]

    assert verdict(rows, run_state="failed", result=None) == [
        "the run is failed, expected success",
        "clean: 3 instances, expected 4",
        "price: 3 instances, expected 4",
        f"the result is None, expected {RESULT}",
    ]


def instance(task_id: str, **values: Any) -> dict[str, Any]:
    named = {"task_id": task_id, "map_index": -1, "queue": "default", "try_number": 1}
    times = {"queued_when": None, "start_date": None, "end_date": None}
    return {**named, "state": None, **times, **values}


def report(task_id: str, worker_name: str, *, at: float, map_index: int = -1) -> Report:
    return Report(
        dispatch_id=f"{task_id}-{at}",
        queue="default",
        state=State.SUCCESS,
        kind=Kind.TASK,
        key=["nats_demo", task_id, "run", 1, map_index],
        worker="id",
        worker_name=worker_name,
        at=at,
    )


def test_rows_join_instances_and_reports_in_the_order_of_the_dag() -> None:
    instances = [instance("clean", map_index=1), instance("clean", map_index=0), instance("rates")]
    reports = [
        report("clean", "worker-2", at=3, map_index=1),
        report("clean", "worker-1", at=1, map_index=1),
        report("clean", "worker-1", at=2, map_index=1),
    ]

    rows = rows_of(instances, reports)

    assert [row.name for row in rows] == ["clean[0]", "clean[1]", "rates"]
    assert rows[1].workers == ("worker-1", "worker-2")
    assert [row.dispatches for row in rows] == [0, 3, 0]


def test_durations_are_seconds_and_unknown_where_the_moments_are_of_two_tries() -> None:
    moments = {"start_date": "2026-01-01T00:00:01Z", "end_date": "2026-01-01T00:00:03.5Z"}
    before, after = "2026-01-01T00:00:00Z", "2026-01-01T00:00:02Z"

    [row] = rows_of([instance("rates", queued_when=before, **moments)], [])
    assert (row.waited, row.ran) == (1.0, 2.5)

    [row] = rows_of([instance("rates", queued_when=after, **moments)], [])
    assert (row.waited, row.ran) == (None, 2.5)

    at_once = {**moments, "end_date": moments["start_date"]}
    [row] = rows_of([instance("rates", **at_once)], [])
    assert (row.waited, row.ran) == (None, 0.0)

    [row] = rows_of([instance("rates", queued_when=before)], [])
    assert (row.waited, row.ran) == (None, None)


@pytest.mark.parametrize(("state", "shown"), [(None, "-"), ("running", "running")])
def test_a_task_without_a_state_has_a_dash(state: str | None, shown: str) -> None:
    [row] = rows_of([instance("rates", state=state)], [])

    assert row.state == shown

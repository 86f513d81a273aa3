"""Tasks that are marked, deferred or rescheduled: no event of their past hurts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.airflow.deployed import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("state", ["success", "failed"])
def test_a_task_that_is_marked_while_it_runs_stays_so(hurt: Airflow, state: str) -> None:
    """It is stopped at its next heartbeat, and the report of that end changes nothing."""
    task_id = f"to_{state}"
    [pid] = hurt.wait_for_hold(task_id)
    path = f"/api/v2/dags/marked/dagRuns/{hurt.runs['marked']}/taskInstances/{task_id}"

    hurt.api.call("PATCH", path, {"new_state": state})

    hurt.wait_for_death(pid)
    done = f"TaskInstance Finished: dag_id=marked, task_id={task_id}"
    hurt.wait(lambda: done in hurt.log_of("scheduler"), "the event of that end")
    hurt.wait_for_loop()
    row = hurt.task("marked", task_id)
    assert (row["state"], row["try_number"]) == (state, 1)
    assert hurt.lines(task_id) == ["ran"]


def test_a_task_that_defers_to_an_instant_trigger_is_not_failed_by_its_own_past(
    hurt: Airflow,
) -> None:
    """Each goes to the triggerer three times, and comes back under the same try number."""
    tasks = hurt.finish("deferring")

    hurt.require_first_tries("deferring")
    assert len(tasks["defers"]) == 10
    for number in range(10):
        assert hurt.lines(f"defers-{number}") == [f"{left} left" for left in (3, 2, 1, 0)]


def test_a_sensor_that_reschedules_is_not_failed_by_its_own_past(hurt: Airflow) -> None:
    tasks = hurt.finish("rescheduling")

    hurt.require_first_tries("rescheduling")
    assert len(tasks["looks"]) == 3
    for number in range(3):
        assert hurt.lines(f"looks-{number}") == ["ran"] * 5

"""Dags through the real scheduler loop, API server, database, broker and worker."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow.tables import SPENT

if TYPE_CHECKING:
    from tests.airflow.deployed import Airflow

CALLED = (
    "on_retry_callback of try 1",
    "on_failure_callback of try 2",
    "on_failure_callback of the Dag",
)

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(900)]


@pytest.fixture(scope="session")
def flow(airflow: Airflow) -> dict[str, list[dict[str, Any]]]:
    """The task instances of `flow`, after its success."""
    return airflow.finish("flow")


def only(rows: list[dict[str, Any]]) -> dict[str, Any]:
    [row] = rows
    return row


@pytest.mark.parametrize("task_id", ["succeed", "total", "by_alias", "by_class_name", "defers"])
def test_a_task_succeeds_at_its_first_try(
    flow: dict[str, list[dict[str, Any]]], task_id: str
) -> None:
    row = only(flow[task_id])

    assert (row["state"], row["try_number"]) == ("success", 1)
    assert row["external_executor_id"]
    assert row["hostname"] == "worker-1"  # the worker's name, and it stays


def test_a_task_that_fails_once_succeeds_at_its_second_try(
    flow: dict[str, list[dict[str, Any]]],
) -> None:
    row = only(flow["fail_once"])

    assert (row["state"], row["try_number"]) == ("success", 2)


def test_a_task_that_is_killed_is_retried_at_once(
    airflow: Airflow, flow: dict[str, list[dict[str, Any]]]
) -> None:
    """Airflow's supervisor says nothing about such a task; the executor's event retries it."""
    row = only(flow["die_once"])
    lines = airflow.rows(
        "SELECT extra FROM log WHERE task_id = 'die_once' AND extra LIKE '%SIGKILL%'"
    )

    assert (row["state"], row["try_number"]) == ("success", 2)
    assert lines


def test_mapped_tasks_run_on_two_queues(flow: dict[str, list[dict[str, Any]]]) -> None:
    assert [(r["state"], r["queue"], r["map_index"]) for r in flow["heavy"]] == [
        ("success", "heavy", n) for n in range(3)
    ]
    assert [(r["state"], r["queue"], r["map_index"]) for r in flow["light"]] == [
        ("success", "default", n) for n in range(3)
    ]


def test_another_executor_runs_beside_it(flow: dict[str, list[dict[str, Any]]]) -> None:
    row = only(flow["on_local"])

    assert (row["state"], row["try_number"]) == ("success", 1)
    assert row["external_executor_id"] is None


def test_a_task_that_is_cleared_while_it_runs_runs_again(airflow: Airflow) -> None:
    airflow.wait_for_hold("clear_me")
    first = only(airflow.tasks("cleared")["clear_me"])

    airflow.api.call(
        "POST",
        "/api/v2/dags/cleared/clearTaskInstances",
        {
            "dry_run": False,
            "only_failed": False,
            "dag_run_id": airflow.runs["cleared"],
            "task_ids": ["clear_me"],
        },
    )

    second = only(airflow.finish("cleared")["clear_me"])
    assert (first["state"], first["try_number"]) == ("running", 1)
    assert (second["state"], second["try_number"]) == ("success", 2)
    assert second["external_executor_id"] != first["external_executor_id"]


def test_a_missed_deadline_calls_back_on_a_worker(airflow: Airflow) -> None:
    airflow.wait_for_mark("callback")
    assert (airflow.marks / "callback").read_text() == "too late"

    airflow.wait(
        lambda: airflow.callbacks("late") == ["success"], "the callback's success in the database"
    )
    airflow.release("dawdle")
    airflow.finish("late")


def test_a_killed_tasks_and_its_dags_callbacks_run_once(airflow: Airflow) -> None:
    """With Airflow 3.4's own way to store them the scheduler ends, and its successor does, too."""

    def state() -> str:
        query = "SELECT state FROM dag_run WHERE dag_id = 'calling'"
        return str(only(airflow.rows(query))["state"])

    airflow.wait(lambda: state() in {"success", "failed"}, "calling to end")
    airflow.wait(lambda: set(airflow.lines("calling")) >= set(CALLED), "the callbacks")
    requests = "SELECT id FROM callback WHERE type = 'dag_processor'"
    airflow.wait(lambda: not airflow.rows(requests), "all of them to be over")

    assert state() == "failed"
    assert Counter(airflow.lines("calling")) == dict.fromkeys(CALLED, 1)


def test_a_connection_is_tested_on_a_worker(airflow: Airflow) -> None:
    folder = json.dumps({"path": str(airflow.marks)})
    body = {"connection_id": "marks", "conn_type": "fs", "extra": folder, "queue": "heavy"}
    test = airflow.api.call("POST", "/api/v2/connections/enqueue-test", body)

    def states() -> list[str]:
        return [r["state"] for r in airflow.rows("SELECT state FROM connection_test_request")]

    assert test["token"]
    airflow.wait(lambda: states()[0] in {"success", "failed"}, "the connection test")
    [row] = airflow.rows("SELECT state, result_message FROM connection_test_request")
    assert row["state"] == "success", row
    assert str(airflow.marks) in row["result_message"]


def test_a_killed_scheduler_costs_no_try(airflow: Airflow) -> None:
    airflow.trigger("orphans")
    airflow.wait_for_hold("running")
    airflow.wait(
        lambda: only(airflow.tasks("orphans")["queued"])["external_executor_id"], "the dispatch"
    )
    before = airflow.tasks("orphans")
    old = only(before["running"])["queued_by_job_id"]

    airflow.kill("scheduler")
    airflow.start_component("scheduler")

    def is_adopted() -> bool:
        rows = [only(rows) for rows in airflow.tasks("orphans").values()]
        return all(row["queued_by_job_id"] not in {old, None} for row in rows)

    airflow.wait(is_adopted, "adoption", seconds=90)
    assert only(airflow.tasks("orphans")["queued"])["state"] == "queued"
    airflow.release("running")
    airflow.add_worker("worker-2", queues="later")
    after = airflow.finish("orphans")
    for task_id in ("running", "queued"):
        was, now = only(before[task_id]), only(after[task_id])
        assert (now["state"], now["try_number"]) == ("success", 1)
        assert now["id"] == was["id"]
        assert now["external_executor_id"] == was["external_executor_id"]
    assert airflow.rows(f"SELECT * FROM {SPENT} WHERE dag_id = 'orphans'") == []

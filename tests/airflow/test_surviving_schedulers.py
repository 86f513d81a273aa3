"""Schedulers die with work in every state, alone and among others."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.airflow.deployed import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]


def test_what_a_dead_scheduler_left_is_taken_over(hurt: Airflow) -> None:
    """Running, waiting, ended well and killed meanwhile; a callback and a connection test, too."""
    hurt.trigger("left_behind")
    _, _, doomed, _ = hurt.wait_for_hold("runs_on", "ends", "dies", "linger")
    folder = json.dumps({"path": str(hurt.marks)})
    body = {"connection_id": "left", "conn_type": "fs", "extra": folder, "queue": "later"}
    hurt.api.call("POST", "/api/v2/connections/enqueue-test", body)
    hurt.wait(lambda: hurt.backlog("later") == 2, "a task and a connection test to wait")
    before, in_hand = hurt.tasks("left_behind"), hurt.in_hand("default")

    hurt.kill("scheduler")
    os.kill(doomed, signal.SIGKILL)
    hurt.release("ends", "linger")
    hurt.wait(lambda: hurt.in_hand("default") == in_hand - 3, "reports that no scheduler hears")
    unheard = hurt.callbacks("left_behind"), hurt.task("left_behind", "dies")["state"]
    hurt.start_component("scheduler")

    hurt.wait(lambda: hurt.callbacks("left_behind") == ["success"], "the callback's success")
    hurt.wait(lambda: len(hurt.lines("dies")) == 2, "the killed task's second try")
    hurt.release("runs_on")
    hurt.add_worker("later-1", queues="later")
    after = hurt.finish("left_behind")
    assert unheard[0] != ["success"]
    assert unheard[1] == "running"
    for task_id in ("runs_on", "ends", "waits"):
        [was], [now] = before[task_id], after[task_id]
        assert (now["state"], now["try_number"], now["id"]) == ("success", 1, was["id"])
    [again] = after["dies"]
    assert (again["state"], again["try_number"]) == ("success", 2)
    assert [hurt.lines(name) for name in ("runs_on", "ends", "waits_for_later")] == [["ran"]] * 3
    hurt.wait(lambda: is_tested(hurt, "left"), "the connection test's end")


def is_tested(airflow: Airflow, connection: str) -> bool:
    query = "SELECT state, result_message FROM connection_test_request WHERE connection_id = :c"
    [row] = airflow.rows(query, c=connection)
    assert row["state"] != "failed", row
    return bool(row["state"] == "success")


@pytest.mark.parametrize("number", [2, 3])
def test_a_scheduler_among_others_dies_in_the_middle(hurt: Airflow, number: int) -> None:
    """Each task is run once, whichever scheduler queued it and whichever heard of its end."""
    dag_id = f"many_{number}"
    names = [f"scheduler-{n}" for n in range(2, number + 1)]
    known = schedulers_seen(hurt)
    for name in names:
        hurt.start_component(name)
    hurt.wait(lambda: schedulers_seen(hurt) == known + len(names), f"{number} schedulers")
    hurt.trigger(dag_id)

    hurt.wait(lambda: len(hurt.lines(dag_id)) >= 10, "some of the tasks")
    hurt.kill(names.pop())

    rows = hurt.finish(dag_id)["short"]
    hurt.require_first_tries(dag_id)
    assert sorted(map(int, hurt.lines(dag_id))) == [row["map_index"] for row in rows]


def schedulers_seen(airflow: Airflow) -> int:
    """How many schedulers have ever started: each enters a row."""
    [row] = airflow.rows("SELECT count(*) AS n FROM job WHERE job_type = 'SchedulerJob'")
    return int(row["n"])

"""Stops that a real API server asks for, of tasks that ignore SIGTERM, with two workers."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.airflow.deployed import Airflow, is_alive, pid_of
from tests.airflow.environment import FAULTS
from tests.support.worker_process import descendants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats_executor.local.process import Process

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

WORKERS = ("first", "second")
# Airflow 3.4's default is a minute; 3.3 waits five seconds whatever is set here.
SETTINGS = FAULTS | {"CORE__KILLED_TASK_CLEANUP_TIME": 3}


def start_workers(airflow: Airflow) -> None:
    for name in WORKERS:
        airflow.add_worker(name, queues="default")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    home = tmp_path_factory.mktemp("pair")
    database = f"sqlite:///{home}/airflow.db?timeout=30"
    dags = ("deaf_cleared", "deaf_lost")
    with Airflow(
        home, database=database, dags=dags, settings=SETTINGS, workers=start_workers
    ) as airflow:
        yield airflow
    shutil.rmtree(home, ignore_errors=True)


def worker_of(airflow: Airflow, pid: int) -> Process:
    [found] = [p for p in airflow.workers if pid in descendants(pid_of(p))]
    return found


def require_one_end_each(airflow: Airflow, dag_id: str) -> None:
    """The first try never came to its end, the second one did, and nothing else ran."""
    run = {"d": dag_id, "r": airflow.runs[dag_id]}

    def state() -> str:
        query = "SELECT state FROM dag_run WHERE dag_id = :d AND run_id = :r"
        return str(airflow.rows(query, **run)[0]["state"])

    airflow.wait(lambda: state() in {"success", "failed"}, f"{dag_id} to end")
    rows = airflow.rows("SELECT * FROM task_instance WHERE dag_id = :d AND run_id = :r", **run)
    # Airflow 3.4 keeps the attempts that are over in the same table.
    live = [row for row in rows if row.get("working_set", True)]
    assert [(row["state"], row["try_number"]) for row in live] == [("success", 2)], rows
    assert airflow.lines(dag_id) == ["try 2"]


def test_a_cleared_task_runs_again_once_it_has_ended(pair: Airflow) -> None:
    """It waits for the end of the first try, which the setting bounds: nothing overlaps."""
    pair.trigger("deaf_cleared")
    [pid] = pair.wait_for_hold("deaf_cleared")
    body = {
        "dry_run": False,
        "only_failed": False,
        "dag_run_id": pair.runs["deaf_cleared"],
        "task_ids": ["deaf"],
    }

    pair.api.call("POST", "/api/v2/dags/deaf_cleared/clearTaskInstances", body)

    pair.wait(lambda: pair.lines("deaf_cleared"), "the second try")
    assert not is_alive(pid)
    require_one_end_each(pair, "deaf_cleared")


def test_a_task_of_a_worker_that_was_reported_lost_is_stopped_by_the_api_server(
    pair: Airflow,
) -> None:
    """The attempt is archived by then; what the worker says later about it changes nothing."""
    pair.trigger("deaf_lost")
    [pid] = pair.wait_for_hold("deaf_lost")
    worker = worker_of(pair, pid)
    log = worker.log

    os.kill(pid_of(worker), signal.SIGSTOP)
    try:
        pair.wait(lambda: pair.lines("deaf_lost"), "the second try, on the other worker")
        pair.wait_for_death(pid)
    finally:
        os.kill(pid_of(worker), signal.SIGCONT)

    said = "Server indicated the task shouldn't be running anymore"
    pair.wait(lambda: said in log.read_text(errors="replace"), "the supervisor's word on it")
    assert "status_code=410" in log.read_text(errors="replace")
    require_one_end_each(pair, "deaf_lost")
    pair.wait_for_loop()
    require_one_end_each(pair, "deaf_lost")

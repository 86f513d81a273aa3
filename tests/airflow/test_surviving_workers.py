"""Worker and task processes die, and Airflow's database is locked by another client meanwhile."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

if TYPE_CHECKING:
    from tests.airflow.deployed import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

# Without the executor's word a dead task is found by its last heartbeat, 300 s ago.
SOON = 200


def test_a_failure_is_not_lost_while_its_row_is_locked(hurt: Airflow) -> None:
    """Airflow 3.3 skips rows that are locked, and drops the events for them."""
    hurt.trigger("locked")
    [pid] = hurt.wait_for_hold("locked")
    lock = text(
        "SELECT state FROM task_instance WHERE dag_id = 'locked' AND run_id = :r FOR UPDATE"
    )

    with hurt.engine.connect() as connection:
        connection.execute(lock, {"r": hurt.runs["locked"]})
        os.kill(pid, signal.SIGKILL)
        hurt.wait(
            lambda: hurt.has_heard("failed", "dag_id='locked'"), "the scheduler to drop the event"
        )
        state = hurt.task("locked", "locked")["state"]

    [row] = hurt.finish("locked", seconds=SOON)["locked"]
    assert state == "running"
    assert (row["state"], row["try_number"]) == ("success", 2)


def test_a_lost_worker_is_noticed_where_no_other_serves_its_queue(hurt: Airflow) -> None:
    hurt.add_worker("lonely-1", queues="lonely")
    hurt.trigger("lonely")
    hurt.wait_for_hold("lonely")

    hurt.kill("lonely-1")

    hurt.wait(
        lambda: hurt.task("lonely", "lonely")["state"] != "running",
        "the end of the lost try",
        seconds=SOON,
    )
    assert any("worker lonely-1 lost" in event for event in hurt.events("lonely"))
    hurt.add_worker("lonely-2", queues="lonely")
    [row] = hurt.finish("lonely")["lonely"]
    assert (row["state"], row["try_number"]) == ("success", 2)
    assert hurt.lines("lonely") == ["try 1", "try 2"]

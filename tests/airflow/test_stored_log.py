"""The logs of ended tasks in Airflow's API, when their workers and the workers' files are gone."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from nats_executor.wire.names import Names
from tests.airflow.deployed import Airflow

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

LINES = 4000
DAG = f"""
from airflow.sdk import DAG, BaseOperator, task

from tests.airflow.lib.proving_triggers import OnMark


class Halves(BaseOperator):
    def execute(self, context):
        print("the first half")
        self.defer(trigger=OnMark("second-half"), method_name="back")

    def back(self, context, event):
        print("the second half")


with DAG("telling", schedule=None):

    @task
    def tells():
        for number in range({LINES}):
            print(f"line {{number}} of a long story")

    tells() >> Halves(task_id="halves")
"""
SETTINGS = {
    "LOGGING__LOGGING_CONFIG_CLASS": "nats_executor.logging_config.LOGGING_CONFIG",
    "LOGGING__REMOTE_LOGGING": True,
    "LOGGING__REMOTE_BASE_LOG_FOLDER": "nats://",
}


def folder_of(airflow: Airflow, worker: str) -> Path:
    return airflow.home / f"{worker}-logs"


def start_far_worker(airflow: Airflow, worker: str = "far-1") -> None:
    """Start a worker with log files of its own, as on another machine; it serves none of them."""
    process = airflow.deployment.worker(worker, queues="default", concurrency=2)
    folder = folder_of(airflow, worker)
    process.env = airflow.deployment.env | {"AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder)}
    airflow.launch(process, airflow.workers)


def lose(airflow: Airflow, worker: str) -> None:
    airflow.stop(worker)
    shutil.rmtree(folder_of(airflow, worker))


def log_of(airflow: Airflow, task_id: str) -> list[str]:
    run = f"/api/v2/dags/telling/dagRuns/{airflow.runs['telling']}"
    path = f"{run}/taskInstances/{task_id}/logs/1?full_content=true"
    return [str(message["event"]) for message in airflow.api.call("GET", path)["content"]]


def test_a_log_outlives_its_worker_and_is_whole(tmp_path: Path) -> None:
    """Its second half comes from another worker, after a deferral."""
    dags, home = tmp_path / "dags", tmp_path / "home"
    dags.mkdir()
    home.mkdir()
    (dags / "telling.py").write_text(DAG)
    airflow = Airflow(
        home,
        database=f"sqlite:///{home}/airflow.db?timeout=30",
        dags=["telling"],
        settings={"CORE__DAGS_FOLDER": dags, **SETTINGS},
        workers=start_far_worker,
    )
    with airflow:
        airflow.trigger("telling")
        airflow.wait(
            lambda: airflow.task("telling", "halves")["state"] == "deferred", "it", seconds=240
        )
        airflow.wait(lambda: "the first half" in log_of(airflow, "halves"), "the first half's log")
        lose(airflow, "far-1")
        start_far_worker(airflow, "far-2")
        (airflow.marks / "second-half").touch()
        airflow.finish("telling")
        lose(airflow, "far-2")

        story = [line for line in log_of(airflow, "tells") if "of a long story" in line]
        halves = log_of(airflow, "halves")
        stored = airflow.messages(Names().logs_stream)

    assert story == [f"line {number} of a long story" for number in range(LINES)]
    assert [line for line in halves if line.endswith(" half")] == [
        "the first half",
        "the second half",
    ]
    assert any("the trigger looks for second-half" in line for line in halves)
    assert not any("served logs" in line for line in halves)
    assert stored > 10

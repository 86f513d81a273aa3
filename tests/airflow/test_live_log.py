"""The log of a running task in Airflow's API, from a worker that nothing can connect to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.airflow.deployed import Airflow

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

DAG = """
from airflow.sdk import DAG, task

from tests.airflow.lib.proving_marks import hold

with DAG("talking", schedule=None):

    @task
    def talks():
        print("the first words")
        hold("talks")

    talks()
"""


def start_far_worker(airflow: Airflow) -> None:
    """Start a worker with log files of its own, as on another machine; it serves none of them."""
    process = airflow.deployment.worker("far-1", queues="default", concurrency=2)
    folder = airflow.home / "far-logs"
    process.env = airflow.deployment.env | {"AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder)}
    airflow.launch(process, airflow.workers)


def test_a_live_log_comes_from_a_worker_without_a_port(tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "talking.py").write_text(DAG)
    home = tmp_path / "home"
    home.mkdir()
    airflow = Airflow(
        home,
        database=f"sqlite:///{home}/airflow.db?timeout=30",
        dags=["talking"],
        settings={"CORE__DAGS_FOLDER": dags},
        workers=start_far_worker,
    )
    with airflow:
        airflow.trigger("talking")
        airflow.wait_for_hold("talks")
        run = f"/api/v2/dags/talking/dagRuns/{airflow.runs['talking']}"

        def log() -> str:
            answer = airflow.api.call("GET", f"{run}/taskInstances/talks/logs/1")
            return "\n".join(message["event"] for message in answer["content"])

        def is_shown(*texts: str) -> bool:
            found = log()
            return all(text in found for text in texts) and "served logs" not in found

        source = "on worker far-1, read over NATS"
        airflow.wait(lambda: is_shown("the first words", source), "the log")

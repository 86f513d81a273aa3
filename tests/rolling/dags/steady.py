"""The Dag of the rolling restart: tasks that write down when they run; imported by Airflow only."""

from __future__ import annotations

import os
import time
from pathlib import Path

from airflow.sdk import DAG, get_current_context, task

RUNS = Path(os.environ["TEST_MARKS"], "runs")
TASKS = 8


def note(what: str) -> None:
    """Add one line, whole: a short append to a file is one."""
    ti = get_current_context()["ti"]
    with RUNS.open("a") as runs:
        runs.write(f"{what} {ti.run_id} {ti.map_index} {ti.try_number} {os.getpid()}\n")


with DAG("steady", schedule=None, max_active_tasks=256, max_active_runs=256):

    @task(retries=0)
    def work(number: int) -> None:
        note("start")
        # Some are over at once, some are met in the middle by whatever is restarted.
        time.sleep(number % 4 * 0.5)
        note("end")

    work.expand(number=list(range(TASKS)))

"""The Dags that move from one executor to the other, under load; imported by Airflow only."""

from __future__ import annotations

import os
import time
from pathlib import Path

from airflow.sdk import DAG, get_current_context, task

MARKS = Path(os.environ["TEST_MARKS"])
RUNS = MARKS / "runs"
MAPPED = 4
LONGEST_HOLD_SECONDS = 600


def note(what: str) -> None:
    """Add one line, whole: a short append to a file is one."""
    ti = get_current_context()["ti"]
    name = f"{ti.dag_id} {ti.run_id} {ti.task_id} {ti.map_index}"
    with RUNS.open("a") as runs:
        runs.write(f"{what} {name} {os.environ.get('TEST_WORKER', '-')} {os.getpid()}\n")


def hold() -> None:
    """Wait until the test lets this run's task end."""
    name = (get_current_context()["dag_run"].conf or {}).get("hold")
    deadline = time.monotonic() + LONGEST_HOLD_SECONDS
    if name:
        (MARKS / f"{name}-holds").touch()
    while name and not (MARKS / f"{name}-may-end").exists():
        if time.monotonic() > deadline:
            raise TimeoutError(name)
        time.sleep(0.1)


# The test writes this line anew. The other Dags move by a policy, which leaves this one alone.
EXECUTOR = None

for dag_id in ("orders", "bills", "stocks"):
    own = {"executor": EXECUTOR} if dag_id == "stocks" else {}
    with DAG(
        dag_id, schedule=None, default_args=own, max_active_tasks=256, max_active_runs=256
    ) as dag:

        @task(retries=0)
        def first() -> None:
            note("start")
            hold()
            note("end")

        @task(retries=0)
        def work(number: int) -> None:
            note("start")
            time.sleep(number % 3 * 0.5)
            note("end")

        @task(retries=0)
        def last() -> None:
            note("start")
            note("end")

        first() >> work.expand(number=list(range(MAPPED))) >> last()
    globals()[dag_id] = dag

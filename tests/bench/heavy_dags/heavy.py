"""100 tasks of a Dag file with two seconds of imports."""

from __future__ import annotations

import os
import time
from pathlib import Path

from airflow.sdk import dag, get_current_context, task

from tests.bench.dags.shared import UNLIMITED, numbers
from tests.bench.heavy_dags.shared import MODULES


@task
def noted_start(_n: int) -> None:
    """Note how long ago Airflow's supervisor gave the task its start date."""
    now = time.time()  # the clock of the start date
    assert MODULES
    ti = get_current_context()["ti"]
    assert ti.start_date is not None
    line = f"{ti.id} {ti.start_date.timestamp()} {now}\n".encode()
    with (Path(os.environ["BENCH_NOTES"]) / "started").open("ab", buffering=0) as file:
        file.write(line)


@dag(schedule=None, max_active_tasks=UNLIMITED)
def heavy() -> None:
    noted_start.expand(_n=numbers(100))


heavy()

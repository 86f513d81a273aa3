"""200 tasks whose processes note when they end."""

from __future__ import annotations

import atexit
import os
import time
from pathlib import Path

from airflow.sdk import dag, get_current_context, task

from tests.bench.dags.shared import UNLIMITED, numbers


@task
def noted_end(_n: int) -> None:
    """Note when this process ends: with the last Python that it runs, after all of Airflow's."""
    ti = str(get_current_context()["ti"].id)
    notes = Path(os.environ["BENCH_NOTES"]) / "ended"

    def note() -> None:
        line = f"{ti} {time.monotonic_ns()}\n".encode()
        with notes.open("ab", buffering=0) as file:
            file.write(line)

    atexit.register(note)


@dag(schedule=None, max_active_tasks=UNLIMITED)
def ends() -> None:
    noted_end.expand(_n=numbers(200))


ends()

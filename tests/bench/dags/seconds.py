"""200 tasks of one second."""

from __future__ import annotations

import time

from airflow.sdk import dag, task

from tests.bench.dags.shared import UNLIMITED, numbers

SECOND = 1.0


@task
def one_second(_n: int) -> None:
    time.sleep(SECOND)  # what is measured: a slot that is busy, not a wait for anything


@dag(schedule=None, max_active_tasks=UNLIMITED)
def seconds() -> None:
    one_second.expand(_n=numbers(200))


seconds()

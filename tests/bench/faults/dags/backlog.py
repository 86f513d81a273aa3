"""40 tasks of 5 seconds, each with two more tries."""

from __future__ import annotations

import time

from airflow.sdk import dag, task

from tests.bench.dags.shared import UNLIMITED, numbers
from tests.bench.faults.dags.shared import RETRIES, RETRY_DELAY, note_begin


@task(retries=RETRIES, retry_delay=RETRY_DELAY)
def wait(n: int) -> None:
    note_begin(n)
    time.sleep(5)  # what is hurt: a task that is busy, not a wait for anything


@dag(schedule=None, max_active_tasks=UNLIMITED)
def backlog() -> None:
    wait.expand(n=numbers(40))


backlog()

"""12 tasks that load pandas and hold 250 MB for five seconds, each with two more tries."""

from __future__ import annotations

import time
from importlib import import_module

from airflow.sdk import dag, task

from tests.bench.dags.shared import UNLIMITED, numbers
from tests.bench.faults.dags.shared import RETRIES, RETRY_DELAY, note_begin

import_module("pandas")

SIZE = 250_000_000


@task(retries=RETRIES, retry_delay=RETRY_DELAY)
def hold(n: int) -> None:
    note_begin(n)
    block = bytearray(b"x") * SIZE
    time.sleep(5)  # what is measured: memory that is held, not a wait for anything
    del block


@dag(schedule=None, max_active_tasks=UNLIMITED)
def hungry() -> None:
    hold.expand(n=numbers(12))


hungry()

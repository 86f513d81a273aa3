"""32 tasks, whatever the scale, of a file that imports nothing heavy."""

from __future__ import annotations

from airflow.sdk import dag

from tests.bench.dags.shared import UNLIMITED, noop


@dag(schedule=None, max_active_tasks=UNLIMITED)
def warm() -> None:
    noop.expand(_n=list(range(32)))


warm()

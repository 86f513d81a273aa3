"""900 of what is left to 5,000 tasks."""

from __future__ import annotations

from airflow.sdk import dag

from tests.bench.dags.shared import UNLIMITED, noop, numbers


@dag(schedule=None, max_active_tasks=UNLIMITED)
def to_5000() -> None:
    noop.expand(_n=numbers(900))


to_5000()

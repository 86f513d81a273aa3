"""The tasks that are left to 500 after the runs before."""

from __future__ import annotations

from airflow.sdk import dag

from tests.bench.dags.shared import UNLIMITED, noop, numbers


@dag(schedule=None, max_active_tasks=UNLIMITED)
def to_500() -> None:
    noop.expand(_n=numbers(270))


to_500()

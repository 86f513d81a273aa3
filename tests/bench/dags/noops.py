"""200 tasks that do nothing."""

from __future__ import annotations

from airflow.sdk import dag

from tests.bench.dags.shared import UNLIMITED, noop, numbers


@dag(schedule=None, max_active_tasks=UNLIMITED)
def noops() -> None:
    noop.expand(_n=numbers(200))


noops()

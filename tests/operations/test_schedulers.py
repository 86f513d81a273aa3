"""Which schedulers Airflow takes for alive."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from airflow import settings as airflow_settings
from airflow.jobs.job import Job
from airflow.sdk import timezone
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from nats_executor.errors import DatabaseAway
from nats_executor.operations.schedulers import living_schedulers
from tests.scheduler.conftest import airflow_database
from tests.scheduler.table import table_fixture

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scheduler.table import Rows

__all__ = ["airflow_database", "table_fixture"]


def test_those_count_that_run_and_were_heard_lately(
    table: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD", "600")
    now = timezone.utcnow()
    for job, kind, state, ago in (
        (101, "SchedulerJob", "running", 1),
        (102, "SchedulerJob", "running", 700),
        (103, "SchedulerJob", "failed", 1),
        (104, "TriggererJob", "running", 1),
        (105, "SchedulerJob", "running", 500),
    ):
        heard = now - timedelta(seconds=ago)
        table.add(Job, id=job, job_type=kind, state=state, latest_heartbeat=heard)
    table.add(Job, id=106, job_type="SchedulerJob", state="running", latest_heartbeat=None)

    living = living_schedulers()

    assert [job for job in living if int(job) > 100] == ["101", "105"]


def test_a_database_that_is_away_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/nowhere/x.db")
    monkeypatch.setattr(airflow_settings, "NonScopedSession", sessionmaker(engine))

    with pytest.raises(DatabaseAway, match=r"database does not answer.*sql_alchemy_conn"):
        living_schedulers()

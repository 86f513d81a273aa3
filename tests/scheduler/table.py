"""Committed rows of a real database, for an executor that looks at them in sessions of its own."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from airflow import settings as airflow_settings
from airflow.jobs.job import Job
from airflow.models.callback import ExecutorCallback
from airflow.models.connection_test import ConnectionTestRequest
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.pool import Pool
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import timezone
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import delete, event, insert, select, update

from nats_executor.wire.messages import Presence, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scheduler.stage import Stage

__all__ = [
    "JOB",
    "LOST_SECONDS",
    "VERSION",
    "Rows",
    "announce",
    "counted",
    "loops_fixture",
    "record",
    "table_fixture",
]

JOB = 7  # the stage's scheduler
LOST_SECONDS = 0.4
# Of a Dag that was stored as the Dag processor does.
LEFT = (Log, TaskInstance, DagRun, DagVersion, DagModel, DagBundleModel, Job)
VERSION = uuid.uuid4()  # of the Dag


class Rows:
    """Committed rows, because the executor looks at them in sessions of its own."""

    def add(self, model: Any, **values: Any) -> None:
        with create_session(scoped=False) as session:
            session.execute(insert(model.__table__).values(**values))

    def add_task(
        self, task_id: str, state: str = TaskInstanceState.QUEUED, **more: Any
    ) -> dict[str, Any]:
        """Insert a task instance as the scheduler leaves it; return the workload's arguments."""
        ids: dict[str, Any] = {"ti_id": uuid.uuid4(), "dispatch_id": str(uuid.uuid4())}
        values: dict[str, Any] = {
            "id": ids["ti_id"], "external_executor_id": ids["dispatch_id"], "task_id": task_id,
            "dag_id": "a_dag", "run_id": "a_run", "state": state, "try_number": 1,
            "queue": "default", "pool": "default_pool", "pool_slots": 1, "queued_by_job_id": JOB,
            "dag_version_id": VERSION, "priority_weight": 1,
        }  # fmt: skip
        # Airflow 3.4 stores it under another name, and reads it by both.
        if "map_index" in more and hasattr(TaskInstance, "region_index"):
            more["region_index"] = more.pop("map_index")
        self.add(TaskInstance, **(values | more))
        return ids | {"task_id": task_id}

    def change_task(self, task_id: str, **values: Any) -> None:
        with create_session(scoped=False) as session:
            session.execute(
                update(TaskInstance).where(TaskInstance.task_id == task_id).values(**values)
            )

    def add_callback(self, state: str) -> str:
        subject = uuid.uuid4()
        with create_session(scoped=False) as session:
            run = session.scalar(select(DagRun.id).where(DagRun.dag_id == "a_dag"))
        data: dict[str, Any] = {
            "path": "a.callback",
            "kwargs": {},
            "dag_run_id": run,
            "dag_id": "a_dag",
        }
        self.add(
            ExecutorCallback, id=subject, type="executor", fetch_method="import_path", data=data,
            state=state, priority_weight=1, created_at=timezone.utcnow(),
        )  # fmt: skip
        return str(subject)

    def add_connection_test(self, state: str, **more: Any) -> str:
        subject, now = uuid.uuid4(), timezone.utcnow()
        self.add(
            ConnectionTestRequest, id=subject, token=str(subject), connection_id="c", state=state,
            conn_type="fs", queue="heavy", created_at=now, updated_at=now, **more,
        )  # fmt: skip
        return str(subject)


@pytest.fixture(name="table")
def table_fixture(airflow_database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rows]:  # noqa: ARG001
    """Rows of a Dag run whose scheduler is the stage's; all gone after the test."""
    made = Rows()
    models = (
        Log, ConnectionTestRequest, ExecutorCallback, TaskInstance, DagRun, DagVersion, DagModel,
        DagBundleModel,
    )  # fmt: skip
    try:
        made.add(DagBundleModel, name="dags")
        made.add(DagModel, dag_id="a_dag", bundle_name="dags", max_active_tasks=1,
                 max_consecutive_failed_dag_runs=0, has_task_concurrency_limits=False,
                 relative_fileloc="a_dag.py")  # fmt: skip
        made.add(DagVersion, id=VERSION, dag_id="a_dag", version_number=1, bundle_name="dags",
                 created_at=timezone.utcnow())  # fmt: skip
        made.add(DagRun, dag_id="a_dag", run_id="a_run", run_type="manual",
                 run_after=timezone.utcnow(), state=DagRunState.RUNNING)  # fmt: skip
        options = {"heartbeat": 0.1, "worker_lost": LOST_SECONDS, "sweep": 0.2}
        for name, seconds in options.items():
            monkeypatch.setenv(f"AIRFLOW__NATS_EXECUTOR__{name.upper()}_SECONDS", str(seconds))
        monkeypatch.setattr("nats_executor.scheduler.inspector.SECOND_LOOK_SECONDS", 0.0)
        yield made
    finally:
        with create_session(scoped=False) as session:
            for model in models:
                session.execute(delete(model.__table__))


@contextmanager
def counted() -> Iterator[list[str]]:
    """Collect the SQL statements that are executed meanwhile."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    engine = airflow_settings.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


@pytest.fixture(name="loops")
def loops_fixture() -> Iterator[None]:
    """Nothing of it is left for other tests."""
    with create_session(scoped=False) as session:
        slots = session.scalar(select(Pool.slots))
    yield
    with create_session(scoped=False) as session:
        for model in LEFT:
            session.execute(delete(model.__table__))
        session.execute(update(Pool).values(slots=slots))


def record(worker: str = "w1", name: str = "worker-1", **more: Any) -> bytes:
    return encode(
        Presence(
            worker=worker, name=name, host="h", pid=1, queues=["default"], concurrency=1,
            running=1, draining=False, started_at=0.0, at=0.0, version="1", **more,
        )
    )  # fmt: skip


def announce(stage: Stage, worker: str = "w1", name: str = "worker-1") -> None:
    stage.ask("publish", stage.names.presence("default", name), record(worker, name))

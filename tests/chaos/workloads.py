"""Rows as Airflow's objects: the workloads that a scheduler hands over, and their identities."""

from __future__ import annotations

import base64
import json
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow.executors import workloads
from airflow.executors.workloads.base import BundleInfo
from airflow.executors.workloads.callback import CallbackDTO, CallbackFetchMethod
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.models.callback import CallbackKey
from airflow.models.taskinstancekey import TaskInstanceKey

from tests.chaos.database import Behaviour

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecutorWorkload
    from airflow.executors.workloads.types import WorkloadKey

    from tests.chaos.database import Row

__all__ = ["PRIORITY", "instance", "key_of", "number_in", "workload_of"]

RUN_ID = "chaos"
BUNDLE = BundleInfo(name="chaos", version=None)
TOKEN_SECONDS = 600
PRIORITY = 1


def key_of(row: Row) -> WorkloadKey:
    if row.is_callback:
        return CallbackKey(row.ti_id)
    return TaskInstanceKey(row.behaviour, f"w{row.number}", RUN_ID, row.try_number, -1)


def number_in(key: TaskInstanceKey) -> int:
    return int(key.task_id.removeprefix("w"))


def instance(row: Row) -> Any:
    """Return what an executor reads of Airflow's `TaskInstance`."""
    key = key_of(row)
    return SimpleNamespace(
        id=uuid.UUID(row.ti_id), key=key, dag_id=row.behaviour, task_id=f"w{row.number}",
        run_id=RUN_ID, try_number=row.try_number, map_index=-1, state=row.state, queue=row.queue,
        external_executor_id=row.dispatch, queued_by_job_id=row.queued_by, row=row,
    )  # fmt: skip


def workload_of(row: Row, *, is_fresh: bool = False) -> ExecutorWorkload:
    """Return what the scheduler hands over.

    Args:
        is_fresh: with a token that is good whatever the row's behaviour says.
    """
    is_old = row.behaviour == Behaviour.OLD_TOKEN and not is_fresh
    common: dict[str, Any] = {
        "dag_rel_path": Path("chaos.py"),
        "token": token(-1 if is_old else TOKEN_SECONDS),
        "log_path": "chaos.log",
        "bundle_info": BUNDLE,
    }
    if row.is_callback:
        kwargs = {"number": row.number, "length": row.length}
        callback = CallbackDTO(
            id=row.ti_id,
            fetch_method=CallbackFetchMethod.IMPORT_PATH,
            data={"path": "a.callback", "kwargs": kwargs},
        )
        return workloads.ExecuteCallback(callback=callback, **common)
    ti = TaskInstanceDTO(
        id=uuid.UUID(row.ti_id),
        dag_version_id=uuid.UUID(int=1),
        dag_id=row.behaviour,
        task_id=f"w{row.number}",
        run_id=RUN_ID,
        try_number=row.try_number,
        map_index=-1,
        pool_slots=1,
        queue=row.queue,
        priority_weight=PRIORITY,
        external_executor_id=row.dispatch,
    )
    return workloads.ExecuteTask(ti=ti, **common)


def token(lives_seconds: float) -> str:
    """Return a token that says how long it lives; the stand-in for the API server reads none."""
    claims = json.dumps({"exp": int(time.time() + lives_seconds)}).encode()
    return f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.e30"

"""The stage of real workers: Airflow's configuration, a Dag, its tasks' marks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.waiting import wait_until
from tests.support.worker_process import Post, WorkerProcess

if TYPE_CHECKING:
    from nats_executor.settings import Settings
    from tests.support.execution_api import ExecutionApi

__all__ = ["DAG", "QUICK", "ProcessStage", "callback_body", "is_alive", "make_home", "task_body"]

DAG = Path(__file__).parents[1] / "worker" / "outcomes_dag.py"
# A lost worker is found within seconds.
QUICK: dict[str, Any] = {"ack_wait_seconds": 2, "heartbeat_seconds": 0.5, "worker_lost_seconds": 1}


@dataclass
class ProcessStage:
    """The processes of one test, and the way to give them work."""

    settings: Settings
    post: Post
    api: ExecutionApi
    marks: Path
    directory: Path
    workers: list[WorkerProcess] = field(default_factory=list)
    daemons: list[int] = field(default_factory=list)

    def launch(self, *args: str, name: str = "w1", **options: object) -> WorkerProcess:
        worker = WorkerProcess.launch(
            self.directory, self.settings, *args, name=name, **(QUICK | options)
        )
        self.workers.append(worker)
        return worker

    async def start(self, *args: str, name: str = "w1", **options: object) -> WorkerProcess:
        worker = self.launch("--skip-serve-logs", *args, name=name, **options)
        await worker.said("is ready")
        return worker

    async def send(self, task: str) -> str:
        """Queue a task of the test's Dag; its dispatch has the id of its task instance here."""
        dispatch_id = str(uuid.uuid4())
        await self.post.send(task_body(task, dispatch_id), dispatch_id)
        return dispatch_id

    async def pid_of(self, dispatch_id: str) -> int:
        """The pid that a task of the test's Dag wrote down."""
        mark = self.marks / dispatch_id
        return int(await wait_until(lambda: mark.exists() and mark.read_text(), 30, "the task"))

    def clear_away(self) -> None:
        """End every process that is left."""
        while self.workers:
            self.workers.pop().clear_away()
        while self.daemons:
            with contextlib.suppress(ProcessLookupError):  # as it should be
                os.kill(self.daemons.pop(), signal.SIGKILL)


def make_home(home: Path, api: ExecutionApi, marks: Path, dag: Path = DAG) -> dict[str, str]:
    """Put the Dag into a bundle under `home` and return the environment that points there."""
    bundle = home / "bundle"
    bundle.mkdir()
    (bundle / DAG.name).write_text(dag.read_text())
    bundles = [
        {
            "name": "outcomes",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(bundle)},
        }
    ]
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": api.url,
        "AIRFLOW__GHOSTS___CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:1/execution/",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__MULTI_TEAM": "True",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "2",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MIN": "0.01",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "0.02",
        # Airflow's supervisor sleeps this long when nothing wakes it: an exit that is noticed
        # within a test was noticed by our watch.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "100",
        "TEST_MARKS": str(marks),
    }


def task_body(task: str, ti_id: str) -> dict[str, Any]:
    """Airflow's `ExecuteTask` as JSON."""
    return {
        "type": "ExecuteTask",
        "token": "a.secret.token",
        "ti": {
            "id": ti_id,
            "dag_version_id": str(uuid.uuid4()),
            "task_id": task,
            "dag_id": "outcomes",
            "run_id": "manual",
            "try_number": 1,
            "map_index": -1,
            "pool_slots": 1,
            "queue": "default",
            "priority_weight": 1,
        },
        "dag_rel_path": DAG.name,
        "bundle_info": {"name": "outcomes", "version": None},
        "log_path": f"{ti_id}.log",
    }


def callback_body(path: str, **kwargs: object) -> dict[str, Any]:
    """Airflow's `ExecuteCallback` as JSON."""
    callback_id = str(uuid.uuid4())
    return {
        "type": "ExecuteCallback",
        "token": "a.secret.token",
        "callback": {
            "id": callback_id,
            "fetch_method": "import_path",
            "data": {"path": path, "kwargs": kwargs},
        },
        "dag_rel_path": DAG.name,
        "bundle_info": {"name": "outcomes", "version": None},
        "log_path": f"{callback_id}.log",
    }


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not just waiting to be reaped."""
    with contextlib.suppress(OSError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False

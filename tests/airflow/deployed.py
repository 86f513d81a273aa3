"""A whole Airflow on this machine, as a test sees it."""

from __future__ import annotations

import json
import os
import secrets
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import create_engine, text

from nats_executor.local.api import AirflowApi, ApiSilent
from nats_executor.local.components import Components
from nats_executor.local.deployment import Deployment, free_port, python_environment
from nats_executor.local.embedded import EmbeddedServer
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_executor.local.process import Process

__all__ = ["Airflow"]

HERE = Path(__file__).parent
USER, PASSWORD = "admin", "admin"
# Far above what two slow cores need; what goes wrong is found by other means.
START_SECONDS = 180
RUN_SECONDS = 120
# A dead scheduler is found after this time; a busy machine must not look dead.
SCHEDULER_SECONDS = 10


class Airflow:
    """API server, scheduler, dag processor, triggerer, nats-server and a worker."""

    def __init__(self, home: Path, *, database: str) -> None:
        self.home = home
        self.database = database
        self.port = free_port()
        self.api = AirflowApi(self.port)
        self.marks = home / "marks"
        self.marks.mkdir()
        self.runs: dict[str, str] = {}
        self.exits = ExitStack()
        self.engine = create_engine(database)

    def __enter__(self) -> Self:
        with self.exits:
            server = self.exits.enter_context(EmbeddedServer(self.home / "nats"))
            self.deployment = Deployment(
                env=self.environment() | server.environment(),
                logs=self.home / "components",
                grace_seconds=1.0,
                worker_grace_seconds=5.0,
            )
            # The workers stop first: they report to a broker and an API that still run.
            self.core = self.exits.enter_context(Components(needs=server))
            self.workers = self.exits.enter_context(Components())
            self.exits.callback(self.engine.dispose)
            self.start()
            self.exits = self.exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.exits.close()

    def start(self) -> None:
        self.add_worker("worker-1", queues="default,heavy")
        migration = self.deployment.migration().start()
        try:
            assert migration.wait_for_end(START_SECONDS) == 0, migration.obituary()
        finally:
            migration.stop()
        self.core.start(self.deployment.core(host="127.0.0.1", port=self.port))
        self.wait(self.is_ready, "Airflow to be ready", seconds=START_SECONDS)

    def is_ready(self) -> bool:
        try:
            if not self.api.token:
                self.api.log_in(USER, PASSWORD)
            return all(self.api.has_dag(dag) for dag in ("flow", "cleared", "late", "orphans"))
        except ApiSilent:
            return False

    def environment(self) -> dict[str, str]:
        passwords = self.home / "passwords.json"
        passwords.write_text(json.dumps({USER: PASSWORD}))
        settings = {
            "CORE__EXECUTOR": "nats:nats_executor.NatsExecutor,LocalExecutor",
            "CORE__DAGS_FOLDER": HERE / "dags",
            "CORE__LOAD_EXAMPLES": False,
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": False,
            "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
            "CORE__FERNET_KEY": "",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": passwords,
            "CORE__TEST_CONNECTION": "Enabled",
            "DATABASE__SQL_ALCHEMY_CONN": self.database,
            "API__BASE_URL": f"http://127.0.0.1:{self.port}",
            "API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
            "DAG_PROCESSOR__PARSING_PROCESSES": 1,
            "NATS_EXECUTOR__DRAIN_SECONDS": 0,
            "NATS_EXECUTOR__KILL_SECONDS": 2,
            "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": 2,
            "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": SCHEDULER_SECONDS,
            "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": 1,
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.2,
            # A task that is cleared is told at its next heartbeat.
            "WORKERS__MIN_HEARTBEAT_INTERVAL": 1,
        }
        own = {f"AIRFLOW__{name}": str(value) for name, value in settings.items()}
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW_")}
        here = {
            "AIRFLOW_HOME": str(self.home),
            "PYTHONPATH": str(HERE / "lib"),
            "TEST_MARKS": str(self.marks),
        }
        return inherited | python_environment(self.home) | own | here

    def add_worker(self, name: str, *, queues: str) -> None:
        self.workers.start([self.deployment.worker(name, queues=queues, concurrency=4)])

    # What a test asks

    def wait(self, is_so: Callable[[], Any], description: str, *, seconds: float = 60) -> None:
        """Wait, and fail at once when a component has died."""

        def look() -> bool:
            self.core.require_alive()
            self.workers.require_alive()
            return bool(is_so())

        block_until(look, seconds, description)

    def rows(self, query: str, **values: object) -> list[dict[str, Any]]:
        """Ask Airflow's own database."""
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(query), values).mappings()]

    def trigger(self, dag_id: str) -> None:
        self.runs[dag_id] = self.api.trigger(dag_id)

    def finish(self, dag_id: str) -> dict[str, list[dict[str, Any]]]:
        """Wait for a run's success; return its task instances by task."""

        def state() -> str:
            [row] = self.rows(
                "SELECT state FROM dag_run WHERE dag_id = :d AND run_id = :r",
                d=dag_id,
                r=self.runs[dag_id],
            )
            return str(row["state"])

        self.wait(lambda: state() in {"success", "failed"}, f"{dag_id} to end", seconds=RUN_SECONDS)
        tasks = self.tasks(dag_id)
        assert state() == "success", tasks
        return tasks

    def tasks(self, dag_id: str) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        query = "SELECT * FROM task_instance WHERE dag_id = :d AND run_id = :r ORDER BY map_index"
        for row in self.rows(query, d=dag_id, r=self.runs[dag_id]):
            found.setdefault(row["task_id"], []).append(row)
        return found

    def wait_for_mark(self, name: str) -> None:
        self.wait((self.marks / name).exists, f"mark {name}")

    def release(self, name: str) -> None:
        (self.marks / f"{name}-may-end").touch()

    def kill_scheduler(self) -> None:
        """SIGKILL it, as an out-of-memory killer does."""
        [scheduler] = [p for p in self.core.processes if p.name == "scheduler"]
        os.kill(child_of(scheduler), signal.SIGKILL)
        scheduler.stop()
        self.core.processes.remove(scheduler)

    def start_scheduler(self) -> None:
        [scheduler] = [
            p
            for p in self.deployment.core(host="127.0.0.1", port=self.port)
            if p.name == "scheduler"
        ]
        scheduler.log = scheduler.log.with_name("scheduler-2.log")
        self.core.start([scheduler])


def child_of(process: Process) -> int:
    """Return the pid of a component; the process itself is the leash that holds it."""
    assert process.leash is not None
    pid = process.leash.pid
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)

"""The shared part of all contenders: one database, one API server, one dag processor, both brokers.

Settings are Airflow's defaults but for these, which are the same for all:

- The Dags' own `max_active_tasks` is 1024: the default of 16 would let no task wait in any
  executor when there are 16 slots.
- `[core] parallelism` stays 32 (the LocalExecutor's is the number of slots, which is what the
  setting means there), `[scheduler] max_tis_per_query` 16 and the default pool 128.
- Examples are off, Dags start unpaused, every secret and port is this run's own.
- PostgreSQL runs without fsync (its disk is not what is compared); Redis and nats-server run
  with their own defaults, nats-server with file storage.
- No triggerer runs: no task waits for one.
- The EdgeExecutor's workers get their tasks from the API server, which serves them where this
  contender takes part (`[edge] api_enabled`).
"""

from __future__ import annotations

import json
import os
import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import create_engine, text

from nats_executor.local.api import AirflowApi, ApiError, ApiSilent
from nats_executor.local.components import Components
from nats_executor.local.deployment import Deployment, python_environment
from nats_executor.local.process import LocalError, Process
from tests.airflow.postgres import PostgresServer
from tests.bench.needs import require_postgres
from tests.bench.sides import CELERY, EDGE, NATS
from tests.support.nats_server import NatsServer, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tests.bench.sample import Task
    from tests.bench.sides import Side

__all__ = ["Run", "RunFailed", "SharedAirflow"]

DAGS = Path(__file__).parent / "dags"
NO_DAGS = {"__init__", "shared"}
USER = PASSWORD = "admin"
START_SECONDS = 300.0
POLL_SECONDS = 0.2
SHOW_SECONDS = 15.0


class RunFailed(Exception):
    """A Dag run did not succeed, so there is nothing to measure."""


@dataclass(frozen=True, slots=True)
class Run:
    """A Dag run that has succeeded.

    Attributes:
        seconds: from the first task that the scheduler queued to the end of the last one.
    """

    tasks: int
    seconds: float

    @property
    def tasks_per_second(self) -> float:
        return self.tasks / self.seconds


class SharedAirflow:
    """Everything but schedulers and workers, for the length of the context.

    Args:
        sides: whose brokers to start.
        dags: a folder in which each file defines the Dag that is named like it.

    Attributes:
        notes: where timed workers and their tasks write.
        worker_env: what only workers have in their environment.
    """

    def __init__(self, task: Task, sides: Collection[Side], dags: Path = DAGS) -> None:
        self.task = task
        self.dags = dags
        self.dag_ids = {path.stem for path in dags.glob("*.py")} - NO_DAGS
        self.worker_env: dict[str, str] = {}
        self.home = task.directory / "airflow"
        self.notes = self.home / "notes"
        self.sides = sides
        self.port = free_port()
        self.api = AirflowApi(self.port)
        self.broker = NatsServer(self.home / "nats")
        self.number = 0
        self.exits = ExitStack()

    def __enter__(self) -> Self:
        require_postgres()
        self.notes.mkdir(parents=True, exist_ok=True)
        with self.exits:
            self.postgres = self.exits.enter_context(PostgresServer())
            self.engine = create_engine(self.postgres.url, pool_pre_ping=True)
            self.exits.callback(self.engine.dispose)
            self.exits.callback(self.broker.kill)
            if any(side.executor == NATS.executor for side in self.sides):
                self.broker.start()
            self.core = self.exits.enter_context(Components())
            self.deployment = Deployment(
                env=self.environment(),
                logs=self.home / "logs",
                grace_seconds=5.0,
                worker_grace_seconds=15.0,
            )
            if CELERY in self.sides:
                self.start_redis()
            self.start()
            self.exits = self.exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.exits.close()

    def start_redis(self) -> None:
        (self.home / "redis").mkdir()
        port = free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.home / "redis")]
        log = self.home / "redis" / "redis.log"
        self.redis = Process("redis-server", ["redis-server", *options], log=log)
        self.redis_port = port
        self.core.start([self.redis])
        self.deployment.env |= {
            "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{port}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{self.postgres.url}",
        }

    def start(self) -> None:
        self.task.say("starting PostgreSQL, API server and dag processor")
        self.core.run(self.deployment.migration(), seconds=START_SECONDS)
        port = str(self.port)
        server = ("api-server", "--host", "127.0.0.1", "--port", port, "-w", "1")
        self.core.start(
            [
                self.deployment.process("api-server", *server),
                self.deployment.process("dag-processor", "dag-processor"),
            ]
        )
        self.core.wait_until(self.has_dags, seconds=START_SECONDS, description="Airflow to start")

    def has_dags(self) -> bool:
        try:
            if not self.api.token:
                self.api.log_in(USER, PASSWORD)
            return all(self.api.has_dag(dag) for dag in self.dag_ids)
        except ApiSilent:
            return False

    def environment(self) -> dict[str, str]:
        passwords, temporary = self.home / "passwords.json", self.home / "tmp"
        temporary.mkdir()
        passwords.write_text(json.dumps({USER: PASSWORD}))
        settings = {
            # Of the API server and the dag processor, which run no task.
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__DAGS_FOLDER": self.dags,
            "CORE__LOAD_EXAMPLES": False,
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": False,
            "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
            "CORE__FERNET_KEY": "",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": passwords,
            "DATABASE__SQL_ALCHEMY_CONN": self.postgres.url,
            "API__BASE_URL": f"http://127.0.0.1:{self.port}",
            "API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
            "LOGGING__WORKER_LOG_SERVER_PORT": free_port(),
            "NATS_EXECUTOR__SERVERS": self.broker.url,
            "EDGE__API_ENABLED": EDGE in self.sides,
            "EDGE__API_URL": f"http://127.0.0.1:{self.port}/edge_worker/v1/rpcapi",
        } | self.more_settings()
        own = {f"AIRFLOW__{name}": str(value) for name, value in settings.items()}
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW_")}
        here = {
            "AIRFLOW_HOME": str(self.home),
            "PYTHONPATH": str(Path(__file__).parents[2]),  # for the timed workers
            "BENCH_SCALE": str(self.task.scale),
            "BENCH_NOTES": str(self.notes),
            "TMPDIR": str(temporary),  # a worker that is killed leaves files
        }
        return inherited | python_environment(self.home) | own | here

    def more_settings(self) -> dict[str, object]:
        """What another kind of Airflow has besides."""
        return {}

    # Runs

    def rows(self, query: str, **values: object) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(query), values).mappings()]

    def run(self, dag_id: str, *, check: Callable[[], None], seconds: float) -> Run:
        """Trigger a Dag, wait for its end and return what the database says of it.

        Raises:
            RunFailed: it failed, did not end in time, or a task needed another try.
            LocalError: a component has died.
        """
        self.number += 1
        of = {"d": dag_id, "r": f"{dag_id}-{self.number}"}
        began = shown = time.monotonic()
        while not self.has_triggered(dag_id, of["r"]):
            check()
            time.sleep(POLL_SECONDS)
        while (state := self.state(of)) not in {"success", "failed"}:
            check()
            if (now := time.monotonic()) - shown > SHOW_SECONDS:
                shown = now
                self.task.say(f"    {dag_id}: {self.counts(of)}")
            if now - began > seconds:
                raise RunFailed(f"{dag_id} did not end within {seconds:g} s: {self.counts(of)}")
            time.sleep(POLL_SECONDS)
        if state == "failed":
            raise RunFailed(f"{dag_id} failed: {self.counts(of)}")
        return self.result(of)

    def has_triggered(self, dag_id: str, run_id: str) -> bool:
        """Ask once for a run; an API server that is too busy to answer may have made it."""
        try:
            body = {"logical_date": None, "dag_run_id": run_id}
            self.api.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)
        except ApiSilent:
            return False
        except ApiError as exc:
            if exc.status != HTTPStatus.CONFLICT:
                raise
        return True

    def state(self, of: dict[str, str]) -> str:
        [row] = self.rows("SELECT state FROM dag_run WHERE dag_id = :d AND run_id = :r", **of)
        return str(row["state"])

    def counts(self, of: dict[str, str]) -> str:
        query = (
            "SELECT state, count(*) AS n FROM task_instance"
            " WHERE dag_id = :d AND run_id = :r GROUP BY state ORDER BY state"
        )
        return ", ".join(f"{row['n']} {row['state']}" for row in self.rows(query, **of))

    def result(self, of: dict[str, str]) -> Run:
        [row] = self.rows(
            "SELECT count(*) AS tasks, max(try_number) AS tries,"
            " extract(epoch FROM max(end_date) - min(queued_dttm)) AS seconds"
            " FROM task_instance WHERE dag_id = :d AND run_id = :r",
            **of,
        )
        if row["tries"] != 1:
            raise RunFailed(f"{of['d']}: a task needed another try, which is no measurement")
        return Run(tasks=int(row["tasks"]), seconds=float(row["seconds"]))

    def schedulers(self) -> set[int]:
        """The jobs of schedulers that have said a first time that they are alive."""
        query = "SELECT id FROM job WHERE job_type = 'SchedulerJob' AND state = 'running'"
        return {int(row["id"]) for row in self.rows(query)}

    def has_edge_worker(self, name: str) -> bool:
        """Whether a worker of the EdgeExecutor has said that it takes tasks."""
        query = "SELECT 1 FROM edge_worker WHERE worker_name = :n AND state IN ('idle', 'running')"
        return bool(self.rows(query, n=name))

    def require_alive(self) -> None:
        self.core.require_alive()
        if self.broker.process is not None and self.broker.process.poll() is not None:
            raise LocalError("nats-server has died", log=self.home / "nats" / "server.log")

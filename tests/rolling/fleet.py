"""A whole Airflow with more than one of everything that can be doubled."""

from __future__ import annotations

import functools
import os
from contextlib import ExitStack, suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import create_engine, text

from nats_executor.local.api import AirflowApi, ApiError, ApiSilent
from nats_executor.local.components import Components
from nats_executor.local.deployment import Deployment, free_port
from nats_executor.wire.names import Names
from tests.airflow.deployed import pid_of
from tests.airflow.environment import PASSWORD, USER, environment
from tests.airflow.tables import LIVE
from tests.rolling.balancer import Balancer
from tests.rolling.plan import COMPONENTS, Kind
from tests.support.nats_server import nats_cluster, start_together

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    from nats_executor.local.process import Process

__all__ = ["DAG", "Fleet"]

DAG = "steady"
START_SECONDS = 300.0
SLOTS = 8
# The product's and Airflow's own defaults but for the copies of a stream, and for how soon a
# scheduler that was killed counts as dead: as the tests have it everywhere.
SETTINGS: dict[str, object] = {
    "CORE__EXECUTOR": "nats_executor.NatsExecutor",
    "CORE__DAGS_FOLDER": Path(__file__).parent / "dags",
    "NATS_EXECUTOR__REPLICAS": COMPONENTS[Kind.NATS_SERVER],
    "NATS_EXECUTOR__DRAIN_SECONDS": 540,
    "NATS_EXECUTOR__KILL_SECONDS": 10,
    "WORKERS__MIN_HEARTBEAT_INTERVAL": 5,
}


class Fleet:
    """Schedulers, API servers behind a balancer, workers, a NATS cluster, for a context's length.

    Args:
        database: the URL of an empty PostgreSQL database.

    Attributes:
        leaving: workers that were asked to stop, and drain.
    """

    def __init__(self, home: Path, database: str) -> None:
        self.home = home
        self.database = database
        self.marks = home / "marks"
        self.marks.mkdir(parents=True)
        self.servers = list(nats_cluster(home, size=COMPONENTS[Kind.NATS_SERVER]))
        self.broker = self.servers[0]
        self.api_ports = [free_port() for _ in range(COMPONENTS[Kind.API_SERVER])]
        self.balancer = Balancer(self.api_ports)
        self.port = self.balancer.port
        self.api = AirflowApi(self.port)
        urls = ",".join(server.url for server in self.servers)
        self.settings = SETTINGS | {"NATS_EXECUTOR__SERVERS": urls}
        self.engine = create_engine(database, pool_pre_ping=True)
        self.leaving: list[Process] = []
        self.places: dict[str, tuple[Kind, int]] = {}
        self.number = 0  # of processes and runs, for their names
        self.exits = ExitStack()

    def __enter__(self) -> Self:
        with self.exits:
            for server in self.servers:
                self.exits.callback(server.kill)
            start_together(self.servers)
            self.exits.enter_context(self.balancer)
            self.deployment = Deployment(
                env=environment(self), logs=self.home / "logs",
                grace_seconds=5.0, worker_grace_seconds=15.0,
            )  # fmt: skip
            self.core = self.exits.enter_context(Components())
            self.workers = self.exits.enter_context(Components())
            self.exits.callback(self.engine.dispose)
            self.start()
            self.exits = self.exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.exits.close()

    def start(self) -> None:
        self.core.run(self.deployment.migration(), seconds=START_SECONDS)
        self.core.start([self.deployment.process("dag-processor", "dag-processor")])
        for kind in (Kind.API_SERVER, Kind.SCHEDULER, Kind.WORKER):
            for number in range(COMPONENTS[kind]):
                self.launch(kind, number)
        self.core.wait_until(self.is_ready, seconds=START_SECONDS, description="Airflow to start")

    def is_ready(self) -> bool:
        self.workers.require_alive()
        are_apis = [self.admit_api(number) for number in range(len(self.api_ports))]
        try:
            if not self.api.token:
                self.api.log_in(USER, PASSWORD)
            has_dag = self.api.has_dag(DAG)
        except ApiSilent:
            return False
        are_workers = [self.worker_is_ready(worker) for worker in self.workers]
        are_all = has_dag and all(are_apis + are_workers)
        return are_all and len(self.schedulers()) == COMPONENTS[Kind.SCHEDULER]

    # Components

    def launch(self, kind: Kind, number: int) -> Process:
        """Start a component; each one's log tells of one life."""
        name = f"{kind.replace(' ', '-').lower()}-{number + 1}"
        self.number += 1
        match kind:
            case Kind.API_SERVER:
                port = self.api_ports[number]
                self.balancer.take_out(port)
                options = ["--host", "127.0.0.1", "--port", str(port), "-w", "1"]
                arguments = ["api-server", *options]
                process = self.deployment.process(name, *arguments)
            case Kind.SCHEDULER:
                process = self.deployment.process(name, "scheduler", "--skip-serve-logs")
            case _:
                # The one before may still drain: a platform starts the next one under a new name.
                name = f"worker-{self.number}"
                process = self.deployment.worker(name, queues="default", concurrency=SLOTS)
        process.log = process.log.with_name(f"{name}.{self.number}.log")
        self.places[name] = kind, number
        (self.workers if kind is Kind.WORKER else self.core).start([process])
        return process

    def component(self, kind: Kind, number: int) -> Process:
        if kind is Kind.WORKER:
            serving = [worker for worker in self.workers if worker not in self.leaving]
            return serving[number % len(serving)]
        name = f"{kind.replace(' ', '-').lower()}-{number + 1}"
        [found] = [process for process in self.core if process.name == name]
        return found

    def end(self, kind: Kind, number: int, how: signal.Signals) -> tuple[str, Callable[[], bool]]:
        """Have a component restarted; return its name and what tells that it is of use again."""
        if kind is Kind.NATS_SERVER:
            server = self.servers[number]
            server.end(how)
            server.launch()
            return server.name, server.is_ready
        process = self.component(kind, number)
        os.kill(pid_of(process), how)
        if kind is Kind.WORKER:
            self.leaving.append(process)
            successor = self.launch(kind, number)
            return process.name, functools.partial(self.worker_is_ready, successor)
        return process.name, Succession(self, kind, number, process).is_over

    def worker_is_ready(self, worker: Process) -> bool:
        return f"worker {worker.name} is ready" in worker.log.read_text(errors="replace")

    def admit_api(self, number: int) -> bool:
        """Put an API server behind the balancer once it answers; return whether it does."""
        port = self.api_ports[number]
        with suppress(ApiError, ApiSilent):
            AirflowApi(port).call("GET", "/api/v2/monitor/health")
            self.balancer.put_in(port)
            return True
        return False

    def schedulers(self) -> set[int]:
        """The jobs of the schedulers that run their loop."""
        query = "SELECT id FROM job WHERE job_type = 'SchedulerJob' AND state = 'running'"
        return {int(row["id"]) for row in self.rows(query)}

    def bury(self) -> list[str]:
        """Take away what has ended; return what did so without being asked, or badly.

        A process that was not asked to end is started again.
        """
        found = []
        for process in [p for p in (*self.core, *self.workers) if p.name in self.places]:
            is_asked = process in self.leaving
            kind, number = self.places[process.name]
            if process.exit_code is None or (is_asked and kind is not Kind.WORKER):
                continue
            if not is_asked or process.exit_code:
                found.append(str(process.failure()))
            (self.workers if kind is Kind.WORKER else self.core).processes.remove(process)
            if not is_asked:
                self.launch(kind, number)
        return found

    # What the load is and what became of it

    def rows(self, query: str, **values: object) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(query), values).mappings()]

    def has_triggered(self, run_id: str) -> bool:
        """Ask once for a run; an API server that is silent may have made it all the same."""
        body = {"logical_date": None, "dag_run_id": run_id}
        try:
            self.api.call("POST", f"/api/v2/dags/{DAG}/dagRuns", body)
        except ApiSilent:
            return False
        except ApiError as exc:
            if exc.status == HTTPStatus.CONFLICT:
                return True
            if exc.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            return False
        return True

    def counts(self) -> dict[str, int]:
        query = f"SELECT state, count(*) AS n FROM {LIVE} GROUP BY state ORDER BY state"
        return {str(row["state"]): int(row["n"]) for row in self.rows(query)}

    def messages(self, stream: str) -> int:
        """How many messages a stream has, by the server that leads it."""
        found = 0
        for server in self.servers:
            [account] = server.monitor("/jsz?streams=true").get("account_details") or [{}]
            for detail in account.get("stream_detail", []):
                if detail["name"] == stream:
                    found = max(found, int(detail["state"]["messages"]))
        return found

    def left_in_broker(self) -> list[str]:
        names = Names()
        streams = {names.tasks_stream: "workloads", names.dead_letters_stream: "dead letters"}
        found = {what: self.messages(stream) for stream, what in streams.items()}
        return [f"{count} {what} are left in NATS" for what, count in found.items() if count]


class Succession:
    """A component that ends and is started again under the same name."""

    def __init__(self, fleet: Fleet, kind: Kind, number: int, process: Process) -> None:
        self.fleet = fleet
        self.kind = kind
        self.number = number
        self.before = process
        self.known = fleet.schedulers()
        self.has_begun = False
        fleet.leaving.append(process)

    def is_over(self) -> bool:
        if not self.has_begun:
            if self.before.exit_code is None:
                return False
            self.fleet.core.processes.remove(self.before)
            self.fleet.leaving.remove(self.before)
            self.fleet.launch(self.kind, self.number)
            self.has_begun = True
        if self.kind is Kind.API_SERVER:
            return self.fleet.admit_api(self.number)
        return bool(self.fleet.schedulers() - self.known)

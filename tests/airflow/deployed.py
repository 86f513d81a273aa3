"""A whole Airflow on this machine, as a test sees it."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import create_engine, text

from nats_executor.local.api import AirflowApi, ApiError, ApiSilent
from nats_executor.local.components import Components
from nats_executor.local.deployment import Deployment, free_port
from nats_executor.local.process import LocalError
from nats_executor.wire.names import Names
from tests.airflow.bare import Bare
from tests.airflow.environment import PASSWORD, USER, environment
from tests.airflow.tables import LIVE, SPENT
from tests.support.nats_server import NatsServer
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from nats_executor.local.process import Process

__all__ = ["Airflow", "is_alive", "pid_of"]

# Far above what two slow cores need; what goes wrong is found by other means.
START_SECONDS = 300
RUN_SECONDS = 240
FIRST_WORKER = "worker-1"


# By the default of `priority_bands`.
BANDS = 3


class Airflow:
    """API server, scheduler, dag processor, triggerer, nats-server and a worker.

    Args:
        home: an empty directory for all of it.
        database: the URL of Airflow's own database.
        dags: which Dags to wait for.
        settings: more of Airflow's settings, as `SECTION__KEY`.
        workers: starts the first ones.
    """

    def __init__(
        self,
        home: Path,
        *,
        database: str,
        dags: Iterable[str],
        settings: dict[str, object] | None = None,
        workers: Callable[[Airflow], None] | None = None,
    ) -> None:
        self.home = home
        self.database = database
        self.dags = tuple(dags)
        self.settings = settings or {}
        self.start_workers = workers or start_one_worker
        self.port = free_port()
        self.api = AirflowApi(self.port)
        self.broker = NatsServer(home / "nats")
        self.marks = home / "marks"
        self.marks.mkdir(parents=True)
        self.runs: dict[str, str] = {}
        self.held: set[str] = set()
        self.exits = ExitStack()
        # A connection from before the database's restart is not an error of the test.
        self.engine = create_engine(database, pool_pre_ping=True)
        self.number = 0  # of processes and runs, for their names

    def __enter__(self) -> Self:
        with self.exits:
            self.exits.callback(self.broker.kill)
            self.broker.start()
            self.deployment = Deployment(
                env=environment(self),
                logs=self.home / "components",
                grace_seconds=1.0,
                worker_grace_seconds=5.0,
            )
            # The workers stop first: they report to a broker and an API that still run.
            self.core = self.exits.enter_context(Components())
            self.workers = self.exits.enter_context(Components())
            self.exits.callback(self.engine.dispose)
            self.start()
            self.exits = self.exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.exits.close()

    def start(self) -> None:
        self.start_workers(self)
        migration = self.deployment.migration().start()
        try:
            assert migration.wait_for_end(START_SECONDS) == 0, migration.failure()
        finally:
            migration.stop()
        self.core.start(self.deployment.core(host="127.0.0.1", port=self.port))
        self.wait(self.is_ready, "Airflow to be ready", seconds=START_SECONDS)

    def is_ready(self) -> bool:
        try:
            if not self.api.token:
                self.api.log_in(USER, PASSWORD)
            return all(self.api.has_dag(dag) for dag in self.dags)
        except ApiSilent:
            return False

    def is_whole(self) -> bool:
        """Whether every component is there and has a heartbeat."""
        return all(p.exit_code is None for p in self.core) and self.api.is_healthy()

    # Processes

    def add_worker(self, name: str, *, queues: str, concurrency: int = 4) -> Process:
        return self.launch(
            self.deployment.worker(name, queues=queues, concurrency=concurrency), self.workers
        )

    def start_component(self, name: str, **settings: object) -> Process:
        """Start what is not there: the API server, or a scheduler of any name."""
        core = {p.name: p for p in self.deployment.core(host="127.0.0.1", port=self.port)}
        one_more = self.deployment.process(name, *core["scheduler"].command[3:])
        process = core.get(name, one_more)
        process.env = self.deployment.env | {
            f"AIRFLOW__{key}": str(value) for key, value in settings.items()
        }
        return self.launch(process, self.core)

    def launch(self, process: Process, where: Components) -> Process:
        """Start a process with a log of its own: the one of a predecessor tells why it died."""
        self.number += 1
        process.log = process.log.with_name(f"{process.name}-{self.number}.log")
        where.start([process])
        return process

    def component(self, name: str) -> Process:
        [found] = [p for where in (self.core, self.workers) for p in where if p.name == name]
        return found

    def kill(self, name: str) -> None:
        """SIGKILL it, as an out-of-memory killer does."""
        process = self.component(name)
        os.kill(pid_of(process), signal.SIGKILL)
        self.stop(name)

    def stop(self, name: str) -> None:
        process = self.component(name)
        process.stop()
        for where in (self.core, self.workers):
            with suppress(ValueError):  # it is in one of the two
                where.processes.remove(process)

    def require_alive(self) -> None:
        """Fail at once, with its last words, when a component has died."""
        self.core.require_alive()
        self.workers.require_alive()

    def tend(self) -> None:
        """Start again what has exited, as systemd or Kubernetes does."""
        for process in list(self.core):
            if process.exit_code is not None:
                self.stop(process.name)
                self.start_component(process.name)

    def mend(self) -> None:
        """Bring it back to what it was at its start, whatever a test came to."""
        self.release(*self.held)
        if self.broker.process is None:
            self.broker.start()
        core = [process.name for process in self.deployment.core(host="127.0.0.1", port=self.port)]
        for process in [*self.core, *self.workers]:
            if process.name not in {*core, FIRST_WORKER} or process.exit_code is not None:
                self.stop(process.name)
        for name in set(core) - {process.name for process in self.core}:
            self.start_component(name)

    # What a test asks

    def wait(
        self,
        is_so: Callable[[], Any],
        description: str,
        *,
        seconds: float = 200,
        check: Callable[[], None] | None = None,
    ) -> None:
        """Wait, and see to the components meanwhile; without `check` one that died is a failure."""

        def look() -> bool:
            (check or self.require_alive)()
            return bool(is_so())

        block_until(look, seconds, description)

    def rows(self, query: str, **values: object) -> list[dict[str, Any]]:
        """Ask Airflow's own database."""
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(query), values).mappings()]

    def trigger(self, dag_id: str, **body: object) -> None:
        """Start a run, and ask until the API server says so: on a busy machine answers get lost."""
        self.number += 1
        self.runs[dag_id] = run_id = f"{dag_id}-{self.number}"
        self.wait(lambda: self.has_triggered(dag_id, run_id, **body), f"a run of {dag_id}")

    def has_triggered(self, dag_id: str, run_id: str, **body: object) -> bool:
        """Ask once for a run; an API server that is silent may have made it all the same."""
        body = {"logical_date": None, "dag_run_id": run_id} | body
        try:
            self.api.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)
        except ApiSilent:
            return False
        except ApiError as exc:
            if exc.status != HTTPStatus.CONFLICT:
                raise
        return True

    def finish(
        self,
        dag_id: str,
        *,
        seconds: float = RUN_SECONDS,
        check: Callable[[], None] | None = None,
    ) -> dict[str, list[Any]]:
        """Wait for a run's success; return its task instances by task."""

        def state() -> str:
            [row] = self.rows(
                "SELECT state FROM dag_run WHERE dag_id = :d AND run_id = :r",
                d=dag_id,
                r=self.runs[dag_id],
            )
            return str(row["state"])

        try:
            self.wait(
                lambda: state() in {"success", "failed"},
                f"{dag_id} to end",
                seconds=seconds,
                check=check,
            )
        except (TimeoutError, LocalError) as exc:
            raise AssertionError(f"{exc}\n{self.history(dag_id)}") from exc
        assert state() == "success", self.history(dag_id)
        return self.tasks(dag_id)

    def tasks(self, dag_id: str) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        query = f"SELECT * FROM {LIVE} WHERE dag_id = :d AND run_id = :r ORDER BY map_index"
        for row in self.rows(query, d=dag_id, r=self.runs[dag_id]):
            found.setdefault(row["task_id"], []).append(row)
        return found

    def task(self, dag_id: str, task_id: str) -> dict[str, Any]:
        [row] = self.tasks(dag_id)[task_id]
        return row

    def require_first_tries(self, dag_id: str) -> None:
        """Require that all of a run succeeded, and that no try was spent or repeated on the way."""
        rows = [row for rows in self.tasks(dag_id).values() for row in rows]
        spent = self.rows(
            f"SELECT task_id, map_index, try_number, state FROM {SPENT}"
            " WHERE dag_id = :d AND run_id = :r",
            d=dag_id,
            r=self.runs[dag_id],
        )
        assert {(r["state"], r["try_number"]) for r in rows} == {("success", 1)}, self.history(
            dag_id
        )
        assert spent == [], self.history(dag_id)

    def history(self, dag_id: str) -> str:
        """What the database tells of a run, for the person who reads a failed test."""
        columns = "task_id, map_index, state, try_number, queued_by_job_id, queue"
        of_run = "WHERE dag_id = :d AND run_id = :r"
        queries = [
            f"SELECT {columns} FROM {LIVE} {of_run}",
            f"SELECT {columns} FROM {SPENT} {of_run}",
            f"SELECT dttm, task_id, map_index, event, extra FROM log {of_run}",
        ]
        found = [row for q in queries for row in self.rows(q, d=dag_id, r=self.runs[dag_id])]
        return "\n".join(" ".join(str(value) for value in row.values()) for row in found)

    def events(self, dag_id: str) -> list[str]:
        """The audit log of a run: event and text of each row, oldest first."""
        query = "SELECT event, extra FROM log WHERE dag_id = :d AND run_id = :r ORDER BY id"
        rows = self.rows(query, d=dag_id, r=self.runs[dag_id])
        return [f"{row['event']}: {row['extra']}" for row in rows]

    def callbacks(self, dag_id: str) -> list[str]:
        """The states of the callbacks of a run's missed deadlines."""
        rows = self.rows("SELECT state, data FROM callback")
        return [row["state"] for row in rows if self.runs[dag_id] in str(row["data"])]

    def has_heard(self, state: str, of: str) -> bool:
        """Whether the scheduler has taken an event of the executor, for part of a key."""
        words = f"Received executor event with state {state} "
        return any(words in line and of in line for line in self.log_of("scheduler").splitlines())

    def wait_for_loop(self) -> None:
        """Wait until the scheduler has committed what it has logged: its heartbeat comes after."""
        query = "SELECT max(latest_heartbeat) AS at FROM job WHERE job_type = 'SchedulerJob'"
        before = self.rows(query)
        self.wait(lambda: self.rows(query) != before, "the scheduler's next heartbeat")

    def log_of(self, name: str) -> str:
        return self.component(name).log.read_text(errors="replace")

    def streams(self) -> dict[str, dict[str, Any]]:
        """What the broker says of its streams, by name; nothing while it recovers them."""
        [account] = self.broker.monitor("/jsz?consumers=true").get("account_details") or [{}]
        return {stream["name"]: stream for stream in account.get("stream_detail", [])}

    def messages(self, stream: str) -> int:
        return int(self.streams().get(stream, {}).get("state", {}).get("messages", 0))

    def backlog(self, queue: str) -> int:
        """How many workloads wait in a queue."""
        return self.count(queue, "num_pending")

    def in_hand(self, queue: str) -> int:
        """How many workloads of a queue a worker has."""
        return self.count(queue, "num_ack_pending")

    def count(self, queue: str, what: str) -> int:
        """Add up what the consumers of a queue's bands have."""
        names = Names()
        own = {names.consumer(queue, band) for band in range(BANDS)}
        found = self.streams().get(names.tasks_stream, {}).get("consumer_detail", [])
        return sum(consumer[what] for consumer in found if consumer["name"] in own)

    def clients(self) -> list[str]:
        """The names of those that are connected to the broker; none when it does not answer."""
        with suppress(OSError, RuntimeError):
            return [
                client.get("name", "") for client in self.broker.monitor("/connz")["connections"]
            ]
        return []

    # What a test and a task say to each other

    def wait_for_mark(self, name: str) -> int:
        """Wait until a task holds; return its pid, 0 if it left none."""
        self.wait((self.marks / name).exists, f"mark {name}")
        return int((self.marks / name).read_text() or 0) if name.endswith("-runs") else 0

    def wait_for_hold(self, *names: str) -> list[int]:
        """Wait until tasks hold; return the pid of each."""
        self.held.update(names)
        return [self.wait_for_mark(f"{name}-runs") for name in names]

    def release(self, *names: str) -> None:
        for name in names:
            (self.marks / f"{name}-may-end").touch()

    def lines(self, name: str) -> list[str]:
        """What tasks have noted."""
        with suppress(FileNotFoundError):  # not written yet
            return (self.marks / f"{name}-lines").read_text().splitlines()
        return []

    def wait_for_death(self, pid: int, *, check: Callable[[], None] | None = None) -> None:
        self.wait(lambda: not is_alive(pid), f"process {pid} to end", seconds=30, check=check)


def start_one_worker(airflow: Airflow) -> None:
    airflow.add_worker(FIRST_WORKER, queues="default,heavy", concurrency=8)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pid_of(process: Process) -> int:
    """Return the pid of a component; the process itself is the leash that holds it."""
    assert process.leash is not None
    pid = process.leash.pid
    if isinstance(process, Bare):
        return pid
    with open(f"/proc/{pid}/task/{pid}/children") as children:  # noqa: PTH123
        # The oldest: the leash adopts what the component's own children leave behind.
        return int(children.read().split()[0])

"""A Celery Airflow with Redis and PostgreSQL, and NATS beside it, under load."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from nats_executor.local.api import AirflowApi, ApiError, ApiSilent
from nats_executor.local.process import Process
from tests.airflow.deployed import Airflow
from tests.airflow.environment import PASSWORD, USER
from tests.support.nats_server import free_port
from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["CELERY", "DAGS", "NATS", "Load", "MovingAirflow"]

CELERY, NATS = "CeleryExecutor", "nats_executor.NatsExecutor"
DAGS = ("orders", "bills", "stocks")
HERE = Path(__file__).parent
PAGE = ROOT / "docs/how-to/from-celery.md"
POLICY = re.compile(r"```python\n(?P<code># airflow_local_settings\.py\n.*?)```", re.DOTALL)
SLOTS = 4
# One that is reached on no machine, however busy; what fails is found by other means.
LONGEST_SECONDS = 900.0
# All that is started again when the list of executors changes.
RESTARTED = ("api-server", "dag-processor", "scheduler")
# The defaults, but for how long Celery, its tasks and the API server may take for an answer: five
# seconds and one are too few on a machine that is busy, and a task of Celery fails by that.
SETTINGS: dict[str, object] = {
    "CELERY__OPERATION_TIMEOUT": 30,
    "CORE__EXECUTOR": CELERY,
    "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 5,
    "DAG_PROCESSOR__REFRESH_INTERVAL": 5,
    "NATS_EXECUTOR__DRAIN_SECONDS": 540,
    "NATS_EXECUTOR__KILL_SECONDS": 10,
    "WORKERS__EXECUTION_API_RETRIES": 20,
    "WORKERS__EXECUTION_API_TIMEOUT": 60,
    "WORKERS__MIN_HEARTBEAT_INTERVAL": 5,
}
FINISHED = "('success', 'failed', 'upstream_failed', 'skipped', 'removed')"


class Execution(NamedTuple):
    """One process of a task, with the kind of worker that ran it."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    worker: str
    has_ended: bool


class MovingAirflow(Airflow):
    """An Airflow that has Celery at first; which executors it has later is the test's choice."""

    def __init__(self, home: Path, database: str) -> None:
        self.redis_port = free_port()
        settings = SETTINGS | {
            "CELERY__BROKER_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "CELERY__RESULT_BACKEND": f"db+{database}",
            "CORE__DAGS_FOLDER": home / "dags",
        }
        super().__init__(
            home, database=database, dags=DAGS, settings=settings, workers=lambda _: self.prepare()
        )
        self.moved = home / "moved_dags.txt"
        self.leaving: list[Process] = []
        self.ready: dict[str, str] = {}  # what a worker's log says when it takes tasks
        self.workers_started = 0

    def __exit__(self, *_: object) -> None:
        self.release(*self.held)
        for process in self.leaving:
            process.stop()
        super().__exit__()

    def wait(
        self,
        is_so: Callable[[], Any],
        description: str,
        *,
        seconds: float = LONGEST_SECONDS,
        check: Callable[[], None] | None = None,
    ) -> None:
        """Wait longer than other tests do: at the end this one states how long all of it took."""
        super().wait(is_so, description, seconds=seconds, check=check)

    def prepare(self) -> None:
        """Do what stands in the page before anything is started."""
        self.deployment.grace_seconds = 30.0
        self.deployment.worker_grace_seconds = 600.0
        match = POLICY.search(PAGE.read_text())
        assert match is not None, f"{PAGE.name} shows no policy"
        (self.home / "config").mkdir()
        (self.home / "config" / "airflow_local_settings.py").write_text(match["code"])
        (self.home / "dags").mkdir()
        self.write_stocks(None)
        self.start_redis()

    def write_stocks(self, executor: str | None) -> None:
        """Write the Dag file whose tasks name their executor themselves."""
        text = (HERE / "dags" / "moving.py").read_text()
        line = f"EXECUTOR = {executor!r}"
        assert "\nEXECUTOR = None\n" in text
        new = self.home / "dags" / "moving.py.new"
        new.write_text(text.replace("EXECUTOR = None", line))
        new.replace(self.home / "dags" / "moving.py")

    # Celery's half and ours

    def start_redis(self) -> None:
        directory = self.home / "redis"
        directory.mkdir(exist_ok=True)
        where = ["--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(directory)]
        log = directory / "redis.log"
        self.core.start([Process("redis", ["redis-server", *where], log=log)])

    def start_worker(self, kind: str) -> None:
        """Start a worker of Celery or of NATS, with the list of executors as it is now."""
        self.workers_started += 1
        name = f"{kind}-{self.workers_started}"
        if kind == "celery":
            options = ["-q", "default", "-c", str(SLOTS), "-H", name, "--skip-serve-logs"]
            process, ready = self.deployment.process(name, "celery", "worker", *options), " ready."
            process.grace_seconds = self.deployment.worker_grace_seconds
        else:
            process = self.deployment.worker(name, queues="default", concurrency=SLOTS)
            ready = "is ready: queues"
        process.env = self.deployment.env | {"TEST_WORKER": kind}
        self.launch(process, self.workers)
        self.ready[name] = ready

    def stop_workers(self, kind: str) -> None:
        """Ask all workers of a kind to stop; what they run goes on."""
        self.ask_to_stop([p for p in self.workers if p.name.startswith(kind)])

    def ask_to_stop(self, workers: Iterable[Process]) -> None:
        for process in workers:
            process.ask_to_stop()
            self.workers.processes.remove(process)
            self.leaving.append(process)

    def renew_workers(self) -> None:
        """Start a successor of each worker, then ask the worker to stop."""
        old = list(self.workers)
        for kind in sorted({process.name.partition("-")[0] for process in old}):
            self.start_worker(kind)
        self.wait_for_workers()
        self.ask_to_stop(old)

    def wait_for_workers(self) -> None:
        for process in self.workers:
            self.wait(partial(self.is_working, process.name), f"{process.name} to be ready")

    def is_working(self, name: str) -> bool:
        return self.ready[name] in self.log_of(name)

    def see_off(self) -> None:
        """Wait until the workers that were asked to stop have done so by themselves."""
        for process in self.leaving:
            self.wait(partial(has_ended, process), f"{process.name} to stop")
            assert process.exit_code == 0, process.failure()
        self.leaving.clear()

    # What an operator does

    def switch(self, *executors: str) -> None:
        """Change the list of executors, which takes a restart; tasks run and wait meanwhile."""
        self.wait(self.is_busy, "tasks that run and tasks that are queued")
        before = self.schedulers()
        self.deployment.env["AIRFLOW__CORE__EXECUTOR"] = ",".join(executors)
        self.renew_workers()
        for process in [self.component(name) for name in RESTARTED]:
            process.ask_to_stop()
        for name in RESTARTED:
            self.stop(name)
            self.start_component(name)
        self.wait(
            lambda: self.schedulers() - before and self.is_ready(),
            "Airflow with another list of executors",
        )

    def move(self, dag_id: str, executor: str) -> None:
        """Have the policy, or the Dag's own file, give a Dag's next runs to an executor."""
        if dag_id == "stocks":
            self.write_stocks(executor)
            return
        others = self.moved.read_text().splitlines() if self.moved.exists() else []
        kept = [line for line in others if line.split()[0] != dag_id]
        new = self.moved.with_suffix(".new")
        new.write_text("\n".join([*kept, f"{dag_id} {executor}", ""]))
        new.replace(self.moved)

    def is_moved(self, dag_id: str, executor: str | None) -> bool:
        """Whether the newest run of a Dag is the executor's."""
        [row] = self.rows(
            "SELECT ti.executor FROM task_instance ti JOIN dag_run dr"
            " ON ti.dag_id = dr.dag_id AND ti.run_id = dr.run_id"
            " WHERE dr.dag_id = :d ORDER BY dr.id DESC LIMIT 1",
            d=dag_id,
        )
        return bool(row["executor"] == executor)

    def left(self, executor: str, *, is_default: bool) -> int:
        """How many task instances an executor still has before it, queued and running ones too."""
        [row] = self.rows(
            "SELECT count(*) AS n FROM task_instance WHERE (executor = :e"
            f" {'OR executor IS NULL' if is_default else ''})"
            f" AND (state IS NULL OR state NOT IN {FINISHED})",
            e=executor,
        )
        return int(row["n"])

    # What there is to see

    def schedulers(self) -> set[int]:
        query = "SELECT id FROM job WHERE job_type = 'SchedulerJob' AND state = 'running'"
        return {int(row["id"]) for row in self.rows(query)}

    def is_busy(self) -> bool:
        query = "SELECT state, count(*) AS n FROM task_instance GROUP BY state"
        counts = {row["state"]: row["n"] for row in self.rows(query)}
        return bool(counts.get("running") and counts.get("queued"))

    def hold(self, dag_id: str) -> str:
        """Start a run whose first task runs until it is released; return the hold's name."""
        self.number += 1
        name = f"hold-{self.number}"
        run_id = f"{dag_id}-{name}"
        self.wait(lambda: self.has_triggered(dag_id, run_id, conf={"hold": name}), run_id)
        self.held.add(name)
        self.wait((self.marks / f"{name}-holds").exists, f"the task of {run_id}")
        return name

    def executions(self) -> list[Execution]:
        """Return what tasks have written down."""
        text = (self.marks / "runs").read_text()
        started: list[tuple[str, ...]] = []
        ended: set[tuple[str, ...]] = set()
        for line in text[: text.rfind("\n") + 1].splitlines():
            what, *words = line.split()
            if what == "start":
                started.append(tuple(words))
            else:
                ended.add(tuple(words))
        return [
            Execution(dag_id, run_id, task_id, int(index), worker, (*rest,) in ended)
            for rest in started
            for dag_id, run_id, task_id, index, worker, _ in [rest]
        ]

    def faults(self) -> Iterator[str]:
        """Yield what was lost, tried again or run twice."""
        for row in self.rows("SELECT * FROM dag_run WHERE state <> 'success'"):
            yield f"run {row['run_id']} of {row['dag_id']} is {row['state']}"
        for row in self.rows("SELECT * FROM task_instance_history"):
            yield f"{row['dag_id']} {row['run_id']} {row['task_id']}: a try was spent"
        ran: dict[tuple[object, ...], list[Execution]] = defaultdict(list)
        for execution in self.executions():
            ran[execution[:4]].append(execution)
        for row in self.rows("SELECT * FROM task_instance"):
            key = row["dag_id"], row["run_id"], row["task_id"], row["map_index"]
            name = " ".join(map(str, key))
            if row["state"] != "success" or row["try_number"] != 1:
                yield f"{name}: {row['state']} at try {row['try_number']}"
            if len(ran[key]) != 1 or not ran[key][0].has_ended:
                yield f"{name}: ran as {ran[key]}"


class Load:
    """Runs of every Dag, one after the other, so that more is to do than there are slots.

    Attributes:
        failure: why it could not go on.
    """

    def __init__(self, airflow: MovingAirflow, *, runs_at_a_time: int) -> None:
        self.airflow = airflow
        self.runs_at_a_time = runs_at_a_time
        self.count = 0
        self.failure: BaseException | None = None
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.run, name="load")

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        self.thread.join()

    def run(self) -> None:
        api = AirflowApi(self.airflow.port)
        query = "SELECT count(*) AS n FROM dag_run WHERE state IN ('queued', 'running')"
        try:
            while not self.is_over.wait(0.2):
                if self.airflow.rows(query)[0]["n"] < self.runs_at_a_time:
                    self.count += trigger(api, DAGS[self.count % len(DAGS)], self.count)
        except BaseException as exc:  # noqa: BLE001 - the test's thread raises it
            self.failure = exc


def trigger(api: AirflowApi, dag_id: str, number: int) -> bool:
    """Ask once for a run; an API server that is silent or starts may have made it all the same."""
    body = {"logical_date": None, "dag_run_id": f"load-{number:05}"}
    try:
        if not api.token:
            api.log_in(USER, PASSWORD)
        api.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)
    except ApiSilent:
        return False
    except ApiError as exc:
        if exc.status == HTTPStatus.CONFLICT:
            return True
        if exc.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        return False
    return True


def has_ended(process: Process) -> bool:
    return process.exit_code is not None

"""Carries a plan out on a real Airflow, and finds out when what was hurt has recovered."""

from __future__ import annotations

import functools
import os
import signal
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from tests.airflow.bare import Bare
from tests.airflow.chaos_journal import read_journal
from tests.airflow.deployed import is_alive
from tests.airflow.tables import LIVE
from tests.chaos.plan import Fault, Kind
from tests.support.worker_process import descendants

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_executor.local.process import Process
    from tests.airflow.chaos_journal import Execution
    from tests.airflow.deployed import Airflow

__all__ = ["SCHEDULERS", "WORKERS", "Injection", "Injector", "start_worker"]

# Each queue is served by two workers, so that the loss of one need not stop it.
WORKERS = {"worker-1": "red,blue", "worker-2": "red", "worker-3": "blue"}
SCHEDULERS = ("scheduler", "scheduler-2")
CONCURRENCY = 3


@dataclass(slots=True)
class Injection:
    """One fault as it was carried out.

    Attributes:
        since: when the time of recovery begins: the fault, or the end of an outage.
    """

    fault: Fault
    victim: str
    since: float = field(default_factory=time.monotonic)
    has_recovered: Callable[[], bool] = lambda: False
    recovery_seconds: float | None = None


class Injector:
    """Hurts components, has them restarted as planned, and watches them recover."""

    def __init__(self, airflow: Airflow) -> None:
        self.airflow = airflow
        self.injections: list[Injection] = []
        self.repairs: list[tuple[float, str, Callable[[], bool]]] = []
        # Pids of what a worker had that was killed or stopped: all of it has to go.
        self.bereaved: set[int] = set()
        self.away: set[str] = set()  # groups of faults
        self.stopping: Process | None = None
        self.accidents: list[str] = []

    @property
    def waiting(self) -> list[Injection]:
        return [i for i in self.injections if i.recovery_seconds is None]

    def inject(self, fault: Fault) -> bool:
        """Carry a fault out; False when there is nothing to hurt at present."""
        if group_of(fault) in self.away:
            return False
        match fault.kind:
            case Kind.WORKER_KILLED | Kind.WORKER_STOPPED:
                injection = self.hurt_worker(fault)
            case Kind.TASK_KILLED | Kind.SUPERVISOR_KILLED:
                injection = self.hurt_task(fault)
            case Kind.SCHEDULER_KILLED:
                injection = self.hurt_scheduler(fault)
            case Kind.API_AWAY:
                injection = self.hurt_api(fault)
            case _:
                injection = self.hurt_broker(fault)
        if injection is not None:
            self.injections.append(injection)
        return injection is not None

    def repair_later(self, fault: Fault, repair: Callable[[], bool]) -> None:
        """Have something started again when its time has come; until then its like is spared."""
        self.away.add(group_of(fault))
        self.repairs.append((time.monotonic() + fault.seconds, group_of(fault), repair))

    def repair(self) -> None:
        """Start again what has been away for long enough."""
        for item in list(self.repairs):
            due, group, repair = item
            if time.monotonic() >= due and repair():
                self.repairs.remove(item)
                self.away.discard(group)

    def watch(self) -> None:
        """Start again what has ended by itself, which nothing has a reason to."""
        for where in (self.airflow.core, self.airflow.workers):
            for process in list(where):
                if process.exit_code is None or process is self.stopping:
                    continue
                self.accidents.append(str(process.failure()))
                where.processes.remove(process)
                if process.name in WORKERS:
                    start_worker(self.airflow, process.name)
                else:
                    self.airflow.start_component(process.name)

    def look(self) -> None:
        """Note what has recovered since the last look."""
        for injection in self.waiting:
            # A server that is away again cannot be asked; the next look will tell.
            is_away = group_of(injection.fault) in {"API", "broker"} & self.away
            with suppress(SQLAlchemyError):
                if not is_away and injection.has_recovered():
                    injection.recovery_seconds = max(0.0, time.monotonic() - injection.since)

    # Kinds of fault

    def hurt_worker(self, fault: Fault) -> Injection | None:
        name = sorted(WORKERS)[fault.target % len(WORKERS)]
        worker = self.airflow.component(name)
        assert isinstance(worker, Bare)
        below = descendants(worker.pid)
        had = [row for row in self.running() if row["pid"] in below]
        self.bereaved |= below
        self.stopping = worker
        is_killed = fault.kind is Kind.WORKER_KILLED
        worker.signal(signal.SIGKILL if is_killed else signal.SIGTERM)

        def restart() -> bool:
            if worker.exit_code is None:
                return False
            self.airflow.workers.processes.remove(worker)
            start_worker(self.airflow, name)
            self.stopping = None
            return True

        self.repair_later(fault, restart)
        victim = f"{name} with {len(had)} tasks"
        return Injection(fault, victim, has_recovered=lambda: self.have_moved(had))

    def hurt_task(self, fault: Fault) -> Injection | None:
        living = {execution.pid: execution for execution in self.living()}
        rows = sorted((r for r in self.running() if r["pid"] in living), key=itemgetter("pid"))
        if not rows:
            return None
        row = rows[fault.target % len(rows)]
        try:
            is_task = fault.kind is Kind.TASK_KILLED
            os.kill(row["pid"] if is_task else parent_of(row["pid"]), signal.SIGKILL)
        except OSError:  # it has ended since
            return None
        execution = living[row["pid"]]
        victim = f"{execution.key} try {execution.try_number}"
        return Injection(fault, victim, has_recovered=lambda: self.have_moved([row]))

    def hurt_scheduler(self, fault: Fault) -> Injection:
        name = SCHEDULERS[fault.target % len(SCHEDULERS)]
        [now] = self.airflow.rows("SELECT now() AS at")
        self.airflow.kill(name)
        start = functools.partial(self.airflow.start_component, name)
        self.repair_later(fault, lambda: bool(start()))

        def has_recovered() -> bool:
            """Whether every task is a living scheduler's."""
            query = (
                "SELECT 1 FROM task_instance ti JOIN job j ON j.id = ti.queued_by_job_id"
                " WHERE ti.state IN ('queued', 'running') AND j.latest_heartbeat <= :at LIMIT 1"
            )
            return not self.airflow.rows(query, at=now["at"])

        return Injection(fault, name, has_recovered=has_recovered)

    def hurt_api(self, fault: Fault) -> Injection:
        self.airflow.kill("api-server")
        injection = Injection(fault, "api-server")

        def has_recovered() -> bool:
            address = f"http://127.0.0.1:{self.airflow.port}/api/v2/version"
            with suppress(OSError), urllib.request.urlopen(address, timeout=1):  # it still starts
                return True
            return False

        def restart() -> bool:
            self.airflow.start_component("api-server")
            injection.since = time.monotonic()
            injection.has_recovered = has_recovered
            return True

        self.repair_later(fault, restart)
        return injection

    def hurt_broker(self, fault: Fault) -> Injection:
        broker = self.airflow.broker
        connected = self.connected()
        clients = [p for p in self.processes() if connected[label(p)]]
        injection = Injection(fault, "nats-server")
        match fault.kind:
            case Kind.BROKER_FROZEN:
                broker.pause()
            case Kind.BROKER_STOPPED:
                broker.stop()
            case _:
                broker.kill()
        if fault.kind is Kind.BROKER_WIPED:
            broker.wipe_storage()

        def repair() -> bool:
            if fault.kind is Kind.BROKER_FROZEN:
                broker.resume()
            else:
                broker.start()
            injection.since = time.monotonic()
            injection.has_recovered = lambda: self.are_back(clients)
            return True

        self.repair_later(fault, repair)
        return injection

    # What there is to hurt

    def processes(self) -> list[Process]:
        """All that use the broker."""
        core = [p for p in self.airflow.core if p.name in SCHEDULERS]
        return [*core, *self.airflow.workers]

    def connected(self) -> Counter[str]:
        """How many connections there are of each worker, and of schedulers together."""
        names = [name.partition("@")[0].split() for name in self.airflow.clients()]
        return Counter(words[-1] for words in names if words)

    def are_back(self, processes: list[Process]) -> bool:
        """Whether all of these that still live are connected."""
        needed = Counter(label(p) for p in processes if p.exit_code is None)
        return needed <= self.connected()

    def journal(self) -> list[Execution]:
        return read_journal(self.airflow.marks / "journal")

    def living(self) -> list[Execution]:
        return [e for e in self.journal() if not e.has_ended and is_alive(e.pid)]

    def running(self) -> list[dict[str, Any]]:
        """What Airflow takes for running, with the pid of each task."""
        columns = "run_id, task_id, map_index, try_number, pid"
        query = f"SELECT {columns} FROM {LIVE} WHERE state = 'running'"
        return self.airflow.rows(query)

    def have_moved(self, rows: list[dict[str, Any]]) -> bool:
        """Whether no row is still running as one of these."""
        return not any(row in rows for row in self.running())


def start_worker(airflow: Airflow, name: str) -> None:
    """Start a worker that nothing cleans up after."""
    worker = airflow.deployment.worker(name, queues=WORKERS[name], concurrency=CONCURRENCY)
    airflow.launch(Bare.like(worker), airflow.workers)


def group_of(fault: Fault) -> str:
    """Of a group only one member is away at a time."""
    return fault.kind.split()[0]


def label(process: Process) -> str:
    """What a process's connection calls itself."""
    return "scheduler" if process.name in SCHEDULERS else process.name


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

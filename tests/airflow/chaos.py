"""Chaos with a real Airflow: Dags run while everything around them is killed, by a seeded plan.

Two schedulers, an API server, a dag processor, PostgreSQL, a nats-server and three workers on two
queues. At the end the database's rows are held against what the tasks themselves have noted.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nats_executor.wire.names import Names
from tests.airflow.chaos_faults import SCHEDULERS, WORKERS, Injector, start_worker
from tests.airflow.chaos_journal import FINAL, judge_rows, judge_runs
from tests.airflow.chaos_plan import make_airflow_plan
from tests.airflow.deployed import Airflow, pid_of
from tests.airflow.environment import FAULTS
from tests.airflow.postgres import PostgresServer
from tests.airflow.tables import LIVE, SPENT
from tests.chaos.plan import Kind
from tests.support.waiting import block_until
from tests.support.worker_process import descendants

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.chaos.plan import Fault

__all__ = ["AirflowChaosResult", "InjectedFault", "run_airflow_chaos"]

DAG = "chaos"
POLL_SECONDS = 0.1
SHOW_SECONDS = 10.0
# A task to kill may have to be waited for; other faults go on meanwhile.
SEARCH_SECONDS = 30.0
# Longer than any restart, shorter than the time limits of Airflow that must not be waited for.
STILL_SECONDS = 180.0
CLEAN_SECONDS = 30.0
# What takes longer has waited for a time limit of Airflow: 300 s for a heartbeat, 600 s queued.
SLOW_SECONDS = 120.0
# Runs are triggered in this part of the time, so that the last faults meet some.
TRIGGER_PART = 0.85


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """One fault; the seconds until its recovery are counted from the end of an outage."""

    kind: str
    victim: str
    at: float
    recovery_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AirflowChaosResult:
    """What a run has shown.

    Attributes:
        rows: how many task instances ended in which state.
        tries_spent: how many tries the faults have cost.
        missed: kinds of faults that found nothing to hurt.
    """

    seed: int
    seconds: float
    faults: Sequence[InjectedFault]
    violations: Sequence[str]
    rows: dict[str, int]
    executions: int
    tries_spent: int
    missed: Sequence[str] = field(default_factory=list)


def run_airflow_chaos(
    seed: int,
    seconds: float = 120.0,
    runs: int = 6,
    directory: Path | None = None,
    say: Callable[[str], None] = print,
) -> AirflowChaosResult:
    """Deploy an Airflow, hurt it for `seconds`, let it settle, and judge; takes 70 s more."""
    home = (directory or Path.cwd()) / f"airflow-{seed}"
    settings = FAULTS | {"CORE__EXECUTOR": "nats_executor.NatsExecutor"}
    with ExitStack() as stack:
        database = stack.enter_context(PostgresServer()).url
        say("starting Airflow")
        airflow = Airflow(
            home, database=database, dags=[DAG], settings=settings, workers=start_workers
        )
        stack.enter_context(airflow)
        for name in SCHEDULERS[1:]:
            airflow.start_component(name)
        airflow.wait(lambda: is_ready(airflow), "schedulers and workers to be ready", seconds=300)
        return Storm(airflow, seed, seconds, runs, say).run()


def start_workers(airflow: Airflow) -> None:
    for name in WORKERS:
        start_worker(airflow, name)


def is_ready(airflow: Airflow) -> bool:
    """Whether everybody is there that the first faults are meant for."""
    schedulers = [name for name in airflow.clients() if name.startswith("scheduler")]
    are_workers = all(f"worker {name} is ready" in airflow.log_of(name) for name in WORKERS)
    return len(schedulers) == len(SCHEDULERS) and are_workers


class Storm:
    """One run: the fault phase, the settling, the judgement."""

    def __init__(
        self, airflow: Airflow, seed: int, seconds: float, runs: int, say: Callable[[str], None]
    ) -> None:
        self.airflow = airflow
        self.seed = seed
        self.seconds = seconds
        self.say = say
        self.injector = Injector(airflow)
        self.upcoming = make_airflow_plan(seed, seconds=seconds)
        self.searching: list[Fault] = []
        self.missed: list[Fault] = []
        self.triggers = [TRIGGER_PART * seconds * number / runs for number in range(runs)]
        self.began = time.monotonic()
        self.next_show = 0.0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def run(self) -> AirflowChaosResult:
        self.say(f"seed {self.seed}: {len(self.upcoming)} faults in {self.seconds:g} s")
        self.began = time.monotonic()
        while self.elapsed < self.seconds or self.searching or self.triggers:
            self.step()
            time.sleep(POLL_SECONDS)
        violations = self.settle()
        return self.judge(violations)

    def step(self) -> None:
        """Do what is due, start again what has exited by itself, and look."""
        is_due = bool(self.triggers) and self.elapsed >= self.triggers[0]
        # While the API server is away, every step tries.
        if is_due and self.airflow.has_triggered(DAG, f"run-{len(self.triggers)}"):
            self.triggers.pop(0)
        while self.upcoming and self.elapsed >= self.upcoming[0].at:
            self.searching.append(self.upcoming.pop(0))
        for fault in list(self.searching):
            if self.injector.inject(fault):
                self.searching.remove(fault)
            elif self.elapsed > min(fault.at + SEARCH_SECONDS, self.seconds):
                self.searching.remove(fault)
                self.missed.append(fault)
        self.injector.repair()
        self.injector.watch()
        self.injector.look()
        self.show()

    def show(self) -> None:
        if self.elapsed >= self.next_show:
            self.next_show = self.elapsed + SHOW_SECONDS
            self.say(
                f"{self.elapsed:4.0f} s  {self.count()}  {len(self.injector.injections)} faults,"
                f" {len(self.injector.waiting)} not recovered"
            )

    def count(self) -> dict[str, int]:
        rows = self.airflow.rows(
            f"SELECT state, count(*) AS n FROM {LIVE} GROUP BY state ORDER BY state"
        )
        return {str(row["state"]): int(row["n"]) for row in rows}

    # The end

    def settle(self) -> list[str]:
        """Hurt nothing more, and wait until all is over; return what does not end."""
        violations = self.wait_for_runs()
        waits: list[tuple[str, Callable[[], bool], float]] = [
            ("every fault to be recovered from", lambda: not self.injector.waiting, CLEAN_SECONDS),
            (
                "the task stream to be empty",
                lambda: not self.airflow.messages(Names().tasks_stream),
                CLEAN_SECONDS,
            ),
            ("every process to be gone", lambda: not self.orphans(), CLEAN_SECONDS),
        ]
        for what, condition, seconds in waits:
            try:
                block_until(partial(self.is_so, condition), seconds, what)
            except TimeoutError as exc:
                violations.append(f"waited for {exc}")
        return violations

    def wait_for_runs(self) -> list[str]:
        """Wait until the Dag runs are over, for as long as anything changes: machines are slow."""
        seen, since = self.count(), time.monotonic()
        while not self.is_over():
            self.step()
            time.sleep(POLL_SECONDS)
            if (now := self.count()) != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > STILL_SECONDS:
                return [f"Dag runs are not over, and nothing changed for {STILL_SECONDS:g} s"]
        return []

    def is_so(self, condition: Callable[[], bool]) -> bool:
        self.step()
        time.sleep(POLL_SECONDS)
        return condition()

    def is_over(self) -> bool:
        rows = self.airflow.rows("SELECT state FROM dag_run")
        return all(row["state"] in FINAL for row in rows)

    def orphans(self) -> list[int]:
        """What outlived its worker, and tasks that outlived their row."""
        below = {pid for w in self.airflow.workers for pid in descendants(pid_of(w))}
        tasks = {execution.pid for execution in self.injector.journal()}
        return [pid for pid in (self.injector.bereaved - below) | tasks if self.is_ours(pid)]

    def is_ours(self, pid: int) -> bool:
        """Whether a process lives and is of this run, not one that got an old pid."""
        mark = f"TEST_MARKS={self.airflow.marks}".encode()
        with suppress(OSError):  # it is gone
            return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return False

    def judge(self, violations: list[str]) -> AirflowChaosResult:
        rows = self.airflow.rows(f"SELECT * FROM {LIVE}")
        history = self.airflow.rows(f"SELECT * FROM {SPENT}")
        journal = self.injector.journal()
        runs = self.airflow.rows("SELECT run_id, state FROM dag_run WHERE state <> 'success'")
        violations += [f"Dag run {run['run_id']} is {run['state']}" for run in runs]
        violations += [f"by itself, {accident}" for accident in self.injector.accidents]
        violations += [
            f"{i.fault.kind}, {i.victim}: recovered only after {i.recovery_seconds:.0f} s"
            for i in self.injector.injections
            if (i.recovery_seconds or 0) > SLOW_SECONDS and i.fault.kind is not Kind.API_AWAY
        ]
        violations += judge_rows(rows, history, journal) + judge_runs(journal)
        violations += [f"process {pid} was left behind" for pid in self.orphans()]
        if letters := self.airflow.messages(Names().dead_letters_stream):
            violations.append(f"{letters} dead letters")
        return AirflowChaosResult(
            seed=self.seed,
            seconds=self.seconds,
            faults=[
                InjectedFault(i.fault.kind, i.victim, i.fault.at, i.recovery_seconds)
                for i in self.injector.injections
            ],
            violations=violations,
            rows=dict(Counter(str(row["state"]) for row in rows)),
            executions=len(journal),
            tries_spent=len(history),
            missed=[fault.kind for fault in self.missed],
        )

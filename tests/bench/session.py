"""One contender at work: its scheduler and its worker alone."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from nats_executor.local.components import Components
from tests.bench.usage import cpu_seconds, settled_pss_megabytes
from tests.support.worker_process import descendants

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_executor.local.process import Process
    from tests.bench.shared_airflow import Run, SharedAirflow
    from tests.bench.sides import Side

__all__ = ["Session"]

START_SECONDS = 180.0
# Above what the slowest machine needs for the largest Dag: 900 tasks at one in two seconds.
RUN_SECONDS = 1800.0
# A supervisor that sleeps through its task's end does so for five seconds.
QUIET_SECONDS = 30.0


class Session:
    """A scheduler and, where the executor has workers, one with so many slots.

    Args:
        is_timed: whether the worker notes when its slots are free again.
    """

    def __init__(
        self, airflow: SharedAirflow, side: Side, slots: int, *, is_timed: bool = False
    ) -> None:
        self.airflow = airflow
        self.side = side
        self.slots = slots
        self.is_timed = is_timed
        self.components = Components()
        self.worker: Process | None = None
        self.worker_name = ""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.components)
            self.start()
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.components.stop()

    def start(self) -> None:
        """Start both, and return once the scheduler schedules and the worker takes tasks."""
        before = self.airflow.schedulers()
        deployment = self.airflow.deployment
        scheduler = deployment.process("scheduler", "scheduler", "--skip-serve-logs")
        started = [scheduler]
        if self.side.worker:
            started.append(self.new_worker())
        self.components.start(self.dressed(process) for process in started)
        self.components.wait_until(
            lambda: self.is_working() and bool(self.airflow.schedulers() - before),
            seconds=START_SECONDS,
            description=f"{self.side.name}'s scheduler and worker to start",
        )

    def new_worker(self) -> Process:
        """Make a worker with a name that none had before; it is not started."""
        name = f"bench-{self.side.name}-{self.airflow.number}"
        words = self.side.worker_arguments(self.slots, name)
        if self.side.pid_option:
            words += (self.side.pid_option, str(self.airflow.home / f"{name}.pid"))
        self.worker = self.airflow.deployment.process("worker", *words)
        self.worker.grace_seconds = self.airflow.deployment.worker_grace_seconds
        if self.is_timed:
            self.worker.command = [sys.executable, "-m", self.side.stopwatch, *words]
        self.worker_name = name
        return self.worker

    def dressed(self, process: Process) -> Process:
        """Give a process its environment, and a log that no other contender's overwrites."""
        settings = self.side.settings(self.slots)
        env = {f"AIRFLOW__{name}": str(value) for name, value in settings.items()}
        process.env = self.airflow.deployment.env | env
        if process is self.worker:
            process.env |= self.airflow.worker_env
        self.airflow.number += 1
        name = f"{self.airflow.number:03}-{self.side.name}-{self.slots}-{process.name}.log"
        process.log = process.log.with_name(name)
        return process

    def is_working(self) -> bool:
        if not self.worker:
            return True
        if not self.side.ready:
            return self.airflow.has_edge_worker(self.worker_name)
        return self.side.ready in self.worker.log.read_text(errors="replace")

    @property
    def root(self) -> int:
        """The process above the worker's: the leash, which is not part of it."""
        assert self.worker is not None
        assert self.worker.leash is not None
        return self.worker.leash.pid

    def require_alive(self) -> None:
        self.airflow.require_alive()
        self.components.require_alive()

    def run(self, dag_id: str) -> Run:
        return self.airflow.run(dag_id, check=self.require_alive, seconds=RUN_SECONDS)

    def run_with_cpu(self, dag_id: str) -> tuple[Run, float]:
        """Run a Dag; return also the CPU seconds of the worker's processes."""
        processes, before = self.processes(), cpu_seconds(self.root)
        run = self.run(dag_id)
        self.wait_until(
            lambda: self.processes() <= processes, "the processes of the last task to end"
        )
        return run, cpu_seconds(self.root) - before

    def wait_until(self, is_so: Callable[[], bool], description: str) -> None:
        self.components.wait_until(is_so, seconds=QUIET_SECONDS, description=description)

    def processes(self) -> int:
        return len(descendants(self.root))

    def pss_megabytes(self) -> float:
        """The worker's set size, when it has nothing to do and has come to rest."""
        return settled_pss_megabytes(self.root)

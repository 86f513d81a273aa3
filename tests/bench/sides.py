"""The three executors that run the same Dags, each in its documented production set-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CELERY", "LOCAL", "NATS", "SIDES", "Side"]

QUEUE = "default"


@dataclass(frozen=True, slots=True)
class Side:
    """One contender.

    Attributes:
        worker: the arguments of `airflow` that start its worker, none where there is no worker.
        ready: what the worker's log says once it takes tasks.
        stopwatch: a module that runs the worker and notes when each slot is free again.
    """

    name: str
    executor: str
    worker: tuple[str, ...] = ()
    ready: str = ""
    stopwatch: str = ""

    def worker_arguments(self, slots: int) -> tuple[str, ...]:
        return (*self.worker, "-q", QUEUE, "-c", str(slots), "-H", f"bench-{self.name}")

    def settings(self, slots: int) -> Mapping[str, object]:
        """What its scheduler needs; the LocalExecutor's slots are its parallelism."""
        own = {} if self.worker else {"CORE__PARALLELISM": slots}
        return {"CORE__EXECUTOR": self.executor, **own}


NATS = Side(
    "nats",
    "nats_executor.NatsExecutor",
    ("nats", "worker"),
    "is ready: queues",
    "tests.bench.timed_worker",
)
CELERY = Side(
    "celery",
    "airflow.providers.celery.executors.celery_executor.CeleryExecutor",
    ("celery", "worker"),
    " ready.",
    "tests.bench.timed_celery",
)
LOCAL = Side("local", "LocalExecutor")
SIDES = (NATS, CELERY, LOCAL)

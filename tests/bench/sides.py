"""The executors that run the same Dags, each in its documented production set-up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nats_executor.options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CELERY", "EDGE", "LOCAL", "NATS", "NATS_ZYGOTES", "SIDES", "Side"]

QUEUE = "default"


@dataclass(frozen=True, slots=True)
class Side:
    """One contender.

    Attributes:
        worker: the arguments of `airflow` that start its worker, none where there is no worker.
        ready: what the worker's log says once it takes tasks; if nothing, its row tells.
        stopwatch: a module that runs the worker and notes when each slot is free again.
        pid_option: names the file of its pid, where two workers must not share the default one.
        own: settings in which it differs from another contender with the same executor.
    """

    name: str
    executor: str
    worker: tuple[str, ...] = ()
    ready: str = ""
    stopwatch: str = ""
    pid_option: str = ""
    own: Mapping[str, object] = field(default_factory=dict, hash=False)

    def worker_arguments(self, slots: int, name: str) -> tuple[str, ...]:
        return (*self.worker, "-q", QUEUE, "-c", str(slots), "-H", name)

    def settings(self, slots: int) -> Mapping[str, object]:
        """What its scheduler and worker need; the LocalExecutor's slots are its parallelism."""
        slotted = {} if self.worker else {"CORE__PARALLELISM": slots}
        return {"CORE__EXECUTOR": self.executor, **slotted, **self.own}


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
EDGE = Side(
    "edge",
    "airflow.providers.edge3.executors.EdgeExecutor",
    ("edge", "worker"),
    "",
    "tests.bench.timed_edge",
    "--pid",
)
LOCAL = Side("local", "LocalExecutor")
SIDES = (NATS, CELERY, EDGE, LOCAL)


def with_zygotes(defaults: Mapping[str, str | None]) -> tuple[Side, ...]:
    """Return this executor with every other choice of `dag_zygotes` than its default.

    Args:
        defaults: of the options of `[nats_executor]`; a release without the option has no choice.
    """
    if "dag_zygotes" not in defaults:
        return ()
    choices = [choice for choice in ("off", "auto", "on") if choice != defaults["dag_zygotes"]]
    settings = {choice: {"NATS_EXECUTOR__DAG_ZYGOTES": choice} for choice in choices}
    return tuple(replace(NATS, name=f"nats-{c}", own=own) for c, own in settings.items())


# `nats` has the defaults; these are beside it where Dags are heavy.
NATS_ZYGOTES = with_zygotes({option.name: option.default for option in OPTIONS})

"""The faults, as data: what breaks, in which Dag, and which contender has no such part. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FAULTS", "SHARE", "Fault", "shortened_waits"]

NO_WORKER = {"local": "it has no worker"}
NO_BROKER = {
    "local": "it has no broker",
    "edge": "it has no broker: its queue is Airflow's database",
}
# The waits by which Airflow's scheduler notices that something was lost, and their defaults in
# seconds. Every contender has them; a run has this share of each, so that a cell takes minutes.
SHARE = 1 / 5
WAITS = {
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": 300,
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": 10,
    "SCHEDULER__TASK_QUEUED_TIMEOUT": 600,
    "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": 120,
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": 300,
}


def shortened_waits() -> dict[str, object]:
    """Return the settings with a share of Airflow's defaults."""
    return {name: round(seconds * SHARE) for name, seconds in WAITS.items()}


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table.

    Attributes:
        dag: the Dag whose tasks are hurt.
        is_first: whether it is there before the first task; else it comes while tasks run.
        lacks: why a contender cannot have it, by name.
        settings: of the scheduler and the worker, besides those of every fault.
    """

    name: str
    what: str
    dag: str = "busy"
    is_first: bool = False
    lacks: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)


_FAULTS = (
    Fault("none", "nothing, to compare with"),
    Fault("worker_killed", "kill -9 of a busy worker with all of its tasks; a new one starts",
          lacks=NO_WORKER),
    Fault("worker_stopped", "SIGTERM to a busy worker, kill -9 after 30 s; a new one starts at "
          "once", lacks=NO_WORKER),
    Fault("scheduler_killed", "kill -9 of the scheduler with all below it; a new one starts"),
    Fault("broker_killed", "kill -9 of the broker, which starts again after 10 s",
          lacks=NO_BROKER),
    Fault("broker_wiped", "the same, and what it had stored is gone", lacks=NO_BROKER),
    Fault("api_slow", "for 30 s the API server carries requests out and answers after 10 s"),
    Fault("worker_unfit", "a second worker that cannot reach the Execution API", is_first=True,
          lacks=NO_WORKER),
    Fault("long_backlog", "tasks wait three times as long as `task_queued_timeout`", dag="backlog",
          is_first=True, settings={
              "SCHEDULER__TASK_QUEUED_TIMEOUT": 15,
              "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": 5,
          }),
    Fault("disk_full", "no room for logs and temporary files of tasks for 20 s"),
    Fault("memory_limit", "a heavy Dag in a memory cgroup that has room for two tasks of four",
          dag="hungry", is_first=True),
)  # fmt: skip

FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in _FAULTS}

"""Lists the metrics that a scheduler sends about its executor."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["METRICS", "PREFIX"]

# Airflow puts its own prefix, `airflow.` by default, in front of each name.
PREFIX = "nats_executor"


class SchedulerMetric(NamedTuple):
    """One metric, which every one sends with the tag `prefix`, too.

    Attributes:
        text: what it means.
        unit: of its value; 1 for a number of things, or for yes (1) and no (0).
        tags: beside `prefix`.
        is_timer: whether it is sent for each thing that takes time; others are gauges.
    """

    text: str
    unit: str = "1"
    tags: tuple[str, ...] = ()
    is_timer: bool = False


QUEUE_TAG = ("queue",)
METRICS: Mapping[str, SchedulerMetric] = {
    "connected": SchedulerMetric("1 while NATS answers this scheduler, 0 otherwise"),
    "queue.depth": SchedulerMetric(
        "workloads of a queue that no worker has been given", tags=QUEUE_TAG
    ),
    "queue.in_flight": SchedulerMetric(
        "workloads that workers have been given and that are not over", tags=QUEUE_TAG
    ),
    "queue.redelivered": SchedulerMetric(
        "of those in flight, the ones that were given more than once", tags=QUEUE_TAG
    ),
    "queue.oldest_seconds": SchedulerMetric(
        "age of the oldest workload that still waits, since this scheduler sent it or took it over",
        "seconds",
        QUEUE_TAG,
    ),
    "queue.workers": SchedulerMetric(
        "living workers of a queue, paused ones included", tags=QUEUE_TAG
    ),
    "queue.slots": SchedulerMetric("slots of the living workers of a queue", tags=QUEUE_TAG),
    "queue.paused": SchedulerMetric(
        "1 while an operator keeps the workloads of a queue from its workers", tags=QUEUE_TAG
    ),
    "slots": SchedulerMetric("slots of all living workers"),
    "slots_in_use": SchedulerMetric("slots that workloads hold"),
    "workers": SchedulerMetric(
        "workers in each state: running, draining, paused, lost", tags=("state",)
    ),
    "dead_letters": SchedulerMetric("messages that no worker could handle and that are kept"),
    "publish_duration": SchedulerMetric(
        "time until NATS had a batch of workloads; the scheduler's loop waits for it",
        "milliseconds",
        is_timer=True,
    ),
    "queue_wait": SchedulerMetric(
        "time from sending a workload to its first report that it runs",
        "milliseconds",
        QUEUE_TAG,
        is_timer=True,
    ),
    "result_lag": SchedulerMetric(
        "time from a worker's last report to the event for the scheduler",
        "milliseconds",
        is_timer=True,
    ),
}

"""Lists the metrics of a worker: what each one is called, counts and means."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["NAMESPACE", "WORKER_METRICS"]

NAMESPACE = "airflow_nats_worker"
# From the shortest that is good to the longest that is not hopeless, in seconds.
SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
STARTS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LONG = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400)


class PrometheusType(StrEnum):
    """The type of a metric, in Prometheus's words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


COUNTER, GAUGE, HISTOGRAM = PrometheusType


class WorkerMetric(NamedTuple):
    """One metric; Prometheus sees it as `airflow_nats_worker_NAME`.

    Attributes:
        name: without the namespace, and without the `_total` that Prometheus gives a counter.
        unit: of its value; 1 for a number of things, or for yes (1) and no (0).
        text: what it means, as `/metrics` has it.
        buckets: of a histogram, the upper ends.
    """

    name: str
    kind: PrometheusType
    unit: str
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exposed(self) -> str:
        """The name on the page of `/metrics`; a histogram adds `_bucket`, `_sum` and `_count`."""
        return f"{NAMESPACE}_{self.name}{'_total' if self.kind is COUNTER else ''}"


BY_QUEUE = ("queue",)
BY_STATE = ("queue", "state")
WORKER_METRICS = {
    metric.name: metric
    for metric in (
        WorkerMetric("info", GAUGE, "1", "Always 1.", ("name", "version")),
        WorkerMetric("live", GAUGE, "1", "1 while its event loop moves, as /livez says."),
        WorkerMetric("ready", GAUGE, "1", "1 while it gets workloads, as /readyz says."),
        WorkerMetric("connected", GAUGE, "1", "1 while it is connected to NATS."),
        WorkerMetric("draining", GAUGE, "1", "1 while it stops or is drained, and takes no more."),
        WorkerMetric("paused", GAUGE, "1", "1 while it takes nothing for want of memory."),
        WorkerMetric("unfit", GAUGE, "1", "1 while it takes nothing as it cannot start workloads."),
        WorkerMetric("slots", GAUGE, "1", "Workloads that it runs at a time."),
        WorkerMetric("slots_in_use", GAUGE, "1", "Slots that its workloads hold."),
        WorkerMetric("workloads_running", GAUGE, "1", "Workloads that have a process."),
        WorkerMetric("queues", GAUGE, "1", "Queues that it serves."),
        WorkerMetric(
            "supervisors", GAUGE, "1",
            "Processes of its fork server: supervisors, spare ones and the log server included.",
        ),
        WorkerMetric(
            "zygotes", GAUGE, "1",
            "Processes that have parsed a Dag file for tasks to come; see dag_zygotes.",
        ),
        WorkerMetric("zygote_starts", COUNTER, "1", "Tasks that were given to a zygote."),
        WorkerMetric(
            "zygote_refusals", COUNTER, "1",
            "Dag files that got no zygote, once for each reason against it.",
            ("reason",),
        ),
        WorkerMetric(
            "pull_silence_seconds", GAUGE, "seconds",
            "Time that a queue's pulls have waited for any answer of the server, 0 with no slot "
            "free.",
            BY_QUEUE,
        ),
        WorkerMetric(
            "memory_used_ratio", GAUGE, "share from 0 to 1",
            "Used share of the memory of the machine, or of the worker's cgroup.",
        ),
        WorkerMetric(
            "reconnects", COUNTER, "1",
            "Connections to NATS after the first, as seen once a second.",
        ),
        WorkerMetric("deliveries", COUNTER, "1", "Workloads that were delivered here.", BY_QUEUE),
        WorkerMetric(
            "redeliveries", COUNTER, "1",
            "Of these, the ones that were delivered before, here or elsewhere.",
            BY_QUEUE,
        ),
        WorkerMetric(
            "workloads_finished", COUNTER, "1",
            "Workloads reported to be over: success, failed or dropped.",
            BY_STATE,
        ),
        WorkerMetric(
            "workloads_returned", COUNTER, "1",
            "Workloads given back to the queue before a start: released or expired.",
            BY_STATE,
        ),
        WorkerMetric("dead_letters", COUNTER, "1", "Messages set aside as dead letters.", BY_QUEUE),
        WorkerMetric(
            "queue_wait_seconds", HISTOGRAM, "seconds",
            "From the queue's stream to the first claim, by NATS's clock and this machine's.",
            BY_QUEUE, LONG,
        ),
        WorkerMetric(
            "pickup_seconds", HISTOGRAM, "seconds",
            "From delivery to the start that Airflow accepted.",
            (), STARTS,
        ),
        WorkerMetric(
            "run_seconds", HISTOGRAM, "seconds", "From start to end of a workload.", BY_QUEUE, LONG
        ),
        WorkerMetric(
            "report_seconds", HISTOGRAM, "seconds", "From a report to NATS's confirmation.",
            (), SHORT,
        ),
    )
}  # fmt: skip

"""Measures what a worker does, for Prometheus; loaded only with a port for probes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from nats_executor.wire.messages import State
from nats_executor.wire.names import is_probe
from nats_worker.delivery.observer import Observer
from nats_worker.processes import memory
from nats_worker.processes.linux import children_of
from nats_worker.processes.proof import SELF_TEST

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import WSGIApplication

    from prometheus_client.metrics_core import Metric

    from nats_executor.broker.port import Delivery
    from nats_worker.health.health import Health
    from nats_worker.state import WorkerState

__all__ = ["Meter"]

NAMESPACE = "airflow_nats_worker"
# From the shortest that is good to the longest that is not hopeless, in seconds.
SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
STARTS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LONG = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400)
# The delivery is over for this worker: for good, or another one goes on with the workload.
FINISHED = tuple(state for state in State if state.is_final)
RETURNED = (State.RELEASED, State.EXPIRED)


class Meter:
    """Observes the deliveries of one worker.

    Attributes:
        exposition: the page that shows all metrics.
    """

    def __init__(self, state: WorkerState, health: Health) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(StateCollector(state, health))
        self._instruments = Instruments(registry)
        for queue in state.queues:
            self._instruments.show(queue)
        self.exposition: WSGIApplication = prometheus_client.make_wsgi_app(registry)

    def observer(self, queue: str, delivery: Delivery) -> Observer:
        """Count a delivery, and return what measures its steps."""
        self._instruments.deliveries.labels(queue).inc()
        if delivery.num_delivered > 1:
            self._instruments.redeliveries.labels(queue).inc()
        return Measured(self._instruments, queue, delivery.at)


class Instruments:
    """The counters and histograms of one worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{NAMESPACE}_{name}", text, ["queue", *labels], registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(
                f"{NAMESPACE}_{name}", text, labels, registry=registry, buckets=buckets
            )

        self.deliveries = counter("deliveries", "Workloads that were delivered here.")
        self.redeliveries = counter("redeliveries", "Those that were delivered before.")
        self.finished = counter("workloads_finished", "Workloads reported to be over.", "state")
        self.returned = counter(
            "workloads_returned", "Workloads given back to the queue before a start.", "state"
        )
        self.dead_letters = counter("dead_letters", "Messages set aside as dead letters.")
        self.pickup = histogram(
            "pickup_seconds", "From delivery to the start that Airflow accepted.", STARTS
        )
        self.queue_wait = histogram(
            "queue_wait_seconds", "From the queue's stream to the first claim.", LONG, "queue"
        )
        self.run = histogram("run_seconds", "From start to end of a workload.", LONG, "queue")
        self.report = histogram("report_seconds", "From a report to NATS's confirmation.", SHORT)

    def show(self, queue: str) -> None:
        """Begin a queue's counts with 0, so that a rate sees the first of each."""
        for counter in (self.deliveries, self.redeliveries, self.dead_letters):
            counter.labels(queue)
        for counter, states in ((self.finished, FINISHED), (self.returned, RETURNED)):
            for state in states:
                counter.labels(queue, state.value)

    def ended(self, queue: str, state: State) -> None:
        """Count what was reported at the end of a delivery."""
        if state in FINISHED:
            self.finished.labels(queue, state.value).inc()
        elif state in RETURNED:
            self.returned.labels(queue, state.value).inc()


class Measured(Observer):
    """Measures the steps of one delivery.

    Args:
        stored_at: when the broker stored the message, in seconds by its clock.
    """

    def __init__(self, instruments: Instruments, queue: str, stored_at: float) -> None:
        self._instruments = instruments
        self._queue = queue
        self._stored_at = stored_at
        self._received_at = time.monotonic()
        self._started_at = 0.0

    def claimed(self, *, is_first: bool) -> None:
        if is_first:
            # Two clocks: the broker's, which stored it, and this machine's.
            waited = max(0.0, time.time() - self._stored_at)
            self._instruments.queue_wait.labels(self._queue).observe(waited)

    def started(self) -> None:
        self._started_at = time.monotonic()
        self._instruments.pickup.observe(self._started_at - self._received_at)

    def exited(self) -> None:
        if self._started_at:
            self._instruments.run.labels(self._queue).observe(time.monotonic() - self._started_at)

    def confirmed(self, seconds: float) -> None:
        self._instruments.report.observe(seconds)

    def reported(self, state: State) -> None:
        self._instruments.ended(self._queue, state)

    def buried(self) -> None:
        self._instruments.dead_letters.labels(self._queue).inc()


class StateCollector(Collector):
    """Shows what a worker is at the moment it is asked, in the thread of the HTTP request."""

    def __init__(self, state: WorkerState, health: Health) -> None:
        self._state = state
        self._health = health

    def collect(self) -> Iterable[Metric]:
        health, state = self._health, self._state
        info = GaugeMetricFamily(f"{NAMESPACE}_info", "Always 1.", labels=["name", "version"])
        info.add_metric([state.plan.name, state.plan.version], 1)
        yield info
        for name, text, value in (
            ("live", "Whether its event loop moves.", health.is_live()),
            ("ready", "Whether it gets workloads, as /readyz says.", not health.missing()),
            ("connected", "Whether it is connected to NATS.", health.is_connected),
            ("draining", "Whether it stops or is drained, and takes no more.", state.takes_no_more),
            ("paused", "Whether it takes nothing for want of memory.", bool(state.guard.reason)),
            (
                "unfit",
                "Whether it can start nothing, and takes nothing.",
                bool(state.proof.reason),
            ),
            ("slots", "Workloads that it runs at a time.", state.slots.concurrency),
            ("slots_in_use", "Slots that its workloads hold.", state.slots.used),
            ("workloads_running", "Workloads that have a process.", self.running()),
            ("queues", "Queues that it serves.", len(state.queues)),
            ("supervisors", "Processes of its fork server.", self.supervisors()),
        ):
            yield GaugeMetricFamily(f"{NAMESPACE}_{name}", text, value=float(value))
        yield CounterMetricFamily(
            f"{NAMESPACE}_reconnects",
            "Connections to NATS after the first.",
            value=health.reconnects,
        )
        yield self.silences()
        yield from self.memory()

    def running(self) -> int:
        runs = list(self._health.pool.runs) if self._health.pool else []
        return sum(not (run.startswith(SELF_TEST) or is_probe(run)) for run in runs)

    def supervisors(self) -> int:
        server = self._health.pool.server if self._health.pool else None
        return len(children_of(server.process.pid)) if server else 0

    def silences(self) -> Metric:
        found = GaugeMetricFamily(
            f"{NAMESPACE}_pull_silence_seconds",
            "Time that a queue's pulls have waited for any answer of the server, 0 with no slot "
            "free.",
            labels=["queue"],
        )
        for queue, seconds in self._health.silences().items():
            found.add_metric([queue], seconds)
        return found

    def memory(self) -> Iterable[Metric]:
        """Yield the share that the memory guard looks at, if the kernel tells it."""
        used: Any = memory.read().used_percent
        if used is not None:
            text = "Used share of the memory of the machine, or of the worker's cgroup."
            yield GaugeMetricFamily(f"{NAMESPACE}_memory_used_ratio", text, value=used / 100)

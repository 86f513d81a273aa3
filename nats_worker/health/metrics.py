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
from nats_worker.health.metric_table import NAMESPACE, WORKER_METRICS
from nats_worker.processes import memory
from nats_worker.processes.linux import children_of
from nats_worker.processes.proof import SELF_TEST
from nats_worker.processes.zygote_book import Reason
from nats_worker.processes.zygotes import ZygoteCounts

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import WSGIApplication

    from prometheus_client.metrics_core import Metric

    from nats_executor.broker.port import Delivery
    from nats_worker.health.health import Health
    from nats_worker.state import WorkerState

__all__ = ["Meter"]

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
        def counter(name: str) -> Counter:
            metric = WORKER_METRICS[name]
            full = f"{NAMESPACE}_{name}"
            return Counter(full, metric.text, metric.labels, registry=registry)

        def histogram(name: str) -> Histogram:
            metric = WORKER_METRICS[name]
            full = f"{NAMESPACE}_{name}"
            return Histogram(
                full, metric.text, metric.labels, registry=registry, buckets=metric.buckets
            )

        self.deliveries = counter("deliveries")
        self.redeliveries = counter("redeliveries")
        self.finished = counter("workloads_finished")
        self.returned = counter("workloads_returned")
        self.dead_letters = counter("dead_letters")
        self.pickup = histogram("pickup_seconds")
        self.queue_wait = histogram("queue_wait_seconds")
        self.run = histogram("run_seconds")
        self.report = histogram("report_seconds")

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
        info = gauge("info")
        info.add_metric([state.plan.name, state.plan.version], 1)
        yield info
        for name, value in (
            ("live", health.is_live()),
            ("ready", not health.missing()),
            ("connected", health.is_connected),
            ("draining", state.takes_no_more),
            ("paused", bool(state.guard.reason)),
            ("unfit", bool(state.proof.reason)),
            ("slots", state.slots.concurrency),
            ("slots_in_use", state.slots.used),
            ("workloads_running", self.running()),
            ("queues", len(state.queues)),
            ("supervisors", self.supervisors()),
        ):
            yield gauge(name, float(value))
        text = WORKER_METRICS["reconnects"].text
        yield CounterMetricFamily(f"{NAMESPACE}_reconnects", text, value=health.reconnects)
        yield self.silences()
        yield from self.zygotes()
        yield from self.memory()

    def running(self) -> int:
        runs = list(self._health.pool.runs) if self._health.pool else []
        return sum(not (run.startswith(SELF_TEST) or is_probe(run)) for run in runs)

    def supervisors(self) -> int:
        server = self._health.pool.server if self._health.pool else None
        return len(children_of(server.process.pid)) if server else 0

    def zygotes(self) -> Iterable[Metric]:
        counts = self._health.pool.zygotes if self._health.pool else ZygoteCounts()
        yield gauge("zygotes", float(counts.ready))
        starts = WORKER_METRICS["zygote_starts"].text
        yield CounterMetricFamily(f"{NAMESPACE}_zygote_starts", starts, value=counts.starts)
        metric = WORKER_METRICS["zygote_refusals"]
        refused = CounterMetricFamily(
            f"{NAMESPACE}_zygote_refusals", metric.text, labels=metric.labels
        )
        for reason in Reason:
            refused.add_metric([reason.value], counts.refused[reason.value])
        yield refused

    def silences(self) -> Metric:
        found = gauge("pull_silence_seconds")
        for queue, seconds in self._health.silences().items():
            found.add_metric([queue], seconds)
        return found

    def memory(self) -> Iterable[Metric]:
        """Yield the share that the memory guard looks at, if the kernel tells it."""
        used: Any = memory.read().used_percent
        if used is not None:
            yield gauge("memory_used_ratio", used / 100)


def gauge(name: str, value: float | None = None) -> GaugeMetricFamily:
    """Return a gauge of the table; one with labels gets its values from its caller."""
    metric = WORKER_METRICS[name]
    return GaugeMetricFamily(
        f"{NAMESPACE}_{name}", metric.text, value, metric.labels if value is None else None
    )

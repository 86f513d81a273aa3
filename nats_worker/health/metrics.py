"""What a worker counts and measures, for Prometheus; loaded only where somebody may ask."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from nats_executor.wire.messages import State
from nats_worker.delivery.errand import Errand
from nats_worker.processes import memory
from nats_worker.processes.linux import children_of
from nats_worker.processes.proof import SELF_TEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import WSGIApplication

    from prometheus_client.metrics_core import Metric

    from nats_executor.broker.port import Delivery
    from nats_executor.wire.messages import Report, Workload
    from nats_worker.delivery import claims
    from nats_worker.delivery.record import Surroundings
    from nats_worker.delivery.verdict import Verdict
    from nats_worker.health.health import Health
    from nats_worker.processes.run import Run

__all__ = ["Meter"]

PREFIX = "airflow_nats_worker"
# From the shortest that is good to the longest that is not hopeless, in seconds.
SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
STARTS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LONG = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400)
# It is over, for this worker at least: for good, or somebody else goes on with it.
FINISHED = tuple(state for state in State if state.is_final)
RETURNED = (State.RELEASED, State.EXPIRED)


class Meter:
    """The instruments of one worker, and the page that shows them."""

    def __init__(self, health: Health) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Standing(health))

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", text, ["queue", *labels], registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"{PREFIX}_{name}", text, labels, registry=registry, buckets=buckets)

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
        for queue in health.worker.queues:
            self.show(queue)
        self.exposition: WSGIApplication = prometheus_client.make_wsgi_app(registry)

    def show(self, queue: str) -> None:
        """Begin a queue's counts with 0, so that a rate sees the first of each."""
        for counter in (self.deliveries, self.redeliveries, self.dead_letters):
            counter.labels(queue)
        for counter, states in ((self.finished, FINISHED), (self.returned, RETURNED)):
            for state in states:
                counter.labels(queue, state.value)

    def errand(self, around: Surroundings, queue: str, delivery: Delivery) -> Errand:
        """Make an errand that is measured, and count its delivery."""
        self.deliveries.labels(queue).inc()
        if delivery.num_delivered > 1:
            self.redeliveries.labels(queue).inc()
        return MeasuredErrand(self, around, queue, delivery)

    def ended(self, queue: str, state: State) -> None:
        if state in FINISHED:
            self.finished.labels(queue, state.value).inc()
        elif state in RETURNED:
            self.returned.labels(queue, state.value).inc()


class MeasuredErrand(Errand):
    """An errand whose steps are counted once they have succeeded."""

    def __init__(self, meter: Meter, around: Surroundings, queue: str, delivery: Delivery) -> None:
        super().__init__(around, queue, delivery)
        self._meter = meter
        self._received_at = time.monotonic()
        self._started_at = 0.0

    async def try_claim(self, unless: Callable[[], bool]) -> bool:
        is_ours = await super().try_claim(unless)
        if is_ours and self.attempt == 1 and not self.generation:
            # Two clocks: the broker's, which stored it, and this machine's.
            waited = max(0.0, time.time() - self.delivery.at)
            self._meter.queue_wait.labels(self.queue).observe(waited)
        return is_ours

    async def try_report(
        self, state: State, info: str = "", *, of: Workload | Report | None = None
    ) -> bool:
        began = time.monotonic()
        is_ours = await super().try_report(state, info, of=of)
        if is_ours:
            self._meter.report.observe(time.monotonic() - began)
        if is_ours and of is not None:  # in a dead worker's place; the rest comes by `report`
            self._meter.ended(self.queue, state)
        return is_ours

    async def report(self, state: State, info: str = "") -> None:
        await super().report(state, info)
        self._meter.ended(self.queue, state)

    async def announce_start(self, run: Run) -> None:
        await run.started()
        self._started_at = time.monotonic()
        self._meter.pickup.observe(self._started_at - self._received_at)
        await super().announce_start(run)

    async def execute(
        self, workload: Workload, claim: claims.Claim, on_exit: Callable[[], None]
    ) -> Verdict:
        def exited() -> None:
            if self._started_at:
                self._meter.run.labels(self.queue).observe(time.monotonic() - self._started_at)
            on_exit()

        return await super().execute(workload, claim, exited)

    async def bury(self, reason: str) -> None:
        await super().bury(reason)
        self._meter.dead_letters.labels(self.queue).inc()


class Standing(Collector):
    """What a worker is at the moment it is asked, in the thread of whoever asks."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterable[Metric]:
        health = self._health
        worker = health.worker
        info = GaugeMetricFamily(f"{PREFIX}_info", "Always 1.", labels=["name", "version"])
        info.add_metric([worker.plan.name, worker.plan.version], 1)
        yield info
        for name, text, value in (
            ("live", "Whether its event loop moves.", health.is_live()),
            ("ready", "Whether it gets workloads, as /readyz says.", not health.missing()),
            ("connected", "Whether it is connected to NATS.", health.is_connected),
            ("draining", "Whether it stops and takes no more.", worker.is_draining),
            ("paused", "Whether it takes nothing for want of memory.", bool(worker.guard.reason)),
            (
                "unfit",
                "Whether it can start nothing, and takes nothing.",
                bool(worker.proof.reason),
            ),
            ("slots", "Workloads that it runs at a time.", worker.slots.concurrency),
            ("slots_in_use", "Slots that its workloads hold.", worker.slots.used),
            ("workloads_running", "Workloads that have a process.", self.running()),
            ("queues", "Queues that it serves.", len(worker.queues)),
            ("supervisors", "Processes of its fork server.", self.supervisors()),
        ):
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text, value=float(value))
        yield CounterMetricFamily(
            f"{PREFIX}_reconnects", "Connections to NATS after the first.", value=health.reconnects
        )
        yield self.silences()
        yield from self.memory()

    def running(self) -> int:
        runs = list(self._health.pool.runs) if self._health.pool else []
        return sum(not run.startswith(SELF_TEST) for run in runs)

    def supervisors(self) -> int:
        server = self._health.pool.server if self._health.pool else None
        return len(children_of(server.process.pid)) if server else 0

    def silences(self) -> Metric:
        found = GaugeMetricFamily(
            f"{PREFIX}_pull_silence_seconds",
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
            yield GaugeMetricFamily(f"{PREFIX}_memory_used_ratio", text, value=used / 100)

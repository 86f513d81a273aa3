"""The executor tells its figures through Airflow's metrics, and never pays for that."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow._shared.observability.metrics.otel_logger import SafeOtelLogger
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from nats_executor.errors import AccessDenied, BrokerUnavailable
from nats_executor.fleet.queues import UNTIL_RESUMED
from nats_executor.scheduler.metric_table import METRICS
from nats_executor.scheduler.streams import Streams
from nats_executor.wire.messages import Presence, State
from nats_executor.wire.names import Lane
from tests.scheduler.stage import events, queue_up, task_workload
from tests.support.fake_broker import FakeBroker
from tests.support.presences import records_of
from tests.support.recorder import Recorder, recording
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nats_executor import NatsExecutor
    from tests.scheduler.stage import FakeStage, Stage

QUEUE = "default"


def measured(stage: Stage, **options: Any) -> NatsExecutor:
    """Start an executor in an Airflow whose metrics are switched on."""
    stage.monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
    defaults: dict[str, Any] = {"sweep_seconds": 0.05, "priority_bands": "none"}
    stage.configure(**(defaults | options))
    return stage.executor()


@pytest.fixture
def recorder() -> Iterator[Callable[[], Recorder]]:
    """Record from now on; an executor's construction points Airflow's metrics elsewhere."""
    contexts: list[Any] = []

    def start() -> Recorder:
        contexts.append(recording())
        made: Recorder = contexts[-1].__enter__()
        return made

    yield start
    for context in contexts:
        context.__exit__(None, None, None)


def told(executor: NatsExecutor, recorder: Recorder, value: float, name: str, **tags: str) -> None:
    """Go through the scheduler's loop until a gauge has a value."""

    def is_told() -> bool:
        executor.heartbeat()
        return recorder.last(name, **tags) == value

    try:
        block_until(is_told, 10, f"{name} {tags} to be {value}")
    except TimeoutError:
        pytest.fail(f"{name} {tags} is {recorder.values(name, **tags)[-3:]}, not {value}")


def present(stage: Stage, name: str = "w1", **changes: Any) -> None:
    """Write a worker's records."""
    fields: dict[str, Any] = {
        "worker": f"{name}.1", "name": name, "host": "h", "pid": 1, "queues": [QUEUE],
        "concurrency": 4, "running": 1, "draining": False, "started_at": 0.0, "at": 0.0,
        "version": "1",
    } | changes  # fmt: skip
    for subject, body in records_of(stage.names, Presence(**fields)):
        stage.ask("publish", subject, body)


def test_gauges_of_queues(stage: Stage, recorder: Callable[[], Recorder]) -> None:
    executor = measured(stage)
    sent = recorder()
    tasks = [task_workload(f"t{number}") for number in range(3)]
    stage.sent_by(executor, *tasks, task_workload("other", queue="gpu"))

    told(executor, sent, 3.0, "queue.depth", queue=QUEUE)
    told(executor, sent, 1.0, "queue.depth", queue="gpu", prefix=stage.names.prefix)
    assert sent.last("queue.workers", queue=QUEUE) == 0.0
    assert sent.last("queue.paused", queue=QUEUE) == 0.0
    consumer = stage.names.consumer(*Lane(QUEUE))
    pulls = stage.ask("pull", stage.names.tasks_stream, consumer)
    deliveries = stage.portal.call(pulls.take, 2)

    told(executor, sent, 2.0, "queue.in_flight", queue=QUEUE)
    told(executor, sent, 1.0, "queue.depth", queue=QUEUE)
    assert sent.last("connected") == 1.0
    assert sent.last("queue.redelivered", queue=QUEUE) == 0.0
    stage.portal.call(deliveries[0].nak)
    stage.portal.call(pulls.take, 2)
    told(executor, sent, 1.0, "queue.redelivered", queue=QUEUE)
    stage.ask("pause_consumer", stage.names.tasks_stream, consumer, UNTIL_RESUMED)
    told(executor, sent, 1.0, "queue.paused", queue=QUEUE)
    stage.portal.call(pulls.close)


def test_gauges_of_workers(fake_stage: FakeStage, recorder: Callable[[], Recorder]) -> None:
    executor = measured(fake_stage)
    sent = recorder()
    fake_stage.sent_by(executor, task_workload())
    present(fake_stage, "gone")
    fake_stage.server.advance(60)
    present(fake_stage)
    present(fake_stage, "w2", concurrency=2, running=2, queues=["gpu", "tpu"])
    present(fake_stage, "w3", draining=True)
    present(fake_stage, "w4", paused="memory")

    told(executor, sent, 1.0, "workers", state="paused")  # the last one
    expected = {"running": 2.0, "draining": 1.0, "paused": 1.0, "lost": 1.0}
    assert {state: sent.last("workers", state=state) for state in expected} == expected
    assert sent.last("slots") == 14.0
    assert sent.last("slots_in_use") == 5.0
    assert sent.last("queue.workers", queue=QUEUE) == 2.0  # the one that drains takes nothing
    assert sent.last("queue.slots", queue=QUEUE) == 8.0


def test_dead_letters(stage: Stage, recorder: Callable[[], Recorder]) -> None:
    executor = measured(stage)
    sent = recorder()
    told(executor, sent, 0.0, "dead_letters")

    stage.ask("publish", stage.names.dead_letter(QUEUE, "d1"), b"")

    told(executor, sent, 1.0, "dead_letters")


def test_the_oldest_workload_that_waits(stage: Stage, recorder: Callable[[], Recorder]) -> None:
    executor = measured(stage)
    sent = recorder()
    first, second = stage.sent_by(executor, task_workload("a"), task_workload("b"))
    assert executor._connected.dispatcher
    telemetry = executor._connected.dispatcher.telemetry
    telemetry._sent[first.dispatch_id] -= 100

    def oldest(low: float, high: float) -> None:
        def is_told() -> bool:
            executor.heartbeat()
            age = sent.last("queue.oldest_seconds", queue=QUEUE)
            return age is not None and low <= age < high

        block_until(is_told, 10, f"an age from {low} to {high}")

    oldest(100, 160)
    stage.report(first, State.CLAIMED)
    oldest(0, 60)
    stage.report(first, State.SUCCESS)
    stage.report(second, State.SUCCESS)
    events(executor, 2)

    told(executor, sent, 0.0, "queue.oldest_seconds", queue=QUEUE)
    assert telemetry._sent == {}


def test_timers(stage: Stage, recorder: Callable[[], Recorder]) -> None:
    executor = measured(stage)
    sent = recorder()
    queue_up(executor, task_workload("a"), task_workload("b"))
    executor.heartbeat()
    executor.heartbeat()
    first, second = stage.sent()

    [duration] = sent.values("publish_duration")
    assert 0 < duration < 5000
    stage.report(first, State.CLAIMED)
    stage.report(first, State.RUNNING, at=time.time() + 300)
    stage.report(first, State.SUCCESS, at=time.time() - 40)
    stage.report(second, State.FAILED, at=time.time() + 40)  # a clock that is ahead
    events(executor, 2)

    assert [300_000 <= wait < 360_000 for wait in sent.values("queue_wait", queue=QUEUE)] in (
        [True],
        [],  # a real stream keeps the last report alone, and its reader may come too late
    )
    lags = sent.values("result_lag")
    assert min(lags) == 0
    assert 40_000 <= max(lags) < 100_000
    assert len(lags) == 2


def test_the_first_running_report_ends_the_wait(
    stage: Stage, recorder: Callable[[], Recorder]
) -> None:
    executor = measured(stage)
    sent = recorder()
    [about] = stage.sent_by(executor, task_workload())

    for seconds in (300, 900):
        stage.report(about, State.RUNNING, at=time.time() + seconds)
        stage.seen(executor)

    assert [300_000 <= w < 360_000 for w in sent.values("queue_wait", queue=QUEUE)] == [True]


def test_a_broker_that_is_away_is_told(
    fake_stage: FakeStage, recorder: Callable[[], Recorder]
) -> None:
    executor = measured(fake_stage)
    sent = recorder()
    fake_stage.sent_by(executor, task_workload())
    told(executor, sent, 1.0, "queue.depth", queue=QUEUE)

    fake_stage.server.stop()
    told(executor, sent, 0.0, "connected")
    # What is not known is not told: a backlog does not vanish with its broker.
    assert sent.last("queue.depth", queue=QUEUE) == 1.0
    fake_stage.server.start()

    told(executor, sent, 1.0, "connected")


def test_a_queue_that_is_gone_is_empty(
    fake_stage: FakeStage, recorder: Callable[[], Recorder]
) -> None:
    """A gauge keeps its last value, which would be a backlog for ever."""
    executor = measured(fake_stage)
    sent = recorder()
    fake_stage.sent_by(executor, task_workload(queue="gpu"))
    told(executor, sent, 1.0, "queue.depth", queue="gpu")

    stream = fake_stage.server.stream(fake_stage.names.tasks_stream)
    del stream.consumers[fake_stage.names.consumer(*Lane("gpu"))]

    told(executor, sent, 0.0, "queue.depth", queue="gpu")


def test_any_queue_makes_a_name_that_statsd_takes(
    fake_stage: FakeStage, recorder: Callable[[], Recorder]
) -> None:
    executor = measured(fake_stage)
    sent = recorder()
    fake_stage.sent_by(executor, task_workload(queue="größe, a=b" + "x" * 200))

    told(executor, sent, 1.0, "queue.depth", queue="gr__e__a_b" + "x" * 90)


def test_every_metric_is_sent_and_listed(stage: Stage, recorder: Callable[[], Recorder]) -> None:
    executor = measured(stage)
    sent = recorder()
    [about] = stage.sent_by(executor, task_workload())
    told(executor, sent, 1.0, "queue.depth", queue=QUEUE)
    stage.report(about, State.RUNNING)
    stage.seen(executor)
    stage.report(about, State.SUCCESS)
    events(executor, 1)

    assert {s.name for s in sent.sent} == {f"nats_executor.{name}" for name in METRICS}
    timings = {s.name for s in sent.sent if s.kind == "timing"}
    listed = {f"nats_executor.{name}" for name, metric in METRICS.items() if metric.is_timer}
    assert timings == listed
    assert {s.tags["prefix"] for s in sent.sent} == {stage.names.prefix}
    for found in sent.sent:
        metric = METRICS[found.name.removeprefix("nats_executor.")]
        assert set(found.tags) == {"prefix", *metric.tags}, found.name


# What it costs


def test_a_metrics_client_that_fails_harms_nobody(
    stage: Stage, recorder: Callable[[], Recorder], said: Callable[..., list[str]]
) -> None:
    executor = measured(stage)
    sent = recorder()
    sent.failure = OSError("statsd is away")
    first, second = stage.sent_by(executor, task_workload("a"), task_workload("b"))

    stage.report(first, State.SUCCESS)
    stage.report(second, State.SUCCESS)
    assert len(events(executor, 2)) == 2
    sent.failure = None

    told(executor, sent, 1.0, "connected")
    [warning] = said("a metric was not recorded", level=logging.WARNING)
    assert "OSError: statsd is away" in warning


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (RuntimeError("a defect"), "metrics of queues cannot be read"),
        (AccessDenied("may not list consumers"), "a metric was not recorded: may not list"),
    ],
)
def test_a_reading_that_fails_says_so_and_leaves_the_connection_alone(
    fake_stage: FakeStage,
    recorder: Callable[[], Recorder],
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[..., list[str]],
    failure: Exception,
    line: str,
) -> None:
    async def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(FakeBroker, "consumer_infos", fail)
    executor = measured(fake_stage)
    sent = recorder()

    block_until(lambda: said(line, level=logging.WARNING), 10, "the failure to be met")
    told(executor, sent, 0.0, "connected")
    [about] = fake_stage.sent_by(executor, task_workload())
    fake_stage.report(about, State.SUCCESS)
    assert len(events(executor, 1)) == 1
    assert not said("the NATS side of the executor failed")


def test_without_metrics_nothing_is_asked_and_nothing_kept(
    fake_stage: FakeStage, recorder: Callable[[], Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def consumer_infos(_: FakeBroker, stream: str) -> list[Any]:
        asked.append(stream)
        raise BrokerUnavailable("not to be asked")

    async def rest(*_: Any) -> None:
        """Do nothing until the end."""
        await asyncio.Event().wait()

    monkeypatch.setattr(FakeBroker, "consumer_infos", consumer_infos)
    monkeypatch.setattr(Streams, "_miss_queues", rest)  # that looks for deleted queues
    fake_stage.configure(sweep_seconds=0.05, worker_lost_seconds=600)
    executor = fake_stage.executor()
    present(fake_stage)  # without a worker it looks whether the queue is paused
    sent = recorder()
    [about] = fake_stage.sent_by(executor, task_workload())
    fake_stage.report(about, State.RUNNING)
    fake_stage.seen(executor)

    assert executor._connected.dispatcher
    assert executor._connected.dispatcher.telemetry._sent == {}
    assert sent.sent == []
    assert asked == []


@pytest.mark.parametrize("switch", ["True", "False"])
def test_an_idle_loop_costs_nothing(fake_stage: FakeStage, switch: str) -> None:
    """By the CPU time of this thread, with much room for a busy machine."""
    fake_stage.monkeypatch.setenv("AIRFLOW__METRICS__OTEL_ON", switch)
    executor = fake_stage.executor()
    with recording():
        executor.sync()
        rounds = 20_000
        began = time.thread_time()
        for _ in range(rounds):
            executor.sync()
        each = (time.thread_time() - began) / rounds

    assert each < 20e-6


def test_opentelemetry_takes_every_metric(fake_stage: FakeStage) -> None:
    executor = measured(fake_stage)
    reader = InMemoryMetricReader()
    with recording(SafeOtelLogger(MeterProvider(metric_readers=[reader]))):
        [about] = fake_stage.sent_by(executor, task_workload())
        fake_stage.report(about, State.RUNNING)
        fake_stage.seen(executor)
        fake_stage.report(about, State.SUCCESS)
        events(executor, 1)

        def is_complete() -> bool:
            executor.heartbeat()
            found = reader.get_metrics_data()
            names = {
                metric.name
                for resource in (found.resource_metrics if found else ())
                for scope in resource.scope_metrics
                for metric in scope.metrics
            }
            return names >= {f"airflow.nats_executor.{name}" for name in METRICS}

        block_until(is_complete, 10, "every metric to be there")

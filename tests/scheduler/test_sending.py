"""From the scheduler's hands into the task stream."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.executors import workloads
from airflow.utils.state import CallbackState, TaskInstanceState
from pydantic import TypeAdapter

from nats_executor import NatsExecutor
from nats_executor.scheduler import compat
from nats_executor.wire.messages import Kind, State
from tests.remedies.lines import LINES
from tests.scheduler.stage import (
    callback_workload,
    connection_test_workload,
    events,
    queue_up,
    task_workload,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.scheduler.stage import FakeStage, RealStage, Stage


def test_a_task_goes_to_the_subject_of_its_queue_in_an_envelope(stage: Stage) -> None:
    executor = stage.executor()
    task = task_workload("extract", queue="gpu.big", dispatch_id="d-1")

    [sent] = stage.sent_by(executor, task)

    assert stage.subjects() == [stage.names.task("gpu.big", "d-1")]
    assert (sent.dispatch_id, sent.queue, sent.kind) == ("d-1", "gpu.big", Kind.TASK)
    assert sent.key == ["a_dag", "extract", "a_run", 1, -1]
    assert sent.sender == executor._sender
    assert sent.body == task.model_dump(mode="json")
    assert sent.body["token"] == task.token


def test_sentry_and_open_telemetry_keep_their_context(stage: Stage) -> None:
    """The supervisor's own reading of what arrives holds what the scheduler put in."""
    task = task_workload("extract")
    task.sentry_integration = "a_package.an_integration"
    task.ti.context_carrier = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-01"}

    [sent] = stage.sent_by(stage.executor(), task)
    arrived = TypeAdapter(workloads.ExecutorWorkload).validate_python(sent.body)

    assert isinstance(arrived, workloads.ExecuteTask)
    assert arrived.sentry_integration == task.sentry_integration
    assert arrived.ti.context_carrier == task.ti.context_carrier


# Bands of the default setting; what has no priority goes into the most urgent one.
HIGHEST = 2


@pytest.mark.parametrize(
    ("priority", "band"), [(-5, 0), (1, 0), (9, 0), (10, 1), (99, 1), (100, 2), (10**6, 2)]
)
def test_a_task_goes_into_the_band_of_its_priority(stage: Stage, priority: int, band: int) -> None:
    task = task_workload(dispatch_id="d-1", priority=priority)

    stage.sent_by(stage.executor(), task)

    assert stage.subjects() == [stage.names.task("default", "d-1", band)]


def test_a_limited_queue_has_one_band_and_its_consumer_the_limit(stage: Stage) -> None:
    stage.configure(queue_limits="gpu=4")
    task = task_workload(dispatch_id="d-1", priority=1000, queue="gpu")

    stage.sent_by(stage.executor(), task)

    assert stage.subjects() == [stage.names.task("gpu", "d-1")]
    [info] = stage.ask("consumer_infos", stage.names.tasks_stream)
    config = stage.ask("consumer_config", stage.names.tasks_stream, info.name)
    assert config["max_ack_pending"] == 4


def test_a_callback_goes_to_the_default_queue(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_QUEUE", "everything")
    callback = callback_workload(text="hello")

    [sent] = stage.sent_by(stage.executor(), callback)

    assert stage.subjects() == [stage.names.task("everything", callback.callback.id, HIGHEST)]
    assert (sent.kind, sent.key) == (Kind.CALLBACK, [callback.callback.id])
    assert sent.body["callback"]["data"]["kwargs"] == {"text": "hello"}


@pytest.mark.parametrize(("queue", "found"), [(None, "default"), ("gpu", "gpu")])
def test_a_connection_test_goes_to_its_queue(stage: Stage, queue: str | None, found: str) -> None:
    test = connection_test_workload(queue)

    [sent] = stage.sent_by(stage.executor(), test)

    assert stage.subjects() == [stage.names.task(found, str(test.connection_test_id), HIGHEST)]
    assert (sent.kind, sent.key) == (Kind.CONNECTION_TEST, [str(test.connection_test_id)])
    assert sent.body["connection_id"] == "a_connection"


def test_callbacks_go_first_and_then_the_highest_priority(stage: Stage) -> None:
    executor = stage.executor()
    weights = [3, 11, -2, 7, 100]
    tasks = [task_workload(f"t{weight}", priority=weight) for weight in weights]

    sent = stage.sent_by(executor, *tasks, callback_workload())

    names = [w.key[1] if w.kind == Kind.TASK else w.kind for w in sent]
    assert names == [Kind.CALLBACK, "t100", "t11", "t7", "t3", "t-2"]


def test_a_full_executor_sends_the_highest_priority_only(stage: Stage) -> None:
    executor = stage.executor(parallelism=2)
    queue_up(executor, *[task_workload(f"t{weight}", priority=weight) for weight in (1, 3, 2)])

    executor.heartbeat()

    assert [workload.key[1] for workload in stage.sent()] == ["t3", "t2"]


def test_slots_are_taken_from_queueing_to_the_end(fake_stage: FakeStage) -> None:
    executor = fake_stage.executor(parallelism=10)
    queue_up(executor, task_workload("a"), task_workload("b"), callback_workload())
    assert executor.slots_available == 7

    executor.heartbeat()
    assert executor.slots_available == 7
    assert len(executor.running) == 3

    for workload in fake_stage.sent():
        fake_stage.report(workload, State.SUCCESS)
    events(executor, 3)
    assert executor.slots_available == 10
    assert executor.running == set()
    assert len(executor._events.ledger) == 0


def test_nothing_is_opened_by_the_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server and the CLI construct executors, with whatever configuration they have."""
    monkeypatch.setenv("AIRFLOW__NATS_EXECUTOR__ACK_WAIT_SECONDS", "nonsense")
    NatsExecutor()  # imports and caches of the first one do not count
    before = (threading.enumerate(), descriptors(), children())

    executor = NatsExecutor(parallelism=4)

    assert (threading.enumerate(), descriptors(), children()) == before
    executor.heartbeat()  # harmless, although nobody started it
    executor.end()


def descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


def children() -> str:
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()


def test_a_task_without_an_id_gets_one_and_keeps_its_slot(stage: Stage) -> None:
    """A task that names its executor by the bare class name gets none from the scheduler."""
    executor = stage.executor()
    task = task_workload(dispatch_id=None)

    [sent] = stage.sent_by(executor, task)

    assert dict(executor.get_event_buffer()) == {
        compat.key_of(task): (TaskInstanceState.QUEUED, sent.dispatch_id)
    }
    assert executor.running == {compat.key_of(task)}
    stage.report(sent, State.SUCCESS)
    assert events(executor) == {compat.key_of(task): (TaskInstanceState.SUCCESS, None)}


def test_an_assigned_id_is_not_announced_again(stage: Stage) -> None:
    executor = stage.executor()

    stage.sent_by(executor, task_workload())

    assert dict(executor.get_event_buffer()) == {}


@pytest.mark.parametrize("dispatch_id", ["", None], ids=["assigned", "minted"])
def test_a_lost_answer_does_not_send_twice(fake_stage: FakeStage, dispatch_id: str | None) -> None:
    executor = fake_stage.executor()
    scheduler = next(b for b in fake_stage.server.brokers if b is not fake_stage.broker)
    scheduler.lose_next_pubacks()
    task = task_workload(dispatch_id=dispatch_id)
    queue_up(executor, task)

    executor.heartbeat()
    assert executor.running == set()
    fake_stage.server.advance(3600)  # beyond the server's window for duplicates
    executor._outage.over()
    executor.heartbeat()

    assert executor.running == {compat.key_of(task)}
    assert len(fake_stage.sent()) == 1


def test_what_is_too_large_fails_alone_and_says_why(real_stage: RealStage) -> None:
    executor = real_stage.executor()
    large = callback_workload(text="x" * 2_000_000)
    small = task_workload("small")

    queue_up(executor, large, small)
    executor.heartbeat()

    [(key, (state, info))] = executor.get_event_buffer().items()
    assert (key, state) == (compat.key_of(large), CallbackState.FAILED)
    assert "max_payload is 1048576" in info
    assert [workload.key[1] for workload in real_stage.sent()] == ["small"]
    assert executor.running == {compat.key_of(small)}
    assert executor.slots_occupied == 1


@pytest.mark.parametrize(
    "value", [2**70, "half a pair \ud800"], ids=["huge number", "lone surrogate"]
)
def test_what_cannot_be_encoded_fails_alone_and_says_why(
    fake_stage: FakeStage, value: object
) -> None:
    executor = fake_stage.executor()
    odd = callback_workload(value=value)
    good = task_workload("good")

    queue_up(executor, odd, good)
    executor.heartbeat()

    [(key, (state, info))] = executor.get_event_buffer().items()
    assert (key, state) == (compat.key_of(odd), CallbackState.FAILED)
    assert "cannot be sent over NATS" in info
    assert [workload.key[1] for workload in fake_stage.sent()] == ["good"]
    assert executor.slots_occupied == 1


def test_what_is_nested_too_deep_fails_alone_and_says_why(fake_stage: FakeStage) -> None:
    value: list[Any] = []
    for _ in range(200):
        value = [value]
    executor = fake_stage.executor()
    deep = callback_workload(value=value)
    good = task_workload("good")

    queue_up(executor, deep, good)
    executor.heartbeat()

    assert executor.get_event_buffer() == {
        compat.key_of(deep): (CallbackState.FAILED, LINES["too deep"])
    }
    assert [workload.key[1] for workload in fake_stage.sent()] == ["good"]


def test_a_queue_that_no_worker_can_be_told_to_serve_fails_its_task_at_once(
    fake_stage: FakeStage,
) -> None:
    """Sent, it would wait for ever: no command line holds such a name."""
    executor = fake_stage.executor()
    odd, good = task_workload("odd", queue="a\0b"), task_workload("good", queue="a\n,b")

    queue_up(executor, odd, good)
    executor.heartbeat()

    [(key, (state, info))] = executor.get_event_buffer().items()
    assert (key, state) == (compat.key_of(odd), TaskInstanceState.FAILED)
    assert info.endswith("'a\\x00b': no command line can hold a name with a NUL character")
    assert [workload.queue for workload in fake_stage.sent()] == ["a\n,b"]


def test_many_workloads_go_out_in_one_heartbeat(stage: Stage) -> None:
    executor = stage.executor(parallelism=2000)
    tasks = [task_workload(f"t{n}", queue=f"q{n % 3}") for n in range(1500)]

    sent = stage.sent_by(executor, *tasks)

    assert len(sent) == len(executor.running) == 1500
    assert {w.dispatch_id for w in sent} == {t.ti.external_executor_id for t in tasks}


def test_every_queue_gets_a_consumer(stage: Stage, said: Callable[[str], list[str]]) -> None:
    executor = stage.executor()

    stage.sent_by(executor, task_workload(queue="a"), task_workload("u", queue="b c"))

    found = stage.ask("consumer_infos", stage.names.tasks_stream)
    bands = {(info.queue, info.band): info.pending for info in found}
    waiting = {("a", 0): 1, ("b c", 0): 1}
    assert bands == {(queue, band): 0 for queue in ("a", "b c") for band in range(3)} | waiting
    assert said("NATS is away") == []

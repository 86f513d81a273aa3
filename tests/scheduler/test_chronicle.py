"""The scheduler writes down what queues are like, and other schedulers' words stay."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from nats_executor.errors import AccessDenied, BrokerUnavailable
from nats_executor.fleet.histories import seen_histories
from nats_executor.scheduler.chronicle import MOST_HISTORIES, Chronicle, Step, minutes_of
from nats_executor.wire.history import Minute, minutes_until
from nats_executor.wire.messages import State
from tests.scheduler.stage import task_workload
from tests.support.fake_broker import FakeBroker
from tests.support.fixtures import settings_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_executor import NatsExecutor
    from nats_executor.broker.port import Broker
    from tests.scheduler.stage import FakeStage, Stage

MINUTE = 1000


def write(executor: NatsExecutor, minute: int = MINUTE) -> None:
    """Have an executor write, as it does at the end of a minute."""
    connected = executor._connected
    assert connected
    dispatcher = connected.dispatcher
    broker = dispatcher.require_broker()
    connected.bridge.call(dispatcher.chronicle.write(broker, minute), timeout=10)


def last_minutes(stage: Stage, minute: int = MINUTE) -> dict[str, Minute]:
    """Return what is written of a minute."""
    found = stage.portal.call(seen_histories, stage.broker, stage.names)
    return {queue: minutes_until(history, minute)[-1] for queue, history in found.items()}


def test_steps_are_summed_up_by_queue() -> None:
    steps = [Step("a", 10), Step("a", 20), Step("b", None), Step("a", None)]

    depths, ages = {"a": 3, "c": 4, "idle": 0}, {"a": 7, "b": 8, "idle": 9}

    assert minutes_of(steps, depths, ages) == {
        "a": Minute(depth=3, started=2, waited=30, ended=1, oldest=7),
        "b": Minute(ended=1),
        "c": Minute(depth=4),
    }


def test_of_too_many_queues_the_busiest_count() -> None:
    depths = {f"q{number:04}": number for number in range(1, MOST_HISTORIES + 3)}

    found = minutes_of([Step("q0001", 10_000)], depths, {})

    assert len(found) == MOST_HISTORIES == 1000
    assert depths.keys() - found.keys() == {"q0002", "q0003"}


def test_starts_waits_and_ends_are_written(stage: Stage) -> None:
    executor = stage.executor()
    sent = stage.sent_by(
        executor, *(task_workload(f"t{n}") for n in range(3)), task_workload("g", queue="gpu")
    )
    now = time.time()
    stage.report(sent[0], State.RUNNING, at=now + 3600)
    stage.report(sent[1], State.RUNNING, at=now - 3600)  # a clock that is wrong
    stage.seen(executor)
    stage.report(sent[0], State.SUCCESS)
    stage.report(sent[1], State.FAILED)
    stage.seen(executor)

    write(executor)

    found = last_minutes(stage)
    waited = found["default"].waited
    assert found["default"] == Minute(depth=3, started=2, waited=waited, ended=2)
    assert 3_600_000 <= waited < 3_900_000
    assert found["gpu"] == Minute(depth=1)


def test_the_age_of_the_oldest_that_waits_is_written(stage: Stage) -> None:
    executor = stage.executor()
    sent = stage.sent_by(executor, *(task_workload(f"t{n}") for n in range(3)))
    assert executor._connected
    ledger, chronicle = executor._events.ledger, executor._connected.dispatcher.chronicle
    for workload, seconds in zip(sent, (500, 300, 100), strict=True):
        dispatch = ledger.of_id(workload.dispatch_id)
        assert dispatch
        dispatch.since -= seconds
    stage.report(sent[0], State.CLAIMED)  # it waits no more
    stage.seen(executor)
    chronicle.is_due = True
    executor.sync()
    assert not chronicle.is_due

    write(executor)

    assert 300 <= last_minutes(stage)["default"].oldest < 400


def test_a_queue_at_rest_is_not_written_of(stage: Stage) -> None:
    executor = stage.executor()
    [sent] = stage.sent_by(executor, task_workload())
    write(executor)
    stage.ask("remove", stage.names.tasks_stream, stage.subjects()[0])
    before = stage.ask("stream_info", stage.names.holds_stream).last_sequence

    write(executor, MINUTE + 1)

    assert stage.ask("stream_info", stage.names.holds_stream).last_sequence == before
    assert last_minutes(stage, MINUTE + 1) == {sent.queue: Minute()}


def test_two_schedulers_write_one_record(stage: Stage) -> None:
    first, second = stage.executor(job_id=1), stage.executor(job_id=2)
    [one] = stage.sent_by(first, task_workload("a"))
    both = stage.sent_by(second, task_workload("b"))
    [two] = [workload for workload in both if workload != one]
    for executor, workload in ((first, one), (second, two)):
        stage.report(workload, State.SUCCESS)
        stage.seen(executor)

    write(first)
    write(second)

    assert last_minutes(stage)["default"].ended == 2


def test_who_writes_at_the_same_moment_tries_again(
    fake_stage: FakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = fake_stage
    first, second = stage.executor(job_id=1), stage.executor(job_id=2)
    stage.sent_by(first, task_workload())
    publish, is_first = FakeBroker.publish, True

    async def late(broker: FakeBroker, subject: str, *args: object, **options: object) -> object:
        nonlocal is_first
        if is_first and ".history." in subject:
            is_first = False
            step = Step("default", None)
            second._connected.dispatcher.chronicle._steps.append(step)
            await second._connected.dispatcher.chronicle.write(broker, MINUTE)
        return await publish(broker, subject, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(FakeBroker, "publish", late)
    write(first)

    assert last_minutes(stage)["default"] == Minute(depth=1, ended=1)


@pytest.mark.anyio
async def test_a_refusal_ends_it_and_an_absence_does_not(
    monkeypatch: pytest.MonkeyPatch, said: Callable[..., list[str]]
) -> None:
    """Users that were made for the release before have no such grant."""
    answers = iter([BrokerUnavailable("away"), ZeroDivisionError("broken"), AccessDenied("no")])

    async def at_once(_: float) -> None:
        pass

    def require() -> Broker:
        raise next(answers)

    monkeypatch.setattr("nats_executor.scheduler.chronicle.asyncio.sleep", at_once)

    await Chronicle(settings_for("nats://127.0.0.1")).write_forever(require)

    assert next(answers, None) is None
    assert len(said("the last hour of queues is not kept; next: trying again")) == 1


def test_a_record_that_cannot_be_read_is_replaced(stage: Stage) -> None:
    executor = stage.executor()
    stage.sent_by(executor, task_workload())
    stage.ask("publish", stage.names.queue_history("default"), b"rubbish")
    assert last_minutes(stage) == {}

    write(executor)

    assert last_minutes(stage) == {"default": Minute(depth=1)}

"""A broker that is away, wrong or hung: the scheduler goes on, and nothing is lost or doubled."""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from airflow.models.taskinstancekey import TaskInstanceKey

from nats_executor.errors import AccessDenied
from nats_executor.scheduler import compat
from nats_executor.wire.messages import State
from tests.scheduler.stage import (
    RealStage,
    callback_workload,
    connection_test_workload,
    events,
    queue_up,
    task_workload,
    unserved,
)
from tests.support.fake_broker import FakeBroker
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nats_executor import NatsExecutor
    from nats_executor.wire.names import Names
    from tests.scheduler.stage import FakeStage
    from tests.support.nats_server import NatsServer

# Less than the least of the time-outs that a call must not wait for, 5 s. A call into a broker that
# hangs may take `publish_timeout_seconds`, 1 where one does; the rest is for a busy machine.
BOUND = 4.5


@contextmanager
def bounded() -> Iterator[None]:
    """Fail when what the scheduler's thread does takes too long."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < BOUND


def waiting_task(ti_id: object = uuid.UUID(int=0)) -> Any:
    """A task instance as the sweep over stuck ones passes it, without a database."""
    row: dict[str, Any] = {
        "dag_id": "a_dag",
        "task_id": "t",
        "run_id": "a_run",
        "map_index": -1,
        "try_number": 1,
    }
    return SimpleNamespace(
        **row,
        id=ti_id,
        key=TaskInstanceKey(**row),
        queue="default",
        priority_weight=1,
        state="queued",
        external_executor_id="d-1",
    )


def everything(executor: NatsExecutor) -> None:
    """Call whatever the scheduler calls, in a broker's absence."""
    ti = waiting_task()
    with bounded():
        executor.heartbeat()
    with bounded():
        executor.sync()
    unserved(executor)
    with bounded():
        executor.revoke_task(ti=waiting_task(uuid.UUID(int=1)))
    with bounded():
        assert executor.try_adopt_task_instances([ti]) == []
    with bounded():
        executor.heartbeat()


@pytest.fixture(autouse=True)
def identities_without_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nats_executor.scheduler.database.object_session", lambda _: None)


def all_arrive(
    stage: FakeStage | RealStage, executor: NatsExecutor, count: int, *, besides: str = ""
) -> None:
    def beat() -> bool:
        executor.heartbeat()
        return bool(count == executor.slots_occupied == len(executor.running))

    block_until(beat, 20, "everything to be sent")
    sent = Counter(w.dispatch_id for w in stage.sent() if w.dispatch_id != besides)
    assert len(sent) == count
    assert set(sent.values()) == {1}


def test_a_broker_that_is_away_at_the_start(
    real_stage: RealStage,
    said: Callable[..., list[str]],
) -> None:
    real_stage.server.stop()
    with bounded():
        executor = real_stage.executor()
    queue_up(executor, task_workload("a"), callback_workload(), connection_test_workload())

    for _ in range(3):
        executor.heartbeat()

    assert executor.slots_occupied == 3
    assert executor.running == set()
    [line] = said("NATS is away", level=logging.WARNING)
    assert "cannot reach NATS at nats://127.0.0.1" in line
    assert "next: starting without it; workloads stay queued until it is there" in line
    real_stage.start()
    all_arrive(real_stage, executor, 3)
    assert len(said("NATS is back")) == 1


def test_a_broker_that_goes_away_in_the_middle(
    real_stage: RealStage,
    said: Callable[..., list[str]],
) -> None:
    executor = real_stage.executor()
    first = task_workload("first")
    [sent] = real_stage.sent_by(executor, first)
    real_stage.server.kill()
    queue_up(executor, *[task_workload(f"t{n}") for n in range(20)])

    everything(executor)

    assert len(said("NATS is away")) == 1
    assert executor.slots_occupied == 22  # 20, the first one, and what was adopted on trust
    real_stage.start()
    block_until(
        lambda: executor._connected.dispatcher and not executor._connected.dispatcher.trouble,
        60,
        "recovery",
    )
    real_stage.report(sent, State.SUCCESS)
    assert list(events(executor)) == [compat.key_of(first)]
    executor.running.discard(waiting_key(executor))
    all_arrive(real_stage, executor, 20, besides=sent.dispatch_id)


def waiting_key(executor: NatsExecutor) -> Any:
    """The key of what was adopted."""
    key = compat.key_of_task(waiting_task(), waiting_task().key)
    assert key in executor.running
    return key


def test_a_broker_that_hangs(
    real_stage: RealStage,
    said: Callable[..., list[str]],
) -> None:
    real_stage.configure(publish_timeout_seconds=1)
    executor = real_stage.executor()
    real_stage.server.pause()
    try:
        queue_up(executor, *[task_workload(f"t{n}") for n in range(20)])
        everything(executor)
        start = time.monotonic()
        for _ in range(50):  # while it is away, asking costs nothing
            executor.heartbeat()
        assert time.monotonic() - start < BOUND
        assert executor.slots_occupied == 21
        [line] = said("NATS is away")
        assert "20 workloads left in the queue, to be sent later" in line
    finally:
        real_stage.server.resume()

    executor.running.discard(waiting_key(executor))
    all_arrive(real_stage, executor, 20)


def test_a_batch_that_takes_too_long_goes_on_where_it_was(
    fake_stage: FakeStage, monkeypatch: pytest.MonkeyPatch, said: Callable[..., list[str]]
) -> None:
    """Started again with each heartbeat, a large one would never end."""
    monkeypatch.setattr("nats_executor.scheduler.dispatcher.WINDOW", 1)
    fake_stage.configure(publish_timeout_seconds=1)
    executor = fake_stage.executor()
    asked: list[str] = []
    clock = 0.0
    publish = FakeBroker.publish

    async def slowly(broker: FakeBroker, subject: str, *args: Any, **options: Any) -> int:
        nonlocal clock
        asked.append(subject)
        clock += 0.2  # of one second, in whose first half a window may begin
        return await publish(broker, subject, *args, **options)

    monkeypatch.setattr(FakeBroker, "publish", slowly)
    monkeypatch.setattr("nats_executor.scheduler.dispatcher.time", Mock(monotonic=lambda: clock))
    queue_up(executor, *[task_workload(f"t{n}") for n in range(5)])

    executor.heartbeat()
    assert len(executor._events.ledger) == len(asked) == 3
    executor.heartbeat()

    assert len(executor._events.ledger) == len(set(asked)) == len(asked) == 5
    assert said("NATS is away") == []


def test_a_hundred_revocations_while_the_broker_hangs(real_stage: RealStage) -> None:
    executor = real_stage.executor()
    unserved(executor)
    real_stage.server.pause()
    try:
        with bounded():
            for n in range(100):
                executor.revoke_task(ti=waiting_task(n))
    finally:
        real_stage.server.resume()


def test_a_revocation_while_the_broker_is_away_is_carried_out_later(
    real_stage: RealStage, said: Callable[..., list[str]]
) -> None:
    executor = real_stage.executor()
    stuck = task_workload("t", dispatch_id="d-1")
    real_stage.sent_by(executor, stuck)
    real_stage.sent_by(executor, task_workload("u", dispatch_id="d-2"))
    unserved(executor)
    real_stage.server.stop()

    executor.revoke_task(ti=waiting_task(stuck.ti.id))

    assert executor.slots_occupied == 1
    block_until(lambda: said("cannot revoke d-1"), 5, "the warning")
    assert "next: trying again until it is done" in said("cannot revoke d-1")[0]
    real_stage.start()
    block_until(lambda: [w.dispatch_id for w in real_stage.sent()] == ["d-2"], 15, "the revocation")
    assert len(said("cannot revoke")) == 1


def test_a_wrong_password(
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
    make_nats_server: Callable[..., NatsServer],
    said: Callable[..., list[str]],
) -> None:
    server = make_nats_server(config="authorization { users: [{user: right, password: right}] }")
    stage = RealStage(names, monkeypatch, server)
    stage.configure(user="scheduler", password="wrong-and-secret")
    executor = stage.executor()
    try:
        queue_up(executor, task_workload("waits"))

        everything(executor)

        [line] = said("NATS denies access")
        assert "refuses user scheduler" in line
        assert "check [nats_executor] user" in line
        assert said("wrong-and-secret", level=logging.DEBUG) == []
        # The connection, the executor and the revocation each say once what they do next.
        assert len(said("refuses user scheduler", level=logging.WARNING)) == 3
        assert "trying again until it is done" in said("cannot revoke d-1")[0]
        assert executor.slots_occupied == 2
    finally:
        executor.end()
        stage.exits.close()


def test_an_existing_stream_that_cannot_work(
    real_stage: RealStage, said: Callable[..., list[str]]
) -> None:
    name = real_stage.names.tasks_stream
    config = {"name": name, "subjects": [real_stage.names.tasks()], "retention": "interest"}
    real_stage.ask("create_stream", config)
    executor = real_stage.executor()
    queue_up(executor, task_workload())

    for _ in range(5):
        executor.heartbeat()

    [line] = said("cannot be changed in place", level=logging.ERROR)
    assert f"stream {name}: retention is 'interest', should be 'workqueue'" in line
    assert "airflow nats setup" in line
    assert "next: trying again, workloads stay queued" in line
    assert executor.slots_occupied == 1
    real_stage.ask("_call", f"STREAM.DELETE.{name}")
    all_arrive(real_stage, executor, 1)


def test_a_stream_that_differs_harmlessly(
    real_stage: RealStage, said: Callable[..., list[str]]
) -> None:
    real_stage.executor().end()
    real_stage.configure(result_retention_seconds=60)

    executor = real_stage.executor()
    queue_up(executor, task_workload())
    all_arrive(real_stage, executor, 1)

    [line] = said("max_age", level=logging.WARNING)
    assert "should be 60000000000" in line
    assert line.endswith(": run `airflow nats setup`; next: going on with it")


def test_a_queue_that_differs_is_left_alone_and_said_once(
    real_stage: RealStage, said: Callable[..., list[str]]
) -> None:
    """Two releases, or two configurations, would take a setting from each other for ever."""
    [first] = real_stage.sent_by(real_stage.executor(), task_workload("first"))
    arrive = partial(all_arrive, real_stage, besides=first.dispatch_id)
    real_stage.configure(ack_wait_seconds=77, queue_limits="other=3")

    executor = real_stage.executor()
    queue_up(executor, task_workload("second"))
    arrive(executor, 1)
    dispatcher = executor._connected.dispatcher
    assert dispatcher
    recoveries = dispatcher.recoveries
    real_stage.restart()
    block_until(lambda: dispatcher.recoveries > recoveries, 20, "a look at the streams")
    reopened = dispatcher._streams._reopens
    block_until(lambda: not reopened.is_set(), 20, "a look at the queue")

    config = real_stage.ask("consumer_config", real_stage.names.tasks_stream, "default")
    assert config["ack_wait"] == 30 * 10**9
    lines = said("consumer of queue 'default': ack_wait is", level=logging.WARNING)
    assert len(lines) == 1
    assert "run `airflow nats setup`; next: going on with it" in lines[0]


def test_a_broker_that_comes_back_without_its_data(real_stage: RealStage) -> None:
    executor = real_stage.executor()
    real_stage.sent_by(executor, task_workload("lost"))
    real_stage.server.kill()
    real_stage.server.wipe_storage()
    real_stage.start()

    new = task_workload("new")
    queue_up(executor, new)

    def beat() -> bool:
        executor.heartbeat()
        return compat.key_of(new) in executor.running

    block_until(beat, 20, "the new task to be sent")
    [sent] = real_stage.sent()
    assert sent.key[1] == "new"

    def is_offered() -> bool:  # once the consumers are there again
        infos = real_stage.ask("consumer_infos", real_stage.names.tasks_stream)
        return [info.pending for info in infos if info.queue == "default" and not info.band] == [1]

    block_until(is_offered, 20, "the consumer")
    results = real_stage.names.results_stream
    block_until(lambda: real_stage.ask("stream_info", results), 20, "the stream of reports")
    real_stage.report(sent, State.SUCCESS)
    assert list(events(executor)) == [compat.key_of(new)]


def test_a_user_who_may_not_publish_does_not_make_the_scheduler_hot(
    fake_stage: FakeStage, said: Callable[..., list[str]]
) -> None:
    executor = fake_stage.executor()
    scheduler = next(b for b in fake_stage.server.brokers if b is not fake_stage.broker)
    denied = AccessDenied("NATS user scheduler may not publish")
    scheduler.fail_next("publish", 1000, denied)
    queue_up(executor, task_workload())

    for _ in range(20):
        executor.heartbeat()

    assert len(scheduler.failures["publish"]) >= 998
    assert len(said(str(denied))) == 1
    scheduler.failures["publish"].clear()
    all_arrive(fake_stage, executor, 1)


def test_an_unexpected_error_is_logged_and_does_not_end_the_scheduler(
    fake_stage: FakeStage, said: Callable[..., list[str]]
) -> None:
    executor = fake_stage.executor()
    scheduler = next(b for b in fake_stage.server.brokers if b is not fake_stage.broker)
    scheduler.fail_next("publish", error=KeyError("seq"))
    queue_up(executor, task_workload())

    executor.heartbeat()

    assert len(said("a call to NATS failed", level=logging.ERROR)) == 1
    all_arrive(fake_stage, executor, 1)


def test_a_crash_of_the_nats_side_is_survived(
    fake_stage: FakeStage, said: Callable[..., list[str]]
) -> None:
    executor = fake_stage.executor()
    [sent] = fake_stage.sent_by(executor, task_workload())
    scheduler = next(b for b in fake_stage.server.brokers if b is not fake_stage.broker)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nats_executor.scheduler.reports.decode", Mock(side_effect=OSError))
        fake_stage.report(sent, State.RUNNING)
        block_until(lambda: scheduler not in fake_stage.server.brokers, 5, "the crash")

    fake_stage.report(sent, State.SUCCESS)
    assert len(events(executor)) == 1
    assert len(said("the NATS side of the executor failed; next: starting it again")) == 1

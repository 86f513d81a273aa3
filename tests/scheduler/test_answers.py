"""What an executor says of itself to people who ask."""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Any

import pytest

import nats_executor
from nats_executor.errors import (
    AccessDenied,
    BrokerUnavailable,
    LimitReached,
    NoResponders,
    TopologyMismatch,
)
from nats_executor.operations.schedulers import executor_states, state_of_executor
from nats_executor.scheduler import compat
from nats_executor.wire.messages import State
from nats_executor.wire.names import SchedulerVerb
from tests.scheduler.stage import queue_up, task_workload
from tests.support.fake_broker import FakeBroker
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_executor.wire.scheduler_answers import ExecutorState
    from tests.scheduler.stage import FakeStage, Stage


def asked(stage: Stage, job: str = "7") -> ExecutorState:
    """Ask an executor as soon as it hears questions, and return its answer."""

    def ask() -> ExecutorState | None:
        return stage.portal.call(state_of_executor, stage.broker, stage.names, job).state

    state: ExecutorState = block_until(ask, 20, f"the executor of job {job} to answer")
    return state


def test_an_executor_says_what_it_is_and_holds(stage: Stage) -> None:
    executor = stage.executor(parallelism=2)
    sent, more, waiting = task_workload("sent"), task_workload("more"), task_workload("waiting")
    stage.sent_by(executor, sent, more)
    queue_up(executor, waiting)

    before = time.time()
    state = asked(stage)

    assert (state.job, state.sender) == ("7", executor._sender)
    assert (state.version, state.airflow_version, state.python_version) == (
        nats_executor.__version__, compat.airflow_version, platform.python_version(),
    )  # fmt: skip
    assert (state.running, state.parallelism, state.tracked, state.waiting) == (2, 2, 2, 1)
    assert (state.trouble, state.trouble_since, state.refused) == ("", 0.0, [])
    assert before <= state.at <= time.time()
    assert state.connected_since <= state.at

    [dispatch] = [w for w in stage.sent() if w.dispatch_id == sent.ti.external_executor_id]
    stage.report(dispatch, State.SUCCESS)

    def is_over() -> bool:
        executor.sync()
        return asked(stage).tracked == 1

    block_until(is_over, 10, "the end of a workload to be counted")
    assert asked(stage).running == 1


def test_every_executor_is_asked_and_one_that_is_silent_says_why(stage: Stage) -> None:
    stage.executor(job_id=7)
    stage.executor(job_id=8)
    for job in ("7", "8"):
        asked(stage, job)

    seven, eight, none = stage.portal.call(
        executor_states, stage.broker, stage.names, ["7", "8", "9"]
    )

    assert [seven.state and seven.state.job, eight.state and eight.state.job] == ["7", "8"]
    assert none.state is None
    assert "no connection to NATS" in none.silence


def test_it_says_since_when_nothing_can_be_sent_and_why(fake_stage: FakeStage) -> None:
    executor = fake_stage.executor()
    asked(fake_stage)
    reason = BrokerUnavailable("no leader")
    executor._outage.note(reason, "waiting")
    began = time.time()

    first = asked(fake_stage)
    executor._outage.note(BrokerUnavailable("still no leader"), "waiting")
    later = asked(fake_stage)
    executor._outage.over()

    assert first.trouble == "no leader"
    assert began - 5 < first.trouble_since <= first.at
    assert later.trouble == "still no leader"
    assert abs(later.trouble_since - first.trouble_since) < 1
    assert asked(fake_stage).trouble == ""


def test_it_says_why_workloads_of_one_queue_are_refused(
    fake_stage: FakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = fake_stage.executor()
    create = FakeBroker.create_consumer

    async def refuse(broker: FakeBroker, stream: str, config: dict[str, Any]) -> None:
        if config["durable_name"].startswith("odd"):
            raise TopologyMismatch("odd cannot be changed")
        await create(broker, stream, config)

    with monkeypatch.context() as patch:
        patch.setattr(FakeBroker, "create_consumer", refuse)
        queue_up(executor, task_workload("one", queue="odd"), task_workload("two", queue="odd"))
        executor.heartbeat()
        state = asked(fake_stage)

        assert (state.refused, state.waiting) == (["odd cannot be changed"], 2)
        assert state.trouble == ""
    executor.heartbeat()
    state = asked(fake_stage)
    assert (state.refused, state.waiting) == ([], 0)


def test_a_limit_that_refuses_many_queues_is_logged_once_and_stops_no_other(
    fake_stage: FakeStage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    executor = fake_stage.executor(parallelism=500)
    create = FakeBroker.create_consumer
    odd = [f"odd{number}" for number in range(120)]

    async def refuse(broker: FakeBroker, stream: str, config: dict[str, Any]) -> None:
        if config["durable_name"].startswith("odd"):
            raise LimitReached(f"no room for {config['durable_name']}")
        await create(broker, stream, config)

    with monkeypatch.context() as patch:
        patch.setattr(FakeBroker, "create_consumer", refuse)
        queue_up(executor, task_workload("other", queue="other"))
        queue_up(executor, *(task_workload(queue, queue=queue) for queue in odd))
        for _ in range(2):
            executor.heartbeat()
        state = asked(fake_stage)

        assert (state.waiting, len(state.refused), state.trouble) == (120, 20, "")
        assert caplog.text.count("its workloads stay queued") == 1
    executor.heartbeat()
    state = asked(fake_stage)
    assert (state.refused, state.waiting) == ([], 0)


def test_texts_in_an_answer_are_bounded(fake_stage: FakeStage) -> None:
    executor = fake_stage.executor()
    asked(fake_stage)
    executor._outage.note(BrokerUnavailable("\x1b[2J" + "x" * 100_000), "waiting")
    executor._connected.answers.refused = ("y" * 100_000,) * 1000

    state = asked(fake_stage)

    assert len(state.trouble) == 500
    assert state.trouble.isprintable()
    assert [len(text) for text in state.refused] == [500] * 20


def test_an_executor_whose_login_may_not_listen_goes_on(
    fake_stage: FakeStage, monkeypatch: pytest.MonkeyPatch, said: Callable[[str], list[str]]
) -> None:
    """As that of the release before."""

    async def deny(_broker: FakeBroker, subject: str, _reply: Any) -> None:
        raise AccessDenied(f"may not listen on {subject}")

    monkeypatch.setattr(FakeBroker, "serve", deny)
    executor = fake_stage.executor()

    [workload] = fake_stage.sent_by(executor, task_workload())

    assert workload.sender == executor._sender
    block_until(lambda: said("may not listen on"), 10, "the denial to be told")
    subject = fake_stage.names.scheduler("7", SchedulerVerb.STATE)
    with pytest.raises(NoResponders):
        fake_stage.ask("request", subject, b"", timeout=1.0)


def test_an_answer_that_cannot_be_read_says_so(fake_stage: FakeStage) -> None:
    subject = fake_stage.names.scheduler("7", SchedulerVerb.STATE)

    async def lie(_question: bytes) -> bytes:
        return b"\x91" * 5000

    fake_stage.ask("serve", subject, lie)

    found = fake_stage.portal.call(state_of_executor, fake_stage.broker, fake_stage.names, "7")

    assert found.state is None
    assert found.silence.startswith("its answer cannot be read: ")


def test_it_tells_what_it_knows_of_one_dispatch(stage: Stage) -> None:
    executor = stage.executor()
    asked(stage)
    [sent] = stage.sent_by(executor, task_workload())

    def ask(dispatch_id: str) -> ExecutorState:
        state = stage.portal.call(
            state_of_executor, stage.broker, stage.names, "7", dispatch_id
        ).state
        assert state
        return state

    assert ask("another").is_tracked is False
    first = ask(sent.dispatch_id)
    assert (first.is_tracked, first.dispatch_state, first.dispatch_worker) == (True, "", "")

    stage.report(sent, State.RELEASED, worker_name="w\x1b", info="no memory\x1b")

    def is_read() -> bool:
        executor.sync()
        return ask(sent.dispatch_id).dispatch_state == "released"

    block_until(is_read, 20, "the report to be read")
    last = ask(sent.dispatch_id)
    assert last.dispatch_worker == "w\N{REPLACEMENT CHARACTER}"
    assert last.returned_for == "no memory\N{REPLACEMENT CHARACTER}"

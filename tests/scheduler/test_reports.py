"""From a worker's reports to the scheduler's event buffer."""

from __future__ import annotations

import base64
import json
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.connection_test import ConnectionTestState
from airflow.utils.state import CallbackState, TaskInstanceState

from nats_executor.scheduler import compat
from nats_executor.wire.messages import Kind, Report, State, encode
from tests.scheduler.stage import callback_workload, connection_test_workload, events, task_workload
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_executor.broker.port import Stored
    from tests.scheduler.stage import FakeStage, Stage


def test_a_success_becomes_an_event_and_frees_the_slot(stage: Stage) -> None:
    executor = stage.executor()
    task = task_workload()
    [sent] = stage.sent_by(executor, task)

    stage.report(sent, State.CLAIMED)
    stage.report(sent, State.RUNNING, pid=123)
    stage.report(sent, State.SUCCESS)

    assert events(executor) == {compat.key_of(task): (TaskInstanceState.SUCCESS, None)}
    assert executor.running == set()


def test_a_failure_becomes_an_event_with_its_reason_and_a_line_in_the_audit_log(
    stage: Stage,
) -> None:
    executor = stage.executor()
    task = task_workload()
    [sent] = stage.sent_by(executor, task)

    stage.report(sent, State.FAILED, info="the task process was ended by SIGKILL")

    assert events(executor) == {
        compat.key_of(task): (
            TaskInstanceState.FAILED,
            "the task process was ended by SIGKILL",
        )
    }
    assert executor.running == set()
    [line] = executor._task_event_logs
    assert (line.task_id, line.extra) == ("t", "the task process was ended by SIGKILL")


def test_why_a_worker_gives_a_task_back_is_in_the_audit_log_once(stage: Stage) -> None:
    """It may come again every few seconds, until a worker can start it."""
    executor = stage.executor()
    task = task_workload()
    [sent] = stage.sent_by(executor, task)

    for info in ("no API server", "no API server", "its start hung"):
        stage.report(sent, State.CLAIMED)
        stage.report(sent, State.RELEASED, info=info)
        stage.seen(executor)

    assert dict(executor.get_event_buffer()) == {}
    assert executor.running == {compat.key_of(task)}
    assert [str(line.extra).partition(": ")[2] for line in executor._task_event_logs] == [
        "no API server",
        "its start hung",
    ]


def test_what_airflow_no_longer_wants_frees_its_slot_without_an_event(stage: Stage) -> None:
    executor = stage.executor()
    [sent] = stage.sent_by(executor, task_workload())

    stage.report(sent, State.DROPPED, info="the task instance is success")
    stage.seen(executor)

    assert executor.running == set()
    assert dict(executor.get_event_buffer()) == {}


@pytest.mark.parametrize("state", [State.CLAIMED, State.RUNNING, State.RELEASED])
def test_a_task_that_is_not_over_makes_no_event(stage: Stage, state: State) -> None:
    """Airflow knows from its own API server that a task runs."""
    executor = stage.executor()
    task = task_workload()
    [sent] = stage.sent_by(executor, task)

    stage.report(sent, state)
    stage.seen(executor)

    assert dict(executor.get_event_buffer()) == {}
    assert executor.running == {compat.key_of(task)}


def test_a_callback_is_running_then_over(stage: Stage) -> None:
    executor = stage.executor()
    callback = callback_workload()
    [sent] = stage.sent_by(executor, callback)

    stage.report(sent, State.RUNNING)
    stage.report(sent, State.RUNNING)
    assert events(executor) == {compat.key_of(callback): (CallbackState.RUNNING, sent.dispatch_id)}
    assert executor.running == {compat.key_of(callback)}

    stage.report(sent, State.FAILED, info="RuntimeError: exit code 1")
    assert events(executor) == {
        compat.key_of(callback): (CallbackState.FAILED, "RuntimeError: exit code 1")
    }
    assert executor.running == set()


def test_a_connection_test_frees_its_slot(stage: Stage) -> None:
    executor = stage.executor()
    test = connection_test_workload()
    [sent] = stage.sent_by(executor, test)

    stage.report(sent, State.SUCCESS)

    assert events(executor) == {compat.key_of(test): (ConnectionTestState.SUCCESS, None)}
    assert executor.running == set()


def test_a_report_on_an_earlier_dispatch_of_the_same_key_changes_nothing(stage: Stage) -> None:
    """A deferred task comes back under the same key: its first end must not fail its second."""
    executor = stage.executor()
    attempt = uuid.uuid4()
    [first] = stage.sent_by(executor, task_workload(dispatch_id="d-1", ti_id=attempt))
    again = task_workload(dispatch_id="d-2", ti_id=attempt)
    stage.sent_by(executor, again)

    stage.report(first, State.SUCCESS)
    stage.seen(executor)

    assert dict(executor.get_event_buffer()) == {}
    assert executor.running == {compat.key_of(again)}
    [second] = [w for w in stage.sent() if w.dispatch_id == "d-2"]
    stage.report(second, State.SUCCESS)
    assert list(events(executor)) == [compat.key_of(again)]


def test_what_the_reader_missed_is_found_by_the_sweep(stage: Stage) -> None:
    stage.configure(sweep_seconds=0.05)
    stage.monkeypatch.setattr("nats_executor.scheduler.dispatcher.Dispatcher._follow", read_nothing)
    executor = stage.executor()
    task = task_workload()
    [sent] = stage.sent_by(executor, task)

    stage.report(sent, State.SUCCESS)

    assert list(events(executor)) == [compat.key_of(task)]


async def read_nothing(*_: Any) -> None:
    """Stand in for a reader that misses everything."""


# Tokens


def claims_of(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    found: dict[str, Any] = json.loads(
        base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    )
    return found


@pytest.mark.parametrize(
    "make",
    [task_workload, callback_workload, connection_test_workload],
    ids=[Kind.TASK, Kind.CALLBACK, Kind.CONNECTION_TEST],
)
def test_an_expired_token_is_replaced_by_a_valid_one(
    stage: Stage, make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT", "300")
    executor = stage.executor()
    workload = make()
    [sent] = stage.sent_by(executor, workload)
    expected = workload.generate_token("its id", executor.jwt_generator)

    stage.report(sent, State.EXPIRED, worker="w1", attempt=2)
    stage.seen(executor)

    def renewed() -> bool:
        return stage.last_report(sent).state is State.RENEWED

    block_until(renewed, 5, "a new token")
    report = stage.last_report(sent)
    claims = claims_of(report.token)
    body = sent.body
    subject = body.get("connection_test_id") or body.get("ti", body.get("callback", {})).get("id")
    assert claims["sub"] == subject
    assert claims["scope"] == claims_of(expected)["scope"]
    assert claims["exp"] == pytest.approx(time.time() + 300, abs=30)
    assert (report.generation, report.attempt, report.dispatch_id) == (1, 2, sent.dispatch_id)
    assert dict(executor.get_event_buffer()) == {}
    assert len(executor.running) == 1


def test_each_report_of_an_expired_token_is_answered(stage: Stage) -> None:
    executor = stage.executor()
    [sent] = stage.sent_by(executor, task_workload())
    stage.report(sent, State.EXPIRED)
    stage.seen(executor)
    block_until(lambda: stage.last_report(sent).state is State.RENEWED, 5, "a new token")

    stage.report(sent, State.EXPIRED)  # as if the answer had been lost
    stage.seen(executor)

    block_until(lambda: stage.last_report(sent).state is State.RENEWED, 5, "the token again")
    stage.report(sent, State.EXPIRED, generation=1)
    stage.seen(executor)
    block_until(lambda: stage.last_report(sent).generation == 2, 5, "the next token")


def test_a_renewal_gives_way_to_a_report_that_came_first(fake_stage: FakeStage) -> None:
    executor = fake_stage.executor()
    [sent] = fake_stage.sent_by(executor, task_workload())
    fake_stage.report(sent, State.EXPIRED)
    assert executor._connected.dispatcher
    mailbox = executor._connected.dispatcher.mailbox
    block_until(lambda: mailbox.reports, 5, "the report")
    fake_stage.report(sent, State.CLAIMED, worker="w2")

    fake_stage.seen(executor)
    fake_stage.seen(executor)

    assert fake_stage.last_report(sent).state is State.CLAIMED


def test_a_renewal_that_is_overtaken_is_not_published(fake_stage: FakeStage) -> None:
    """The worker has claimed it between the executor's look and its answer."""
    executor = fake_stage.executor()
    [sent] = fake_stage.sent_by(executor, task_workload())
    scheduler = next(b for b in fake_stage.server.brokers if b is not fake_stage.broker)
    look = scheduler.last
    claimed = Report(
        dispatch_id=sent.dispatch_id, queue=sent.queue, state=State.CLAIMED, kind=sent.kind,
        key=sent.key, worker="w2", worker_name="worker-2",
    )  # fmt: skip

    async def overtaken(stream: str, subject: str) -> Stored | None:
        found = await look(stream, subject)
        fake_stage.server.put(subject, encode(claimed))
        return found

    fake_stage.monkeypatch.setattr(scheduler, "last", overtaken)
    fake_stage.report(sent, State.EXPIRED)
    block_until(lambda: executor.sync() or fake_stage.last_report(sent).worker == "w2", 5, "it")
    fake_stage.seen(executor)

    assert fake_stage.last_report(sent).state is State.CLAIMED


def test_a_report_on_what_the_scheduler_gave_up_changes_nothing(stage: Stage) -> None:
    """It does so itself, for a task without heartbeats; a late end must not undo that."""
    executor = stage.executor()
    task = task_workload()
    [sent] = stage.sent_by(executor, task)
    executor.change_state(compat.key_of(task), TaskInstanceState.FAILED)
    assert list(executor.get_event_buffer()) == [compat.key_of(task)]

    stage.report(sent, State.SUCCESS)
    stage.seen(executor)

    assert dict(executor.get_event_buffer()) == {}
    assert len(executor._events.ledger) == 0


# Bad input


def test_unreadable_and_forged_reports_are_ignored_with_a_warning(
    stage: Stage, said: Callable[[str], list[str]]
) -> None:
    executor = stage.executor()
    tasks = [task_workload("a", dispatch_id="d-a"), task_workload("b", dispatch_id="d-b")]
    first, second = stage.sent_by(executor, *tasks)
    garbage = stage.names.result("default", "d-garbage")
    stage.ask("publish", garbage, b"\xc1 no msgpack")
    stage.report(first, State.SUCCESS, dispatch_id="d-b")  # on the subject of d-a
    stage.report(second, State.SUCCESS, queue="another")  # on a subject of its own queue
    stage.ask("publish", stage.names.result("x", "y"), encode(first))  # a workload, no report

    stage.seen(executor)

    assert dict(executor.get_event_buffer()) == {}
    assert executor.running == {compat.key_of(task) for task in tasks}
    assert len(said(f"unreadable report on {garbage}")) == 1
    assert len(said(f"unreadable report on {stage.names.result('x', 'y')}")) == 1
    assert len(said("is about another workload")) == 2
    stage.report(second, State.SUCCESS)
    assert len(events(executor)) == 1


def test_a_report_of_another_queue_changes_nothing(
    stage: Stage, said: Callable[[str], list[str]]
) -> None:
    """A worker may report for its own queues only, so it must not name another's dispatch."""
    executor = stage.executor()
    [sent] = stage.sent_by(executor, task_workload(queue="payroll"))
    forged = stage.names.result("mine", sent.dispatch_id)

    stage.report(replace(sent, queue="mine"), State.FAILED)
    stage.seen(executor)

    assert dict(executor.get_event_buffer()) == {}
    assert len(executor.running) == 1
    assert said(forged) == []  # nothing is wrong with it as such

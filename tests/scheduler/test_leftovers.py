"""The executor takes messages out of queues whose tasks Airflow no longer wants.

Rows are those of a real database; workers are played by the stage's peer.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import delete, select
from sqlalchemy.exc import OperationalError

from nats_executor.scheduler import database, leftovers, withdrawals
from nats_executor.scheduler.leftovers import Leftovers
from nats_executor.wire.messages import Kind, State
from tests.scheduler.stage import (
    callback_workload,
    connection_test_workload,
    queue_up,
    task_workload,
)
from tests.scheduler.table import JOB
from tests.support.rowless import TICK
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_executor import NatsExecutor
    from nats_executor.scheduler.ledger import Dispatch
    from tests.scheduler.stage import FakeStage, Stage
    from tests.scheduler.table import Rows

pytestmark = pytest.mark.usefixtures("airflow_database")

QUEUED = TaskInstanceState.QUEUED


@pytest.fixture(autouse=True)
def looking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have executors look, in the tests whose workloads have rows."""
    if "table" not in request.fixturenames:
        return
    for stage in ("stage", "fake_stage"):
        if stage in request.fixturenames:
            request.getfixturevalue(stage)
    monkeypatch.setattr(Leftovers, "tick", TICK)


def until(executor: NatsExecutor, is_so: Callable[[], Any], what: str) -> Any:
    """Heartbeat as the scheduler does until something is so."""

    def beat() -> Any:
        executor.heartbeat()
        return is_so()

    return block_until(beat, 60, what)


def send(executor: NatsExecutor, *rows: dict[str, Any]) -> None:
    queue_up(executor, *(task_workload(**row) for row in rows))
    until(executor, lambda: len(executor._events.ledger) >= len(rows), "the sending")


def ids(stage: Stage) -> set[str]:
    return {workload.dispatch_id for workload in stage.sent()}


@dataclass
class Looked:
    """The dispatches of each question to the database."""

    questions: list[list[str]]

    def rounds(self, dispatch_id: str) -> int:
        return sum(dispatch_id in question for question in self.questions)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Looked:
    real, found = database.unwanted, Looked([])

    def unwanted(dispatches: Any) -> Any:
        answer = real(dispatches)
        found.questions.append([dispatch.id for dispatch in dispatches])
        return answer

    monkeypatch.setattr(database, "unwanted", unwanted)
    return found


# Tasks that this executor has sent


@pytest.mark.parametrize(
    "change",
    [
        {"state": TaskInstanceState.FAILED},
        {"state": TaskInstanceState.SUCCESS},
        {"state": TaskInstanceState.SKIPPED},
        {"state": None, "id": uuid.uuid4(), "external_executor_id": None},  # cleared
        {"state": QUEUED, "external_executor_id": str(uuid.uuid4())},  # queued again
    ],
    ids=["failed", "success", "skipped", "cleared", "queued again"],
)
def test_the_message_of_a_task_that_is_marked_or_cleared_is_removed(
    stage: Stage, table: Rows, change: dict[str, Any], said: Callable[..., list[str]]
) -> None:
    stage.configure(sweep_seconds=600)  # which would free the slot of a message that is gone
    executor = stage.executor(job_id=JOB)
    row, other = table.add_task("t"), table.add_task("u")
    send(executor, row, other)

    table.change_task("t", **change)

    until(executor, lambda: executor.slots_occupied == 1, "its slot to be free")
    assert ids(stage) == {other["dispatch_id"]}
    assert [d.id for d in executor._events.ledger] == [other["dispatch_id"]]
    # No event touches the row, and nothing is written about it.
    assert dict(executor.get_event_buffer()) == {}
    assert not executor._task_event_logs
    with create_session(scoped=False) as session:
        found = session.scalars(select(TaskInstance).where(TaskInstance.task_id == "t")).one()
        assert found.state == change["state"]
        assert not session.scalars(select(Log)).all()
    assert said("took 1 workload out of the queue that Airflow no longer wants")


def test_the_message_of_a_task_that_is_deleted_is_removed(stage: Stage, table: Rows) -> None:
    executor = stage.executor(job_id=JOB)
    send(executor, table.add_task("t"))

    with create_session(scoped=False) as session:
        session.execute(delete(TaskInstance))

    until(executor, lambda: not executor.slots_occupied, "its slot to be free")
    assert stage.sent() == []


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"external_executor_id": None},  # an id of ours that is not stored yet
        {"queued_by_job_id": 8},  # another scheduler has adopted it
        {"state": TaskInstanceState.RUNNING},  # its report is on the way
        {"state": TaskInstanceState.RESTARTING},
    ],
)
def test_what_is_wanted_stays(
    stage: Stage, table: Rows, change: dict[str, Any], looked: Looked
) -> None:
    executor = stage.executor(job_id=JOB)
    row = table.add_task("t")
    send(executor, row)
    if change:
        table.change_task("t", **change)
    before = looked.rounds(row["dispatch_id"])

    until(executor, lambda: looked.rounds(row["dispatch_id"]) > before + 2, "three more looks")

    assert ids(stage) == {row["dispatch_id"]}
    assert executor.slots_occupied == 1


def test_callbacks_and_connection_tests_are_no_task_instances(stage: Stage, table: Rows) -> None:
    """They have no row among those, so a look would take them for unwanted."""
    executor = stage.executor(job_id=JOB)
    queue_up(executor, callback_workload(), connection_test_workload())
    row = table.add_task("t")
    send(executor, row)

    table.change_task("t", state=TaskInstanceState.FAILED)

    until(executor, lambda: executor.slots_occupied == 2, "the task's slot to be free")
    assert {w.kind for w in stage.sent()} == {Kind.CALLBACK, Kind.CONNECTION_TEST}


@pytest.mark.parametrize("state", [State.CLAIMED, State.RUNNING, State.SUCCESS, State.FAILED])
def test_what_a_worker_has_or_had_is_left_to_its_report(stage: Stage, state: State) -> None:
    """The report is in the stream and not in the ledger yet: it tells more than the row."""
    executor = stage.executor(job_id=JOB)
    [sent] = stage.sent_by(executor, task_workload("t"))
    [dispatch] = executor._events.ledger
    stage.report(sent, state)

    withdraw(executor, dispatch)

    assert ids(stage) == {sent.dispatch_id}
    assert executor._connected
    assert not executor._connected.dispatcher.withdrawals.done


def withdraw(executor: NatsExecutor, dispatch: Dispatch) -> None:
    connected = executor._connected
    assert connected
    connected.bridge.call(connected.dispatcher.withdrawals.withdraw([dispatch]), timeout=30)


@pytest.mark.parametrize("state", [None, State.RELEASED, State.EXPIRED])
def test_what_no_worker_has_can_be_removed(stage: Stage, state: State | None) -> None:
    executor = stage.executor(job_id=JOB)
    [sent] = stage.sent_by(executor, task_workload("t"))
    [dispatch] = executor._events.ledger
    if state:
        stage.report(sent, state)

    withdraw(executor, dispatch)

    assert stage.sent() == []


def test_a_worker_that_claims_it_at_that_moment_ends_it_by_its_report(
    fake_stage: FakeStage, table: Rows
) -> None:
    """It got the message just before that was removed; Airflow refuses the start."""
    executor = fake_stage.executor(job_id=JOB)
    row = table.add_task("t")
    send(executor, row)
    [sent], [dispatch] = fake_stage.sent(), executor._events.ledger
    fake_stage.report(sent, State.CLAIMED)
    until(executor, lambda: dispatch.is_held, "its claim")
    table.change_task("t", state=TaskInstanceState.FAILED)

    assert executor._connected
    executor._connected.dispatcher.withdrawals.done.append(dispatch)
    until(executor, lambda: not executor._connected.dispatcher.withdrawals.done, "a loop")
    assert executor.slots_occupied == 1

    fake_stage.report(sent, State.DROPPED)
    until(executor, lambda: not executor.slots_occupied, "its slot to be free")
    assert dict(executor.get_event_buffer()) == {}


def test_a_loop_asks_about_some_rows_only(
    stage: Stage, table: Rows, looked: Looked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "ROWS_PER_LOOP", 2)
    executor = stage.executor(job_id=JOB)
    rows = [table.add_task(f"t{n}") for n in range(5)]
    send(executor, *rows)

    for n in range(5):
        table.change_task(f"t{n}", state=TaskInstanceState.FAILED)

    until(executor, lambda: not executor.slots_occupied, "all slots to be free")
    assert stage.sent() == []
    assert max(map(len, looked.questions)) == 2


def test_without_an_answer_nothing_is_removed(
    stage: Stage, table: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = stage.executor(job_id=JOB)
    row = table.add_task("t")
    send(executor, row)
    asked: list[str] = []

    def fail(*_: Any, **__: Any) -> Any:
        asked.append("it")
        raise OperationalError("x", {}, Exception())

    with monkeypatch.context() as patch:
        patch.setattr("nats_executor.scheduler.database.create_session", fail)
        until(executor, lambda: len(asked) > 5, "several questions")

    assert ids(stage) == {row["dispatch_id"]}
    assert executor.slots_occupied == 1


def test_a_broker_that_is_away_is_asked_again(fake_stage: FakeStage, table: Rows) -> None:
    executor = fake_stage.executor(job_id=JOB)
    send(executor, table.add_task("t"))
    assert executor._connected
    broker: Any = executor._connected.dispatcher._broker
    broker.fail_next("remove", times=2)

    table.change_task("t", state=TaskInstanceState.FAILED)

    until(executor, lambda: not executor.slots_occupied, "its slot to be free")
    assert not broker.failures["remove"]
    assert fake_stage.sent() == []


# Tasks that a dead scheduler has sent


def test_messages_of_a_dead_scheduler_that_no_row_wants_are_removed(
    stage: Stage, table: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(withdrawals, "SAFE_SECONDS", 0.0)
    monkeypatch.setattr(withdrawals, "PAGE_MESSAGES", 2)
    first = stage.executor(job_id=1)
    rows = [table.add_task(f"t{n}", queued_by_job_id=1) for n in range(5)]
    queue_up(first, callback_workload(), connection_test_workload())
    stage.sent_by(first, *(task_workload(**row) for row in rows))
    first.end()
    if advance := getattr(stage.server, "advance", None):  # type: ignore[attr-defined]
        advance(1.0)
    for n in (1, 3, 4):
        table.change_task(f"t{n}", state=None, external_executor_id=None, id=uuid.uuid4())

    second = stage.executor(job_id=JOB)

    wanted = {rows[0]["dispatch_id"], rows[2]["dispatch_id"]}
    until(second, lambda: len(stage.sent()) == 4, "the others to be gone")
    kinds = {w.dispatch_id: w.kind for w in stage.sent()}
    assert {id_ for id_, kind in kinds.items() if kind == Kind.TASK} == wanted
    assert {*kinds.values()} == {Kind.TASK, Kind.CALLBACK, Kind.CONNECTION_TEST}
    assert dict(second.get_event_buffer()) == {}


def test_messages_are_read_only_where_there_are_more_than_were_sent(
    fake_stage: FakeStage, table: Rows, looked: Looked
) -> None:
    executor = fake_stage.executor(job_id=JOB)
    row = table.add_task("t")
    send(executor, row)
    assert executor._connected
    broker: Any = executor._connected.dispatcher._broker
    pages: list[int] = []
    read = broker.page

    async def page(*args: Any, **options: Any) -> Any:
        pages.append(1)
        return await read(*args, **options)

    broker.page = page
    before = looked.rounds(row["dispatch_id"])

    until(executor, lambda: looked.rounds(row["dispatch_id"]) > before + 5, "several looks")
    assert not pages

    send(fake_stage.executor(job_id=8), table.add_task("u", queued_by_job_id=8))
    until(executor, lambda: pages, "a page")

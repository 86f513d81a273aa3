"""The executor acts by itself: dead workers, lost messages, missed events, orphaned callbacks.

Workers are played by the stage's peer; rows are those of a real database.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.callback import CallbackKey, ExecutorCallback
from airflow.models.connection_test import ConnectionTestKey
from airflow.models.dagbag import DBDagBag
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import CallbackState, TaskInstanceState
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from nats_executor.errors import TopologyMismatch
from nats_executor.fleet.liveness import Holder, Liveness
from nats_executor.scheduler import compat, database
from nats_executor.scheduler.inspector import Inspector
from nats_executor.topology import setup
from nats_executor.wire.messages import Kind, Report, State, Workload, decode
from nats_executor.wire.names import Verb
from tests.scheduler.stage import events, task_workload
from tests.scheduler.table import JOB, LOST_SECONDS, announce, record
from tests.support.emptying import empty
from tests.support.fixtures import settings_for
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_executor import NatsExecutor
    from tests.scheduler.stage import FakeStage, RealStage, Stage
    from tests.scheduler.table import Rows

pytestmark = pytest.mark.usefixtures("airflow_database")

QUEUED, RUNNING = TaskInstanceState.QUEUED, TaskInstanceState.RUNNING


def until(executor: NatsExecutor, is_so: Callable[[], Any], what: str) -> Any:
    """Heartbeat as the scheduler does until something is so."""

    def beat() -> Any:
        executor.heartbeat()
        return is_so()

    return block_until(beat, 60, what)


def sent_for(stage: Stage, executor: NatsExecutor, row: dict[str, Any]) -> Workload:
    found = stage.sent_by(executor, task_workload(**row))
    return next(w for w in found if w.dispatch_id == row["dispatch_id"])


def key_of(row: dict[str, Any]) -> Any:
    return compat.key_of(task_workload(**row))


def lose(stage: Stage, *dispatch_ids: str, queue: str = "default") -> None:
    """Lose messages as a broker does that was robbed of its disk."""
    for dispatch_id in dispatch_ids:
        stage.ask("remove", stage.names.tasks_stream, stage.names.task(queue, dispatch_id))


# What the broker lost


def test_a_queued_task_that_the_broker_lost_is_sent_again(
    stage: Stage, table: Rows, said: Callable[..., list[str]]
) -> None:
    executor = stage.executor(job_id=JOB)
    row = table.add_task("t")
    sent = sent_for(stage, executor, row)

    lose(stage, row["dispatch_id"])

    again: Workload = until(executor, lambda: stage.sent() and stage.sent()[0], "the message")
    assert (again.dispatch_id, again.key, again.kind) == (sent.dispatch_id, sent.key, sent.kind)
    assert again.body["ti"]["id"] == str(row["ti_id"])
    assert again.body["token"] != sent.body["token"]
    assert again.body["log_path"]
    assert len(executor.running) == len(executor._events.ledger) == executor.slots_occupied == 1
    assert len(said("NATS has no more of 1 workload; next: sending again")) == 1
    stage.report(again, State.SUCCESS)
    assert len(events(executor)) == 1


@pytest.mark.integration
def test_a_stream_that_is_made_anew_gets_its_queued_tasks_back(
    real_stage: RealStage, table: Rows
) -> None:
    """The remedy that `airflow nats setup` names for what NATS does not change in a stream."""
    names = real_stage.names
    real_stage.configure(storage="memory")
    executor = real_stage.executor(job_id=JOB)
    row = table.add_task("t")
    sent = sent_for(real_stage, executor, row)
    on_disk = settings_for(real_stage.server.url, subject_prefix=names.prefix)
    set_up = partial(real_stage.portal.call, setup.apply, real_stage.broker, on_disk, ["default"])
    with pytest.raises(TopologyMismatch, match=f"nats stream rm {names.tasks_stream}"):
        set_up()

    for stream in (names.tasks_stream, names.results_stream, names.dead_letters_stream):
        real_stage.ask("_call", f"STREAM.DELETE.{stream}")
    set_up()

    found = until(executor, lambda: real_stage.sent() and real_stage.sent()[0], "the message")
    assert found.dispatch_id == sent.dispatch_id
    real_stage.report(found, State.SUCCESS)
    assert len(events(executor)) == 1


def test_a_callback_and_a_connection_test_that_the_broker_lost_are_sent_again(
    stage: Stage, table: Rows
) -> None:
    callback = table.add_callback(CallbackState.QUEUED)
    test = table.add_connection_test("queued")
    executor = stage.executor(job_id=JOB)
    until(executor, lambda: len(stage.sent()) == 2, "both to be sent")

    lose(stage, callback)
    lose(stage, test, queue="heavy")

    until(executor, lambda: len(stage.sent()) == 2, "both to be sent again")
    assert {w.dispatch_id for w in stage.sent()} == {callback, test}


@pytest.mark.parametrize("state", [RUNNING, TaskInstanceState.SUCCESS, None])
def test_what_is_not_queued_any_more_is_not_sent_again(
    stage: Stage, table: Rows, state: str | None
) -> None:
    """What may run somewhere without a trace keeps its slot."""
    executor = stage.executor(job_id=JOB)
    announce(stage)
    stage.ask("serve", stage.names.control("w1", Verb.PING), pong)
    row = table.add_task("t")
    sent_for(stage, executor, row)
    table.change_task("t", state=state)

    lose(stage, row["dispatch_id"])

    asked = spy(stage, executor)
    until(executor, lambda: len(asked) > (state == RUNNING), "a look at it, or two")
    assert stage.sent() == []
    assert executor.slots_occupied == (state == RUNNING)


def spy(stage: Stage, _: NatsExecutor) -> list[int]:
    """Count how often the database is asked to make lost workloads again."""
    calls: list[int] = []
    real = database.workloads_again

    def ask(dispatches: Any, *args: Any) -> Any:
        calls.append(len(dispatches))
        return real(dispatches, *args) if dispatches else []

    stage.monkeypatch.setattr("nats_executor.scheduler.database.workloads_again", ask)
    return calls


def test_a_queue_anew_frees_the_slot_of_a_lost_dispatch(stage: Stage, table: Rows) -> None:
    executor = stage.executor(job_id=JOB)
    row = table.add_task("t")
    sent_for(stage, executor, row)
    table.change_task("t", external_executor_id=str(uuid.uuid4()), queued_by_job_id=8)

    lose(stage, row["dispatch_id"])

    until(executor, lambda: not executor.slots_occupied, "the slot to be free")
    assert stage.sent() == []


@pytest.mark.parametrize(
    ("fault", "said_so"), [(OperationalError("x", {}, Exception()), 0), (KeyError("x"), 1)]
)
def test_a_database_that_is_away_is_asked_again(
    stage: Stage,
    table: Rows,
    fault: Exception,
    said_so: int,
    said: Callable[..., list[str]],
) -> None:
    """The scheduler must not end by what is asked here, and nothing may get lost by it."""
    executor = stage.executor(job_id=JOB)
    row = table.add_task("t")
    sent_for(stage, executor, row)
    asked: list[str] = []

    def fail(*_: Any, **__: Any) -> Any:
        asked.append("it")
        raise fault

    with stage.monkeypatch.context() as patch:
        patch.setattr("nats_executor.scheduler.database.create_session", fail)
        lose(stage, row["dispatch_id"])
        until(executor, lambda: len(asked) > 5, "several questions")
        assert len(executor.running) == 1
    assert bool(said("a question to the database failed")) == bool(said_so)
    until(executor, stage.sent, "the message")


def test_a_broker_that_comes_back_with_an_empty_disk(
    real_stage: RealStage, table: Rows, said: Callable[..., list[str]]
) -> None:
    """What was queued is sent again at once; what runs goes on."""
    real_stage.configure(sweep_seconds=600)
    executor = real_stage.executor(job_id=JOB)
    queued = [table.add_task(f"t{n}") for n in range(20)]
    sent = real_stage.sent_by(executor, *(task_workload(**row) for row in queued))
    running = sent_for(real_stage, executor, table.add_task("running"))
    table.change_task("running", state=RUNNING)
    real_stage.report(running, State.RUNNING)
    until(executor, lambda: executor._events.ledger.held, "its start")

    real_stage.server.kill()
    real_stage.server.wipe_storage()
    real_stage.server.start()
    real_stage.portal.call(real_stage.broker.ready, 10.0)

    until(executor, lambda: said("NATS has no more of"), "the notice")
    until(executor, lambda: len(real_stage.sent()) == len(queued), "all to be sent again")
    ids = {w.dispatch_id for w in real_stage.sent()}
    assert ids == {w.dispatch_id for w in sent} - {running.dispatch_id}
    assert executor.slots_occupied == len(queued) + 1
    for workload in [*real_stage.sent(), running]:
        real_stage.report(workload, State.SUCCESS)
    assert len(events(executor, len(queued) + 1)) == len(queued) + 1
    assert executor.slots_occupied == 0


def test_after_a_reconnect_every_queued_task_is_looked_at(
    fake_stage: FakeStage, table: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only a sample: a server that lost its power has lost what it had not written down."""
    monkeypatch.setattr("nats_executor.scheduler.inspector.SAMPLE", 1)
    monkeypatch.setattr("nats_executor.scheduler.dispatcher.RETRY_SECONDS", 0.05)
    fake_stage.configure(sweep_seconds=600)
    executor = fake_stage.executor(job_id=JOB)
    queued = [table.add_task(f"t{n}") for n in range(5)]
    fake_stage.sent_by(executor, *(task_workload(**row) for row in queued))
    assert executor._connected.dispatcher
    inspector = executor._connected.dispatcher.inspector
    until(executor, lambda: inspector._has_looked_at_all, "the first look")
    # Another executor's, so that the number of messages says nothing.
    other = fake_stage.executor(job_id=8)
    fake_stage.sent_by(other, *(task_workload(f"u{n}") for n in range(9)))
    lose(fake_stage, *(row["dispatch_id"] for row in queued))

    fake_stage.portal.call(restart, fake_stage.server)

    ids = {row["dispatch_id"] for row in queued}
    until(executor, lambda: ids <= {w.dispatch_id for w in fake_stage.sent()}, "all five")


async def restart(server: Any) -> None:
    server.stop()
    server.start()


# Workers that died


async def pong(_: bytes) -> bytes:
    return b"pong"


def grow_old(stage: Stage, executor: NatsExecutor) -> None:
    """Let records and connections be older than a worker may be silent, as time does."""
    if server := getattr(stage.server, "advance", None):  # type: ignore[attr-defined]
        server(60)
        for broker in stage.server.brokers:  # type: ignore[attr-defined]
            broker.connected_since = -1e9
        return
    broker = executor._connected.dispatcher and executor._connected.dispatcher._broker
    assert broker
    since = broker.connected_since
    block_until(lambda: time.monotonic() - since > 3 * LOST_SECONDS, 10, "the connection's age")


def test_a_dead_workers_running_task_fails_and_says_so_without_another_worker(
    stage: Stage, table: Rows
) -> None:
    executor = stage.executor(job_id=JOB)
    row, other = table.add_task("t"), table.add_task("u")
    sent, alive = sent_for(stage, executor, row), sent_for(stage, executor, other)
    announce(stage)
    announce(stage, "w2", "worker-2")
    stage.ask("serve", stage.names.control("w2", Verb.PING), pong)
    stage.report(sent, State.RUNNING, pid=44)
    stage.report(alive, State.RUNNING, worker="w2", worker_name="worker-2", pid=45)

    grow_old(stage, executor)

    [(key, (state, info))] = events(executor).items()
    assert (key, state) == (key_of(row), TaskInstanceState.FAILED)
    assert info == "worker worker-1 lost while it ran process 44"
    assert [str(log.extra) for log in executor._task_event_logs] == [info]
    last = stage.last_report(sent)
    assert (last.state, last.info, last.worker) == (State.FAILED, info, executor._sender)
    block_until(lambda: [w.key[1] for w in stage.sent()] == ["u"], 10, "its message to be gone")
    assert stage.last_report(alive).state is State.RUNNING


def test_what_a_dead_worker_had_not_started_waits_for_the_next(stage: Stage, table: Rows) -> None:
    executor = stage.executor(job_id=JOB)
    row = table.add_task("t")
    sent = sent_for(stage, executor, row)
    announce(stage)
    stage.report(sent, State.CLAIMED)
    stage.seen(executor)

    grow_old(stage, executor)
    looked = count_looks(stage)
    until(executor, lambda: len(looked) > 2, "several looks")

    assert stage.last_report(sent).state is State.CLAIMED
    assert dict(executor.get_event_buffer()) == {}
    assert [w.key[1] for w in stage.sent() if w.queue == "default"] == ["t"]


def test_what_a_dead_worker_had_claimed_and_the_broker_lost_is_sent_again(
    stage: Stage, table: Rows
) -> None:
    executor = stage.executor(job_id=JOB)
    row = table.add_task("t")
    sent = sent_for(stage, executor, row)
    announce(stage)
    stage.report(sent, State.CLAIMED)
    lose(stage, row["dispatch_id"])

    grow_old(stage, executor)

    until(executor, stage.sent, "the message")
    assert stage.last_report(sent).state is State.CLAIMED  # who gets it next has to ask Airflow


def test_what_a_dead_worker_had_started_and_could_not_say_fails(stage: Stage, table: Rows) -> None:
    """Its start was accepted, the answer came too late, and the broker lost the message."""
    executor = stage.executor(job_id=JOB)
    row = table.add_task("t")
    sent = sent_for(stage, executor, row)
    announce(stage)
    stage.report(sent, State.CLAIMED)
    table.change_task("t", state=RUNNING)
    lose(stage, row["dispatch_id"])

    grow_old(stage, executor)

    [(_, (state, info))] = events(executor).items()
    assert (state, info) == (TaskInstanceState.FAILED, "worker worker-1 lost")
    assert executor.slots_occupied == 0


def test_a_running_task_whose_reports_are_lost_fails_with_its_worker(
    stage: Stage, table: Rows
) -> None:
    executor = stage.executor(job_id=JOB)
    row = table.add_task("t", RUNNING)
    sent = sent_for(stage, executor, row)
    stage.report(sent, State.RUNNING)
    until(executor, lambda: executor._events.ledger.held, "the report to be read")
    lose(stage, row["dispatch_id"])
    stage.portal.call(empty, stage.broker, stage.names.results_stream, stage.names.results())

    grow_old(stage, executor)

    [(_, (state, info))] = events(executor).items()
    assert (state, info) == (TaskInstanceState.FAILED, "worker worker-1 lost")


# What no worker has


def stand_by(stage: Stage, *held: str) -> list[list[str]]:
    """Let a worker live that has some dispatches; return what it is asked about."""
    asked: list[list[str]] = []

    async def answer(question: bytes) -> bytes:
        ids = question.decode().split()
        if ids:
            asked.append(ids)
        return record("w2", "worker-2", lacks=[i for i in ids if i not in held])

    announce(stage, "w2", "worker-2")
    stage.ask("serve", stage.names.control("w2", Verb.PING), answer)
    return asked


def taken_over(executor: NatsExecutor) -> None:
    """Have an executor adopt every task of the table, as the scheduler does."""
    with create_session(scoped=False) as session:
        tis = session.scalars(select(TaskInstance)).all()
        assert executor.try_adopt_task_instances(tis) == []
        for ti in tis:
            ti.queued_by_job_id = JOB


def reports_are_lost(stage: Stage) -> None:
    stage.portal.call(empty, stage.broker, stage.names.results_stream, stage.names.results())


NO_WORKER = "no worker runs it, and NATS has lost which one did"


def test_a_running_task_that_no_worker_has_and_no_report_tells_of_fails_soon(
    stage: Stage, table: Rows
) -> None:
    """Its worker, its scheduler and NATS's data were lost at once."""
    row = table.add_task("t", RUNNING, queued_by_job_id=1)
    executor = stage.executor(job_id=JOB)
    taken_over(executor)
    asked = stand_by(stage)

    grow_old(stage, executor)

    [(key, (state, info))] = events(executor).items()
    assert (key, state, info) == (key_of(row), TaskInstanceState.FAILED, NO_WORKER)
    assert [row["dispatch_id"]] in asked
    assert [str(log.extra) for log in executor._task_event_logs] == [info]
    subject = stage.names.result("default", row["dispatch_id"])
    last = decode(Report, stage.ask("last", stage.names.results_stream, subject).body)
    assert (last.state, last.info, last.worker) == (State.FAILED, info, executor._sender)
    assert executor.slots_occupied == 0
    assert stage.sent() == []


def test_it_fails_as_well_where_no_worker_is_left(stage: Stage, table: Rows) -> None:
    table.add_task("t", RUNNING, queued_by_job_id=1)
    executor = stage.executor(job_id=JOB)
    taken_over(executor)

    grow_old(stage, executor)

    [(_, (state, info))] = events(executor).items()
    assert (state, info) == (TaskInstanceState.FAILED, NO_WORKER)


@pytest.mark.usefixtures("quick_confirmations")
def test_such_a_failure_is_told_again_until_its_row_has_moved(stage: Stage, table: Rows) -> None:
    table.add_task("t", RUNNING, queued_by_job_id=1)
    executor = stage.executor(job_id=JOB)
    taken_over(executor)

    grow_old(stage, executor)

    assert events(executor) == events(executor) != {}


def test_what_a_living_worker_has_is_left_alone_and_known_once_it_says_so(
    stage: Stage, table: Rows
) -> None:
    row, other = (table.add_task(name, RUNNING, queued_by_job_id=1) for name in "tu")
    executor = stage.executor(job_id=JOB)
    taken_over(executor)
    asked = stand_by(stage, row["dispatch_id"])

    grow_old(stage, executor)

    [(key, _)] = events(executor).items()
    assert key == key_of(other)
    count = len(asked)
    until(executor, lambda: len(asked) > count + 2, "more questions")
    assert dict(executor.get_event_buffer()) == {}
    stage.report(told_of(row), State.RUNNING, worker="w2", worker_name="worker-2")
    until(executor, lambda: executor._events.ledger.held, "its report to be read")
    until(executor, lambda: not silent(executor), "no more questions")
    assert executor.slots_occupied == 1
    assert other["dispatch_id"] not in {d.id for d in executor._events.ledger}


def told_of(row: dict[str, Any]) -> Workload:
    """What a worker's reports on a row are about."""
    return Workload(
        dispatch_id=row["dispatch_id"], queue="default", kind=Kind.TASK, body={}, key=[],
        sender="dead",
    )  # fmt: skip


def silent(executor: NatsExecutor) -> dict[str, Any]:
    assert executor._connected.upkeep
    found: dict[str, Any] = executor._connected.upkeep._silent
    return found


async def never(_: bytes) -> bytes:
    return await asyncio.Event().wait() and b""


@pytest.mark.parametrize("answer", [pong, never], ids=["of an older release", "hanging"])
def test_nothing_is_concluded_from_a_worker_that_does_not_deny_it(
    fake_stage: FakeStage, table: Rows, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may run it: the row is left to Airflow's own heartbeat."""
    monkeypatch.setattr("nats_executor.fleet.liveness.PING_SECONDS", 0.01)
    table.add_task("t", RUNNING, queued_by_job_id=1)
    executor = fake_stage.executor(job_id=JOB)
    taken_over(executor)
    grow_old(fake_stage, executor)
    announce(fake_stage)
    fake_stage.ask("serve", fake_stage.names.control("w1", Verb.PING), answer)
    searched = count_searches(fake_stage)

    until(executor, lambda: len(searched) > 3, "several searches")

    assert dict(executor.get_event_buffer()) == {}
    assert executor.slots_occupied == 1


def count_searches(stage: Stage) -> list[Any]:
    """Count the searches that were seen through."""
    real = Inspector.search
    calls: list[Any] = []

    async def search(self: Inspector, dispatches: Any) -> None:
        await real(self, dispatches)
        calls.append(dispatches)

    stage.monkeypatch.setattr(Inspector, "search", search)
    return calls


@pytest.mark.parametrize("young", ["bucket", "connection"])
def test_workers_get_the_time_to_come_back(fake_stage: FakeStage, table: Rows, young: str) -> None:
    """After the loss of its data NATS knows no worker, though all of them may live."""
    table.add_task("t", RUNNING, queued_by_job_id=1)
    executor = fake_stage.executor(job_id=JOB)
    taken_over(executor)
    if young == "bucket":
        for broker in fake_stage.server.brokers:
            broker.connected_since = -1e9
    else:
        fake_stage.server.advance(60)
        for broker in fake_stage.server.brokers:
            broker.connected_since = 1e9
    searched = count_searches(fake_stage)

    until(executor, lambda: len(searched) > 3, "several searches")
    assert dict(executor.get_event_buffer()) == {}

    grow_old(fake_stage, executor)
    assert len(events(executor)) == 1


def test_a_task_whose_failure_the_broker_lost_fails(stage: Stage, table: Rows) -> None:
    """Its worker lives and has reported its end, which no scheduler has read."""
    executor = stage.executor(job_id=JOB)
    row = table.add_task("t", RUNNING)
    stand_by(stage)
    sent = sent_for(stage, executor, row)
    stage.report(sent, State.RUNNING, worker="w2", worker_name="worker-2")
    until(executor, lambda: executor._events.ledger.held, "the report to be read")
    lose(stage, row["dispatch_id"])
    reports_are_lost(stage)

    grow_old(stage, executor)

    [(_, (state, info))] = events(executor).items()
    assert state == TaskInstanceState.FAILED
    assert info == "worker worker-2 runs it no more, and NATS has lost how it ended"
    assert executor.slots_occupied == 0


def test_the_slot_of_a_task_whose_success_the_broker_lost_is_free(
    stage: Stage, table: Rows
) -> None:
    """Airflow has its state from the API server, so no event is owed."""
    executor = stage.executor(job_id=JOB)
    row = table.add_task("t", RUNNING)
    stand_by(stage)
    sent = sent_for(stage, executor, row)
    stage.report(sent, State.RUNNING, worker="w2", worker_name="worker-2")
    until(executor, lambda: executor._events.ledger.held, "the report to be read")
    executor.get_event_buffer()
    table.change_task("t", state=TaskInstanceState.SUCCESS)
    lose(stage, row["dispatch_id"])
    reports_are_lost(stage)

    grow_old(stage, executor)

    until(executor, lambda: not executor.slots_occupied, "the slot to be free")
    assert dict(executor.get_event_buffer()) == {}
    assert len(executor._task_event_logs) == 0


def test_what_a_worker_gave_up_while_the_broker_lost_it_is_sent_again(
    stage: Stage, table: Rows
) -> None:
    """It had claimed it, and NATS lost both its release and the message."""
    executor = stage.executor(job_id=JOB)
    row = table.add_task("t")
    stand_by(stage)
    sent = sent_for(stage, executor, row)
    stage.report(sent, State.CLAIMED, worker="w2", worker_name="worker-2")
    until(executor, lambda: executor._events.ledger.held, "the report to be read")
    lose(stage, row["dispatch_id"])
    reports_are_lost(stage)

    grow_old(stage, executor)

    [again] = until(executor, stage.sent, "the message")
    assert again.dispatch_id == row["dispatch_id"]
    assert dict(executor.get_event_buffer()) == {}


def test_a_callback_whose_end_the_broker_lost_fails(stage: Stage, table: Rows) -> None:
    """It would stay `running` for ever: it has no heartbeat that could time out."""
    callback = table.add_callback(CallbackState.RUNNING)
    executor = stage.executor(job_id=JOB)
    stand_by(stage)

    grow_old(stage, executor)

    assert events(executor) == {CallbackKey(callback): (CallbackState.FAILED, NO_WORKER)}
    assert executor.slots_occupied == 0


def test_a_broker_a_worker_and_a_scheduler_that_are_lost_at_once(
    real_stage: RealStage, table: Rows
) -> None:
    """A real server with an empty disk; what runs elsewhere runs on."""
    dead = real_stage.executor(job_id=1)
    rows_of = {name: table.add_task(name, queued_by_job_id=1) for name in ("lost", "runs")}
    real_stage.sent_by(dead, *(task_workload(**row) for row in rows_of.values()))
    workers = {"lost": "1", "runs": "2"}
    for name, number in workers.items():
        about, worker = told_of(rows_of[name]), f"worker-{number}"
        real_stage.report(about, State.RUNNING, worker=f"w{number}", worker_name=worker)
        table.change_task(name, state=RUNNING)
    until(dead, lambda: len(dead._events.ledger.held) == 2, "both to run")

    real_stage.server.kill()
    real_stage.server.wipe_storage()
    dead.end()
    real_stage.server.start()
    real_stage.portal.call(real_stage.broker.ready, 10.0)
    executor = real_stage.executor(job_id=JOB)
    taken_over(executor)
    stand_by(real_stage, rows_of["runs"]["dispatch_id"])

    [(key, (state, info))] = events(executor).items()
    lost, runs = rows_of["lost"], rows_of["runs"]
    assert (key, state, info) == (key_of(lost), TaskInstanceState.FAILED, NO_WORKER)
    real_stage.report(told_of(runs), State.SUCCESS)
    [(key, (state, _))] = events(executor).items()
    assert (key, state) == (key_of(runs), TaskInstanceState.SUCCESS)
    assert executor.slots_occupied == 0


def count_looks(stage: Stage) -> list[Any]:
    """Count how often workers are looked at."""
    real = Liveness.lost
    calls: list[Any] = []

    async def lost(self: Liveness, holders: Any) -> set[Holder]:
        calls.append(holders)
        return await real(self, holders)

    stage.monkeypatch.setattr(Liveness, "lost", lost)
    return calls


# Events that Airflow missed


@pytest.fixture
def quick_confirmations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nats_executor.scheduler.confirmations.FIRST_PAUSE", 0.01)


@pytest.mark.usefixtures("quick_confirmations")
def test_a_failure_is_told_again_until_its_row_has_moved(
    stage: Stage, table: Rows, said: Callable[..., list[str]]
) -> None:
    """Airflow 3.3 drops the event of a row that is locked at that moment."""
    executor = stage.executor(job_id=JOB)
    row = table.add_task("t")
    sent = sent_for(stage, executor, row)
    table.change_task("t", state=RUNNING)
    stage.report(sent, State.FAILED, info="killed")

    first, second, third = events(executor), events(executor), events(executor)
    assert first == second == third != {}
    assert executor.slots_occupied == 0
    named = "TaskInstanceKey(dag_id='a_dag', task_id='t', run_id='a_run', try_number=1, map_index"
    lines = said("the scheduler missed its end; next: telling it again")
    assert lines[0].startswith(named)
    table.change_task("t", state=TaskInstanceState.UP_FOR_RETRY)
    until(executor, lambda: is_settled(executor), "the end of it")
    assert dict(executor.get_event_buffer()) == {}


@pytest.mark.usefixtures("quick_confirmations")
def test_a_failure_whose_change_the_database_took_back_reaches_its_row(
    stage: Stage, table: Rows
) -> None:
    """The scheduler's own way of taking events in, which 3.4 begins with whose event it is."""
    executor = stage.executor(job_id=JOB)
    row = table.add_task("t")
    sent = sent_for(stage, executor, row)
    table.change_task("t", state=RUNNING)
    stage.report(sent, State.FAILED, info="killed")
    until(executor, lambda: executor.event_buffer, "the event")

    executor.get_event_buffer()  # as the scheduler begins; its transaction comes to nothing
    until(executor, lambda: executor.event_buffer, "the event once more")
    with create_session(scoped=False) as session:
        SchedulerJobRunner.process_executor_events(
            executor=executor, job_id=JOB, scheduler_dag_bag=DBDagBag(), session=session
        )

    with create_session(scoped=False) as session:
        states = session.scalars(select(TaskInstance.state).where(TaskInstance.task_id == "t"))
        assert states.all() == [TaskInstanceState.FAILED]


def is_settled(executor: NatsExecutor) -> bool:
    assert executor._connected.upkeep
    executor.get_event_buffer()
    return not len(executor._connected.upkeep._confirmations)


@pytest.mark.usefixtures("quick_confirmations")
@pytest.mark.parametrize(
    "change",
    [
        {"external_executor_id": str(uuid.uuid4())},  # queued again, here or elsewhere
        {"queued_by_job_id": 8},
        {"state": TaskInstanceState.SUCCESS},
        {"state": TaskInstanceState.SCHEDULED},
    ],
    ids=["queued again", "of another scheduler", "over", "scheduled"],
)
def test_a_failure_is_not_told_again_of_what_has_gone_on(
    stage: Stage, table: Rows, change: dict[str, Any]
) -> None:
    """A stale event would fail a live task."""
    executor = stage.executor(job_id=JOB)
    sent = sent_for(stage, executor, table.add_task("t"))
    table.change_task("t", **({"state": RUNNING} | change))
    stage.report(sent, State.FAILED, info="killed")
    assert len(events(executor)) == 1

    until(executor, lambda: is_settled(executor), "the end of it")

    assert dict(executor.get_event_buffer()) == {}


@pytest.mark.usefixtures("quick_confirmations")
def test_a_plain_success_needs_no_second_word(stage: Stage, table: Rows) -> None:
    executor = stage.executor(job_id=JOB)
    sent = sent_for(stage, executor, table.add_task("t"))
    stage.report(sent, State.SUCCESS)
    assert len(events(executor)) == 1
    assert executor._connected.upkeep
    assert not len(executor._connected.upkeep._confirmations)


# What a dead scheduler left


@pytest.mark.parametrize("state", [State.SUCCESS, State.FAILED])
def test_a_callback_of_a_dead_scheduler_gets_its_end(
    stage: Stage, table: Rows, state: State
) -> None:
    callback = table.add_callback(CallbackState.RUNNING)
    dead = stage.executor(job_id=1)
    until(dead, lambda: True, "its start")
    dead.end()
    report_of(stage, callback, state)

    executor = stage.executor(job_id=JOB)

    assert events(executor) == {CallbackKey(callback): (CallbackState(state.value), "why")}
    assert executor.slots_occupied == 0


@pytest.mark.parametrize("state", [CallbackState.QUEUED, CallbackState.RUNNING])
def test_a_callback_that_a_worker_dropped_gets_an_end(
    stage: Stage, table: Rows, state: str
) -> None:
    """As workers of earlier releases drop what was started before; Airflow times none out."""
    executor = stage.executor(job_id=JOB)
    until(executor, lambda: True, "its start")
    callback = table.add_callback(state)

    report_of(stage, callback, State.DROPPED)

    assert events(executor) == {CallbackKey(callback): (CallbackState.FAILED, "why")}


def test_a_dropped_callback_that_has_an_end_keeps_it(
    stage: Stage, table: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row ended while the broker was asked: the scheduler would write over that."""
    executor = stage.executor(job_id=JOB)
    until(executor, lambda: True, "its start")
    callback = table.add_callback(CallbackState.RUNNING)
    asked = database.standing

    def standing(dispatches: Any, job: Any) -> Any:
        with create_session(scoped=False) as session:
            session.execute(update(ExecutorCallback).values(state=CallbackState.SUCCESS))
        found.append(asked(dispatches, job))
        return found[-1]

    found: list[Any] = []
    monkeypatch.setattr(database, "standing", standing)

    report_of(stage, callback, State.DROPPED)

    until(executor, lambda: found, "a look at the row")
    assert found[0] == {}
    assert dict(executor.get_event_buffer()) == {}


def report_of(stage: Stage, callback: str, state: State) -> None:
    workload = Workload(
        dispatch_id=callback, queue="default", kind=Kind.CALLBACK, body={}, key=[callback],
        sender="dead",
    )  # fmt: skip
    stage.report(workload, state, info="why")


def test_a_callback_that_was_never_sent_is_sent(stage: Stage, table: Rows) -> None:
    """Its scheduler died between its commit and the message."""
    callback = table.add_callback(CallbackState.QUEUED)
    test = table.add_connection_test("queued")

    executor = stage.executor(job_id=JOB)

    keys = {CallbackKey(callback), ConnectionTestKey(test)}
    # On a busy machine the answer to the first attempt is late, and another attempt is made.
    until(executor, lambda: executor.running == keys, "both to be sent")
    assert {(w.dispatch_id, w.kind, w.queue) for w in stage.sent()} == {
        (callback, Kind.CALLBACK, "default"),
        (test, Kind.CONNECTION_TEST, "heavy"),
    }


def test_a_callback_that_another_scheduler_sent_is_left_to_it(stage: Stage, table: Rows) -> None:
    callback = table.add_callback(CallbackState.QUEUED)
    first = stage.executor(job_id=1)
    until(first, stage.sent, "the message")
    second = stage.executor(job_id=JOB)
    looked = count_examinations(stage)

    until(second, lambda: len(looked) > 2, "several looks at it")

    assert [w.dispatch_id for w in stage.sent()] == [callback]
    assert second.slots_occupied == 0
    assert first.slots_occupied == 1


def count_examinations(stage: Stage) -> list[Any]:
    real = Inspector.examine
    calls: list[Any] = []

    async def examine(self: Inspector, dispatches: Any) -> None:
        await real(self, dispatches)
        if dispatches:
            calls.append(dispatches)

    stage.monkeypatch.setattr(Inspector, "examine", examine)
    return calls


def test_a_callback_for_another_executor_is_left_alone(stage: Stage, table: Rows) -> None:
    callback = table.add_callback(CallbackState.QUEUED)
    with create_session(scoped=False) as session:
        row = session.get(ExecutorCallback, uuid.UUID(callback))
        assert row
        row.data = {**row.data, "executor": "LocalExecutor"}
    executor = stage.executor(job_id=JOB)
    until(executor, lambda: True, "a loop")

    owner = database.Owner(JOB, executor.name, executor.team_name)
    assert database.unfinished(owner, executor._settings) == []


def test_a_connection_test_that_airflow_gave_up_is_forgotten(stage: Stage, table: Rows) -> None:
    test = table.add_connection_test("queued")
    executor = stage.executor(job_id=JOB)
    until(executor, lambda: len(executor._events.ledger), "its dispatch")

    executor.fail_connection_test(ConnectionTestKey(test))

    assert len(executor._events.ledger) == executor.slots_occupied == 0


# The sweep over what is stuck in queued


def test_a_task_that_waits_its_turn_is_not_stuck(stage: Stage, table: Rows) -> None:
    executor = stage.executor(job_id=JOB)
    announce(stage)
    sent = sent_for(stage, executor, table.add_task("t"))
    with create_session(scoped=False) as session:
        ti = session.scalars(select(TaskInstance).where(TaskInstance.task_id == "t")).one()

        with pytest.raises(NotImplementedError, match="waits its turn in queue 'default'"):
            executor.revoke_task(ti=ti)

    assert [w.dispatch_id for w in stage.sent()] == [sent.dispatch_id]
    assert executor.slots_occupied == 1


def test_a_task_that_a_dead_scheduler_did_not_send_is_sent_and_loses_no_try(
    stage: Stage, table: Rows
) -> None:
    """It died between its commit and the message; given back, the task would start at try 2."""
    row = table.add_task("t", queued_by_job_id=1)
    executor = stage.executor(job_id=JOB)
    with create_session(scoped=False) as session:
        tis = session.scalars(select(TaskInstance)).all()
        assert executor.try_adopt_task_instances(tis) == []
        for ti in tis:
            ti.queued_by_job_id = JOB  # as the scheduler does with what was adopted

    [sent] = until(executor, stage.sent, "the message")

    assert (sent.dispatch_id, sent.body["ti"]["try_number"]) == (row["dispatch_id"], 1)

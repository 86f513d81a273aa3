"""After a scheduler's death: its task instances, as rows of a real database, change hands."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import timezone
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import insert, select
from sqlalchemy.orm import load_only

from nats_executor.scheduler import compat
from nats_executor.scheduler.compat import AIRFLOW_V_3_4_PLUS
from nats_executor.wire.messages import State
from nats_executor.wire.names import Verb
from tests.scheduler.stage import events, task_workload, unserved
from tests.scheduler.table import counted
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow.executors.workloads import ExecuteTask
    from sqlalchemy.orm import Session

    from nats_executor.wire.messages import Workload
    from tests.scheduler.stage import FakeStage, RealStage, Stage

pytestmark = pytest.mark.usefixtures("airflow_database")

QUEUED, RUNNING = TaskInstanceState.QUEUED, TaskInstanceState.RUNNING


@pytest.fixture
def session(airflow_database: None) -> Iterator[Session]:  # noqa: ARG001
    """A session of its own, rolled back at the end, so that no test meets another's rows."""
    with create_session(scoped=False) as opened:
        try:
            add(opened, DagBundleModel, name="dags")
            add(opened, DagModel, dag_id="a_dag", bundle_name="dags", max_active_tasks=1,
                max_consecutive_failed_dag_runs=0, has_task_concurrency_limits=False)  # fmt: skip
            add(opened, DagRun, dag_id="a_dag", run_id="a_run", run_type="manual",
                run_after=timezone.utcnow(), state=DagRunState.RUNNING)  # fmt: skip
            yield opened
        finally:
            opened.rollback()


def id_of(task_id: str) -> uuid.UUID:
    """The id of a row, which its workload has, too."""
    return uuid.uuid5(uuid.NAMESPACE_OID, task_id)


def task_of(task_id: str, **arguments: Any) -> ExecuteTask:
    return task_workload(task_id, ti_id=id_of(task_id), **arguments)


def add(session: Session, model: Any, **values: Any) -> None:
    session.execute(insert(model.__table__).values(**values))


def add_row(
    session: Session, task_id: str, state: str, dispatch_id: str | None = "", **more: Any
) -> str:
    """Insert a task instance as the dead scheduler left it; return its dispatch id."""
    dispatch_id = str(uuid.uuid4()) if dispatch_id == "" else dispatch_id
    values = {
        "try_number": 1,
        "queue": "default",
        "pool": "default_pool",
        "pool_slots": 1,
        "id": id_of(task_id),
    }
    add(session, TaskInstance, task_id=task_id, dag_id="a_dag", run_id="a_run", state=state,
        external_executor_id=dispatch_id, **(values | more))  # fmt: skip
    return dispatch_id or ""


def orphans(session: Session) -> Sequence[TaskInstance]:
    """Load them as the scheduler does: a few columns only."""
    session.expire_all()
    columns = [getattr(TaskInstance, name) for name in COLUMNS]
    return session.scalars(select(TaskInstance).options(load_only(*columns))).all()


# What the scheduler of 3.3 loads, and that of 3.4.
COLUMNS = ["id", "dag_id", "task_id", "run_id", "state", "external_executor_id"]
COLUMNS += (
    ["region_index", "region_id", "dag_version_id", "try_number"]
    if AIRFLOW_V_3_4_PLUS
    else ["map_index"]
)


def sent_by_the_dead(stage: Stage, **ids: str) -> dict[str, Workload]:
    """Send tasks through an executor whose scheduler then dies."""
    dead = stage.executor(job_id=1)
    tasks = [task_of(task_id, dispatch_id=dispatch_id) for task_id, dispatch_id in ids.items()]
    sent = stage.sent_by(dead, *tasks)
    dead.end()
    return {workload.key[1]: workload for workload in sent}


def key_of(task_id: str) -> Any:
    return compat.key_of(task_of(task_id))


def test_each_task_instance_is_judged_by_what_the_broker_knows(
    stage: Stage, session: Session
) -> None:
    ids = {
        "queued": add_row(session, "queued", QUEUED),
        "claimed": add_row(session, "claimed", QUEUED),
        "running": add_row(session, "running", RUNNING),
        "succeeded": add_row(session, "succeeded", RUNNING),
        "failed": add_row(session, "failed", RUNNING),
        "dropped": add_row(session, "dropped", RUNNING),
    }
    add_row(session, "never_sent", QUEUED)
    add_row(session, "without_id", QUEUED, None)
    sent = sent_by_the_dead(stage, **ids)
    stage.report(sent["claimed"], State.CLAIMED)
    stage.report(sent["running"], State.RUNNING)
    for name, state in (
        ("succeeded", State.SUCCESS),
        ("failed", State.FAILED),
        ("dropped", State.DROPPED),
    ):
        stage.report(sent[name], state, info=f"it {name}")
        stage.ask("remove", stage.names.tasks_stream, stage.names.task("default", ids[name]))
    executor = stage.executor(job_id=2)

    rejected = executor.try_adopt_task_instances(orphans(session))

    assert {ti.task_id for ti in rejected} == {"without_id"}
    # It will be sent from its row; here the row is not committed, so its slot is freed instead.
    assert key_of("never_sent") in executor.running
    assert events(executor, 2) == {
        key_of("succeeded"): (TaskInstanceState.SUCCESS, "it succeeded"),
        key_of("failed"): (TaskInstanceState.FAILED, "it failed"),
    }
    assert executor.running == {key_of("queued"), key_of("claimed"), key_of("running")}
    stage.report(sent["queued"], State.SUCCESS)
    assert list(events(executor)) == [key_of("queued")]


def test_adopting_twice_changes_nothing(stage: Stage, session: Session) -> None:
    """The scheduler repeats the call when its transaction failed."""
    dispatch_id = add_row(session, "t", RUNNING)
    sent = sent_by_the_dead(stage, t=dispatch_id)
    executor = stage.executor()

    executor.try_adopt_task_instances(orphans(session))
    executor.try_adopt_task_instances(orphans(session))

    assert executor.running == {key_of("t")}
    assert len(executor._events.ledger) == 1
    stage.report(sent["t"], State.SUCCESS)
    assert list(events(executor)) == [key_of("t")]
    assert executor.slots_occupied == 0


def test_keys_and_queues_come_in_one_statement(fake_stage: FakeStage, session: Session) -> None:
    for n in range(300):
        add_row(session, f"t{n}", QUEUED, queue="gpu", try_number=3)
    executor = fake_stage.executor()
    found = orphans(session)

    with counted() as statements:
        rejected = executor.try_adopt_task_instances(found)

    assert len(rejected) == 0
    assert len(statements) == 1


def test_the_try_and_the_queue_are_those_of_the_row(stage: Stage, session: Session) -> None:
    dispatch_id = add_row(session, "t", QUEUED, queue="gpu", try_number=3)
    old = stage.executor()
    task = task_of("t", queue="gpu", dispatch_id=dispatch_id)
    task.ti.try_number = 3
    [sent] = stage.sent_by(old, task)
    executor = stage.executor()

    assert executor.try_adopt_task_instances(orphans(session)) == []

    assert executor.running == {compat.key_of(task)}
    stage.report(sent, State.SUCCESS)
    assert list(events(executor)) == [compat.key_of(task)]


def test_a_workload_of_an_upper_band_is_found_there(stage: Stage, session: Session) -> None:
    """Looked for elsewhere, it would be sent a second time."""
    dispatch_id = add_row(session, "t", QUEUED, priority_weight=50)
    task = task_of("t", dispatch_id=dispatch_id)
    task.ti.priority_weight = 50
    stage.sent_by(stage.executor(), task)
    executor = stage.executor()

    assert executor.try_adopt_task_instances(orphans(session)) == []

    (dispatch,) = executor._events.ledger
    assert dispatch.band == 1
    assert executor._connected.dispatcher
    assert not executor._connected.dispatcher.inspector.findings
    unserved(executor, band=1)
    executor.revoke_task(ti=stuck(session))
    block_until(lambda: stage.subjects() == [], 5, "the revocation")


def test_everything_is_adopted_while_the_broker_is_away_and_the_sweep_finds_out(
    real_stage: RealStage, session: Session
) -> None:
    real_stage.configure(sweep_seconds=0.05)
    ids = {"queued": add_row(session, "queued", QUEUED), "over": add_row(session, "over", RUNNING)}
    sent = sent_by_the_dead(real_stage, **ids)
    real_stage.report(sent["over"], State.SUCCESS)
    real_stage.server.stop()
    executor = real_stage.executor()

    assert executor.try_adopt_task_instances(orphans(session)) == []

    real_stage.server.start()
    real_stage.portal.call(real_stage.broker.ready, 10.0)
    assert list(events(executor)) == [key_of("over")]
    assert executor.running == {key_of("queued")}


def test_an_expired_token_of_an_adopted_task_is_renewed(stage: Stage, session: Session) -> None:
    dispatch_id = add_row(session, "t", QUEUED)
    sent = sent_by_the_dead(stage, t=dispatch_id)
    stage.report(sent["t"], State.EXPIRED)
    executor = stage.executor()

    assert executor.try_adopt_task_instances(orphans(session)) == []
    executor.sync()

    block_until(lambda: stage.last_report(sent["t"]).state is State.RENEWED, 5, "a new token")


# Taking back


def stuck(session: Session, task_id: str = "t") -> TaskInstance:
    return next(ti for ti in orphans(session) if ti.task_id == task_id)


def test_a_revoked_task_leaves_its_queue(stage: Stage, session: Session) -> None:
    ids = {"t": add_row(session, "t", QUEUED), "u": add_row(session, "u", QUEUED)}
    executor = stage.executor()
    stage.sent_by(executor, *[task_of(name, dispatch_id=d) for name, d in ids.items()])

    unserved(executor)
    executor.revoke_task(ti=stuck(session))

    assert executor.running == {key_of("u")}
    assert not executor.has_task(stuck(session))
    assert executor.has_task(stuck(session, "u"))
    block_until(lambda: [w.dispatch_id for w in stage.sent()] == [ids["u"]], 5, "the revocation")
    assert dict(executor.get_event_buffer()) == {}


def test_a_task_that_was_not_sent_yet_is_revoked_too(stage: Stage, session: Session) -> None:
    dispatch_id = add_row(session, "t", QUEUED)
    executor = stage.executor()
    executor.queue_workload(task_of("t", dispatch_id=dispatch_id), session=session)
    assert executor.has_task(stuck(session))

    unserved(executor)
    executor.revoke_task(ti=stuck(session))
    executor.heartbeat()

    assert executor.slots_occupied == 0
    assert stage.sent() == []


@pytest.mark.parametrize("is_known", [True, False], ids=["its report was read", "not read yet"])
def test_a_worker_that_has_claimed_it_is_told(
    stage: Stage, session: Session, *, is_known: bool
) -> None:
    stage.monkeypatch.setenv("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT", "0.001")
    dispatch_id = add_row(session, "t", QUEUED)
    executor = stage.executor()
    [sent] = stage.sent_by(executor, task_of("t", dispatch_id=dispatch_id))
    told: list[bytes] = []

    async def stop(body: bytes) -> bytes:
        told.append(body)
        return b""

    stage.ask("serve", stage.names.control("w1", Verb.STOP), stop)
    stage.report(sent, State.CLAIMED)
    if is_known:
        stage.seen(executor)

    unserved(executor)
    executor.revoke_task(ti=stuck(session))

    block_until(lambda: told, 5, "the worker to be told")
    assert told == [dispatch_id.encode()]
    stage.report(sent, State.DROPPED, info="the scheduler took it back")
    stage.seen(executor)
    assert dict(executor.get_event_buffer()) == {}


def test_the_next_dispatch_of_a_revoked_task_goes_out(
    stage: Stage, session: Session, said: Callable[[str], list[str]]
) -> None:
    dispatch_id = add_row(session, "t", QUEUED)
    executor = stage.executor()
    stage.sent_by(executor, task_of("t", dispatch_id=dispatch_id))
    unserved(executor)
    executor.revoke_task(ti=stuck(session))
    block_until(lambda: stage.sent() == [], 5, "the revocation")

    [again] = stage.sent_by(executor, task_of("t", dispatch_id="d-2"))

    assert again.dispatch_id == "d-2"
    assert said("cannot revoke") == []

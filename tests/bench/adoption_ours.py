"""One scheduler's executor sends, dies, and another one adopts; `adoption.py` runs it."""

from __future__ import annotations

import asyncio
import gc
import time
import uuid
from typing import TYPE_CHECKING, Any

from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import timezone
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import insert, select
from sqlalchemy.orm import load_only

from nats_executor import NatsExecutor
from nats_executor.batches import batches
from nats_executor.wire.messages import Kind, Report, State, encode
from tests.bench.aside import answer, asked
from tests.scheduler.stage import queue_up, task_workload
from tests.support.rowless import never_look_for_rows

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from nats_executor.broker.port import Broker

WINDOW = 512
WAIT_SECONDS = 120.0
# What the scheduler of Airflow 3.3 loads of each row.
COLUMNS = ("id", "dag_id", "task_id", "run_id", "map_index", "state", "external_executor_id")


def main() -> None:
    count = asked()["count"]
    never_look_for_rows()
    left = [uuid.uuid4() for _ in range(count)]
    leave(left)
    heir = NatsExecutor()
    heir.job_id = 2
    heir.start()
    try:
        with create_session(scoped=False) as session:
            dag_id = add_rows(session, left)
            session.commit()
            gc.collect()  # what the set-up left behind must not be cleared up in the measured time
            orphans = load(session, dag_id)
            assert len(orphans) == count
            began = time.perf_counter()
            rejected = heir.try_adopt_task_instances(orphans)
            adopted = time.perf_counter()
            heir.sync()
            synced = time.perf_counter()
            assert not rejected, f"{len(rejected)} were not adopted"
            ended = len(part(left, 2))
            assert len(heir.event_buffer) >= ended
            assert len(heir.running) == count - ended
        answer({"adoption": adopted - began, "sync": synced - adopted})
    finally:
        heir.end()


def part(left: list[uuid.UUID], third: int) -> list[uuid.UUID]:
    return left[third::3]


def leave(left: list[uuid.UUID]) -> None:
    """Send what waits and what runs, and report as workers do; what is over has no message."""
    dead = NatsExecutor()
    dead.job_id = 1
    dead.start()
    try:
        sent = [*part(left, 0), *part(left, 1)]
        tasks = [task_workload(f"t{id_}", ti_id=id_, dispatch_id=str(id_)) for id_ in sent]
        queue_up(dead, *tasks)
        dead.heartbeat()
        assert len(dead.running) == len(sent)
        assert dead._connected
        broker = dead._connected.dispatcher.require_broker()
        for ids, state in ((part(left, 1), State.RUNNING), (part(left, 2), State.SUCCESS)):
            reporting = report(broker, dead, ids, state)
            dead._connected.bridge.call(reporting, timeout=WAIT_SECONDS)
    finally:
        dead.end()


async def report(
    broker: Broker, executor: NatsExecutor, ids: list[uuid.UUID], state: State
) -> None:
    names = executor._settings.names
    reports = [
        Report(
            dispatch_id=str(id_), queue="default", state=state, kind=Kind.TASK, key=[],
            worker="w1", worker_name="worker-1", at=time.time(),
        )
        for id_ in ids
    ]  # fmt: skip
    for window in batches(reports, WINDOW):
        await asyncio.gather(
            *(broker.publish(names.result(r.queue, r.dispatch_id), encode(r)) for r in window)
        )


def add_rows(session: Session, left: list[uuid.UUID]) -> str:
    """Insert the rows as the dead scheduler left them; returns the Dag's id."""
    name = f"dag-{uuid.uuid4()}"
    add(session, DagBundleModel, [{"name": name}])
    add(session, DagModel, [{
        "dag_id": name, "bundle_name": name, "max_active_tasks": 1,
        "max_consecutive_failed_dag_runs": 0, "has_task_concurrency_limits": False,
    }])  # fmt: skip
    add(session, DagRun, [{
        "dag_id": name, "run_id": "a_run", "run_type": "manual", "run_after": timezone.utcnow(),
        "state": DagRunState.RUNNING,
    }])  # fmt: skip
    common = {
        "dag_id": name, "run_id": "a_run", "try_number": 1, "queue": "default",
        "pool": "default_pool", "pool_slots": 1,
    }  # fmt: skip
    waiting = set(part(left, 0))
    add(session, TaskInstance, [
        common | {
            "id": id_, "task_id": f"t{id_}", "external_executor_id": str(id_),
            "state": TaskInstanceState.QUEUED if id_ in waiting else TaskInstanceState.RUNNING,
        }
        for id_ in left
    ])  # fmt: skip
    return name


def add(session: Session, model: Any, rows: list[dict[str, Any]]) -> None:
    session.execute(insert(model.__table__), rows)


def load(session: Session, dag_id: str) -> list[TaskInstance]:
    """Load rows as the scheduler does: a few columns only."""
    query = select(TaskInstance).where(TaskInstance.dag_id == dag_id)
    columns = [getattr(TaskInstance, name) for name in COLUMNS]
    return list(session.scalars(query.options(load_only(*columns))))


if __name__ == "__main__":
    main()

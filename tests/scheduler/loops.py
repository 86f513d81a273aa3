"""A mapped task in a loop, on the real scheduler's own methods, and workers that report on it.

All iterations of the loop are there at once. Airflow starts them one after the other, but the next
one may be queued while the end of an earlier attempt with the same coordinates is still to be told.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dag_version import DagVersion
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.pool import Pool
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import DAG, task, task_group, timezone
from airflow.serialization.definitions.dag import SerializedDAG
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import insert, select, update

from nats_executor.broker.port import Outgoing
from nats_executor.wire.messages import Report, State, Workload, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.orm import Session

    from nats_executor import NatsExecutor
    from tests.scheduler.stage import RealStage

__all__ = ["DAG_ID", "Loop", "Scheduler", "Workers"]

DAG_ID, RUN_ID, TASK_ID, GROUP_ID = "looping", "a_run", "body.work", "body"
RETRIES = 3
SUCCESS, RUNNING = TaskInstanceState.SUCCESS, TaskInstanceState.RUNNING


def written_dag() -> uuid.UUID:
    """Store the Dag as the Dag processor does; return its version's id."""
    with DAG(DAG_ID, schedule=None, max_active_tasks=100_000, is_paused_upon_creation=False) as dag:

        @task(retries=RETRIES, retry_delay=0)
        def work(number: int) -> None: ...

        @task_group
        def body() -> None:
            work.expand(number=[1])

        loop: Any = body
        loop.loop(max_iterations=2)
    with create_session(scoped=False) as session:
        session.add(DagBundleModel(name=DAG_ID))
        session.flush()
        lazy = LazyDeserializedDAG.from_dag(dag)
        SerializedDAG.bulk_write_to_db(DAG_ID, None, [lazy], session=session)
        SerializedDagModel.write_dag(lazy, bundle_name=DAG_ID, session=session)
        session.flush()
        version = session.scalars(select(DagVersion).where(DagVersion.dag_id == DAG_ID)).one()
        return version.id


class Loop:
    """The rows of one run: each index of the mapped task in each iteration.

    Args:
        regions: Airflow's module of that name, which 3.3 does not have.
    """

    def __init__(self, regions: Any, *, iterations: int, width: int) -> None:
        self.size = iterations * width
        version = written_dag()
        with create_session(scoped=False) as session:
            values = {"run_type": "manual", "run_after": timezone.utcnow(), "bundle_version": None}
            run = {"dag_id": DAG_ID, "run_id": RUN_ID, "state": DagRunState.RUNNING} | values
            session.execute(insert(DagRun).values(created_dag_version_id=version, conf={}, **run))
            session.execute(update(Pool).values(slots=100_000))
            place = partial(regions.DynamicRegion, dag_id=DAG_ID, run_id=RUN_ID)
            session.add(around := place(node_id=GROUP_ID))
            session.flush()
            for number in range(iterations):
                session.add(
                    region := place(
                        node_id=TASK_ID, parent_region_id=around.id, parent_region_index=number
                    )
                )
                session.flush()
                session.execute(
                    insert(TaskInstance),
                    [attempt(version, region.id, index) for index in range(width)],
                )

    def live(self) -> list[Any]:
        """Return what Airflow says of each task instance at present."""
        return self.all_where(TaskInstance.__table__.c.working_set.is_(True))

    def attempts(self) -> list[Any]:
        """Return what Airflow says of each attempt that there ever was."""
        return self.all_where(TaskInstance.__table__.c.dag_id == DAG_ID)

    def all_where(self, condition: Any) -> list[Any]:
        with create_session(scoped=False) as session:
            return list(session.execute(select(TaskInstance.__table__).where(condition)))


def attempt(version: uuid.UUID, region: uuid.UUID, index: int) -> dict[str, Any]:
    return {
        "id": uuid.uuid4(), "dag_id": DAG_ID, "run_id": RUN_ID, "task_id": TASK_ID,
        "region_id": region, "region_index": index, "try_number": 1, "max_tries": RETRIES,
        "state": TaskInstanceState.SCHEDULED, "queue": "default", "pool": "default_pool",
        "pool_slots": 1, "priority_weight": 1, "dag_version_id": version, "working_set": True,
        "operator": "_PythonDecoratedOperator",
    }  # fmt: skip


class Scheduler:
    """The part of Airflow's loop that concerns an executor, in its order."""

    def __init__(self, executor: NatsExecutor) -> None:
        self.executor = executor
        with create_session(scoped=False) as session:
            # Its id is known before an executor starts.
            given = Job(id=executor.job_id, job_type="SchedulerJob", state="running")
            job = session.merge(given)
            session.flush()
            session.expunge(job)
        job.max_tis_per_query = 0
        self.runner: Any = SchedulerJobRunner(job, executors=[executor])
        self.runner._parallelism = executor.parallelism

    def beat(self, *, loses_events: bool = False) -> None:
        """Go round once.

        Args:
            loses_events: the database takes back what the events have changed.
        """
        with create_session(scoped=False) as session:
            retries = TaskInstance.state == TaskInstanceState.UP_FOR_RETRY
            session.execute(
                update(TaskInstance).where(retries).values(state=TaskInstanceState.SCHEDULED)
            )
            self.runner._critical_section_enqueue_task_instances(session=session)
            session.commit()
            self.executor.heartbeat()
            self.runner._process_executor_events(executor=self.executor, session=session)
            if loses_events:
                session.rollback()
        with create_session(scoped=False) as session:
            self.runner._process_task_event_logs(self.executor._task_event_logs, session)


class Workers:
    """Take all that was sent, and let it come to what the seed says."""

    def __init__(self, stage: RealStage, seed: int) -> None:
        self.stage = stage
        self.chance = random.Random(seed)  # noqa: S311 - a test's
        self.dispatched: Counter[uuid.UUID] = Counter()
        self.fates: Counter[str] = Counter()
        self.late: list[Report] = []

    def work(self) -> None:
        """Run what waits; who died before its report is found dead when the next ones run."""
        reports, self.late = self.late, []
        sent = self.stage.sent()
        with create_session(scoped=False) as session:
            ids = [uuid.UUID(workload.body["ti"]["id"]) for workload in sent]
            self.dispatched.update(ids)
            found = session.scalars(select(TaskInstance).where(TaskInstance.id.in_(ids)))
            of_id = {ti.id: ti for ti in found}
            for workload, ti_id in zip(sent, ids, strict=True):
                reports += self.run(workload, of_id[ti_id], session)
        self.stage.portal.call(self.settle, sent, reports)

    def run(self, workload: Workload, ti: TaskInstance, session: Session) -> Iterable[Report]:
        fates = ["ends", "raises", "is killed", "loses its worker"]
        fate = self.chance.choice(fates) if ti.try_number <= RETRIES else "ends"
        self.fates[fate] += 1
        report = partial(
            Report, dispatch_id=workload.dispatch_id, queue=workload.queue, kind=workload.kind,
            key=workload.key, worker="w1", worker_name="worker-1", at=time.time(),
        )  # fmt: skip
        yield report(state=State.RUNNING)
        if fate == "ends":
            ti.state = SUCCESS
            yield report(state=State.SUCCESS)
        elif fate == "is killed":
            ti.state = RUNNING
            yield report(state=State.FAILED, info="the task process was ended by SIGKILL")
        else:
            # As the API server does when a task says that it failed.
            ti.state = TaskInstanceState.UP_FOR_RETRY
            session.flush()
            ti.prepare_db_for_next_try(session)
            if fate == "raises":
                yield report(state=State.SUCCESS)
            else:
                self.late.append(report(state=State.FAILED, info="worker worker-1 lost"))

    async def settle(self, sent: Sequence[Workload], reports: Sequence[Report]) -> None:
        """Publish the reports, then ack."""
        names, broker = self.stage.names, self.stage.broker
        outgoing = [Outgoing(names.result(r.queue, r.dispatch_id), encode(r)) for r in reports]
        outcomes = await broker.publish_all(outgoing, timeout=60)
        assert set(outcomes) <= {None}, outcomes
        subjects = [names.task(w.queue, w.dispatch_id) for w in sent]
        await asyncio.gather(*(broker.remove(names.tasks_stream, s) for s in subjects))

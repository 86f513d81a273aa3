"""Airflow's scheduler stores a request for a killed task's callback, on a real database.

The Dag processor runs the callbacks; `tests/airflow` has one.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.callbacks.database_callback_sink import DatabaseCallbackSink
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.db_callback_request import DbCallbackRequest
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import DAG, BaseOperator, timezone
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import delete, select, update
from sqlalchemy.exc import OperationalError

from nats_executor.wire.messages import State
from tests.scheduler.stage import task_workload
from tests.scheduler.table import JOB, VERSION
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats_executor import NatsExecutor
    from tests.scheduler.stage import Stage
    from tests.scheduler.table import Rows

# Their ends come in one batch: what befalls the session at the first one befalls the others.
TASKS = ("one", "two", "three")
DAG_REQUEST, TASK_REQUEST = "DagCallbackRequest", "TaskCallbackRequest"


class Broken(RuntimeError):
    """What the scheduler dies of."""


def tell(context: Any) -> None:
    """Nobody calls it: only the Dag processor would."""


class Scheduler:
    """Airflow's scheduler, as far as the ends of tasks and of Dag runs are concerned."""

    def __init__(self, stage: Stage, table: Rows) -> None:
        self.stage = stage
        self.table = table
        # Its streams have to be there, and a start does not wait long for them.
        stage.configure(connect_timeout_seconds=30)
        self.executor: NatsExecutor = stage.executor(job_id=JOB)
        self.executor.callback_sink = DatabaseCallbackSink()
        job = Job()
        job.id = JOB
        self.runner = SchedulerJobRunner(job, executors=[self.executor])

    def run_and_kill(self, *task_ids: str) -> None:
        """Have tasks run, and wait for the events of their deaths."""
        rows = [self.table.add_task(name, "running", max_tries=1) for name in task_ids]
        own = {row["dispatch_id"] for row in rows}
        for workload in self.stage.sent_by(self.executor, *(task_workload(**r) for r in rows)):
            if workload.dispatch_id in own:
                self.stage.report(workload, State.FAILED, info="killed by SIGKILL")

        def are_heard() -> bool:
            self.executor.heartbeat()
            return len(self.executor.event_buffer) >= len(task_ids)

        block_until(are_heard, 60, "the events")

    def process_events(self) -> None:
        """Do what the loop does with events, in a session as the loop opens it."""
        with create_session() as session:
            self.runner._process_executor_events(self.executor, session)

    def schedule(self) -> None:
        """Do what the loop does with the Dag runs that are due."""
        with create_session() as session:
            self.runner._do_scheduling(session)

    def states(self) -> dict[str, str]:
        """The states of the current tries."""
        with create_session(scoped=False) as session:
            found = session.execute(select(TaskInstance.task_id, TaskInstance.state))
            return {task_id: str(state) for task_id, state in found}

    def requested(self) -> Counter[tuple[str, str]]:
        """What the Dag processor is asked to run: kind and task, '' for a Dag's."""
        with create_session(scoped=False) as session:
            rows = session.scalars(select(DbCallbackRequest)).all()
            requests: list[Any] = [row.get_callback_request() for row in rows]
        return Counter(
            (type(r).__name__, r.ti.task_id if hasattr(r, "ti") else "") for r in requests
        )


@pytest.fixture
def scheduler(stage: Stage, table: Rows) -> Iterator[Scheduler]:
    with DAG("a_dag", schedule=None, on_failure_callback=tell) as dag:
        for task_id in TASKS:
            BaseOperator(task_id=task_id, retries=1, on_failure_callback=tell)
    with create_session(scoped=False) as session:
        row = SerializedDagModel(LazyDeserializedDAG.from_dag(dag))
        row.dag_version_id = VERSION
        session.add(row)
        session.execute(update(DagModel).values(is_paused=False, is_stale=False))
        session.execute(update(DagRun).values(run_after=timezone.utcnow() - timedelta(hours=1)))
    try:
        yield Scheduler(stage, table)
    finally:
        with create_session(scoped=False) as session:
            session.execute(delete(SerializedDagModel))
            session.execute(delete(DbCallbackRequest))


def test_killed_tasks_with_callbacks_are_tried_again_and_told_of_once(scheduler: Scheduler) -> None:
    """Airflow 3.4's own sink ends the scheduler: UNIQUE constraint failed: task_instance..."""
    scheduler.run_and_kill(*TASKS)

    scheduler.process_events()

    assert scheduler.states() == dict.fromkeys(TASKS, "up_for_retry")
    assert scheduler.requested() == {(TASK_REQUEST, task_id): 1 for task_id in TASKS}


def test_a_scheduler_that_dies_before_a_tasks_end_is_stored_has_not_asked_for_its_callback(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one hears of the same end, and would ask again."""

    def die(*_: object, **__: object) -> None:
        raise Broken

    scheduler.run_and_kill("one")
    monkeypatch.setattr(TaskInstance, "handle_failure", die)
    with pytest.raises(Broken):
        scheduler.process_events()

    assert scheduler.states() == {"one": "running"}
    assert scheduler.requested() == {}


def test_a_dags_callback_is_stored_whatever_comes_of_the_rest_of_the_loop(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop rolls back when another scheduler has the lock on the pools."""

    def is_locked_out(error: Exception) -> bool:
        return "lock" in str(error)

    def be_locked_out(*_: object, **__: object) -> None:
        raise OperationalError("", None, BaseException("could not obtain lock"))

    for task_id in TASKS:
        scheduler.table.add_task(task_id, TaskInstanceState.FAILED)
    module = "airflow.jobs.scheduler_job_runner"
    monkeypatch.setattr(f"{module}.is_lock_not_available_error", is_locked_out)
    monkeypatch.setattr(scheduler.runner, "_critical_section_enqueue_task_instances", be_locked_out)

    scheduler.schedule()

    assert scheduler.requested() == {(DAG_REQUEST, ""): 1}

"""Airflow's own sweep over tasks that are stuck in `queued`, on rows of a real database."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import timezone
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select

from nats_executor.fleet.queues import UNTIL_RESUMED
from nats_executor.scheduler import compat
from nats_executor.wire.messages import State
from nats_executor.wire.names import Lane, Verb
from tests.scheduler.stage import queue_up, task_workload
from tests.scheduler.table import JOB, announce
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_executor import NatsExecutor
    from nats_executor.wire.messages import Workload
    from tests.scheduler.stage import Stage
    from tests.scheduler.table import Rows

AGO = timedelta(hours=1)
# `announce` tells of a worker for the queue `default`.
WAITING = ("healthy-1", "healthy-2", "healthy-3")
UNSERVED = ("stuck-1", "stuck-2")


class Scheduler:
    """Airflow's scheduler, as far as tasks are concerned that wait."""

    def __init__(self, stage: Stage, table: Rows) -> None:
        self.stage = stage
        self.table = table
        stage.configure(worker_lost_seconds=600)
        # Its streams have to be there, and a start does not wait long for them.
        stage.configure(connect_timeout_seconds=30)
        self.executor: NatsExecutor = stage.executor(job_id=JOB)
        announce(stage)
        job = Job()
        job.id = JOB
        self.runner = SchedulerJobRunner(job, executors=[self.executor])

    def queue(self, task_id: str, queue: str) -> Workload:
        """Queue a new task, as it was an hour ago, and send it."""
        row = self.table.add_task(task_id, queue=queue, queued_dttm=timezone.utcnow() - AGO)
        return self.send(row, queue)

    def queue_again(self, task_id: str, queue: str) -> Workload:
        """Queue a task that the sweep gave back."""
        dispatch_id = f"{task_id} of {timezone.utcnow().isoformat()}"
        self.table.change_task(
            task_id, state=TaskInstanceState.QUEUED, queued_by_job_id=JOB,
            queued_dttm=timezone.utcnow() - AGO, external_executor_id=dispatch_id,
        )  # fmt: skip
        with create_session(scoped=False) as session:
            query = select(TaskInstance.id).where(TaskInstance.task_id == task_id)
            row = {"task_id": task_id, "ti_id": session.scalar(query), "dispatch_id": dispatch_id}
        return self.send(row, queue)

    def send(self, row: dict[str, Any], queue: str) -> Workload:
        found = self.stage.sent_by(self.executor, task_workload(**row, queue=queue))
        return next(w for w in found if w.dispatch_id == row["dispatch_id"])

    def sweep(self) -> None:
        """Do what Airflow does every two minutes, and write the audit log."""
        self.runner._handle_tasks_stuck_in_queued()
        with create_session(scoped=False) as session:
            self.runner._process_task_event_logs(self.executor._task_event_logs, session)

    def until_unserved(self, *lanes: Lane) -> None:
        assert self.executor._connected.dispatcher
        inspector = self.executor._connected.dispatcher.inspector

        def is_known() -> bool:
            self.executor.heartbeat()
            return set(inspector.unserved) == set(lanes)

        block_until(is_known, 30, "the queues without workers")

    def states(self) -> dict[str, str]:
        with create_session(scoped=False) as session:
            found = session.execute(select(TaskInstance.task_id, TaskInstance.state))
            return {task_id: str(state) for task_id, state in found}

    def audited(self, task_id: str) -> list[str]:
        with create_session(scoped=False) as session:
            query = select(Log.event, Log.extra).where(Log.task_id == task_id).order_by(Log.id)
            return [f"{event}: {extra}" for event, extra in session.execute(query)]


@pytest.fixture
def scheduler(stage: Stage, table: Rows) -> Scheduler:
    return Scheduler(stage, table)


def test_the_stuck_tasks_of_an_unserved_queue_do_not_hide_behind_a_healthy_backlog(
    scheduler: Scheduler,
) -> None:
    """Airflow ends its sweep over an executor's tasks at the first one that waits its turn."""
    for name in WAITING[:2]:
        scheduler.queue(name, "default")
    for name in UNSERVED:
        scheduler.queue(name, "nowhere")
    scheduler.queue(WAITING[2], "default")
    scheduler.until_unserved(Lane("nowhere"))

    scheduler.sweep()

    waiting, again = dict.fromkeys(WAITING, "queued"), dict.fromkeys(UNSERVED, "scheduled")
    assert scheduler.states() == waiting | again
    assert len(scheduler.executor.running) == len(scheduler.executor._events.ledger) == len(WAITING)
    stage = scheduler.stage
    block_until(lambda: len(stage.sent()) == len(WAITING), 30, "the revocations")
    assert {w.body["ti"]["task_id"] for w in stage.sent()} == set(WAITING)
    assert [scheduler.audited(name) for name in WAITING] == [[], [], []]
    for name in UNSERVED:
        requeued, reason = sorted(scheduler.audited(name), reverse=True)
        assert requeued.startswith("stuck in queued reschedule: ")
        assert reason.startswith("nats executor: no worker serves queue 'nowhere'")


def test_the_tasks_of_a_paused_queue_wait_for_its_operator(scheduler: Scheduler) -> None:
    """Also where its workers are gone, as an autoscaler ends those that get nothing."""
    scheduler.queue("paused", "away")
    scheduler.queue("stuck", "nowhere")
    scheduler.until_unserved(Lane("nowhere"), Lane("away"))
    names = scheduler.stage.names
    for band in range(3):
        consumer = names.consumer("away", band)
        scheduler.stage.ask("pause_consumer", names.tasks_stream, consumer, UNTIL_RESUMED)
    scheduler.until_unserved(Lane("nowhere"))

    scheduler.sweep()

    assert scheduler.states() == {"paused": "queued", "stuck": "scheduled"}
    assert scheduler.audited("paused") == []


def test_airflows_count_of_requeueings_ends_in_a_failure(scheduler: Scheduler) -> None:
    """Twice queued again, then failed, as in a sweep that meets no healthy task."""
    for name in WAITING:
        scheduler.queue(name, "default")
    scheduler.queue("stuck-1", "nowhere")
    scheduler.until_unserved(Lane("nowhere"))

    seen = []
    for _ in range(2):
        scheduler.sweep()
        seen.append(scheduler.states()["stuck-1"])
        scheduler.queue_again("stuck-1", "nowhere")
        scheduler.until_unserved(Lane("nowhere"))
    scheduler.sweep()

    assert seen == ["scheduled", "scheduled"]
    assert scheduler.states() == dict.fromkeys(WAITING, "queued") | {"stuck-1": "failed"}
    said = scheduler.audited("stuck-1")
    assert sum(line.startswith("stuck in queued reschedule") for line in said) == 2
    assert sum(line.startswith("stuck in queued tries exceeded") for line in said) == 1
    assert len(scheduler.executor.running) == len(scheduler.executor._events.ledger) == len(WAITING)


def test_a_stuck_task_that_was_not_sent_yet_is_found_as_well(scheduler: Scheduler) -> None:
    scheduler.queue("healthy-1", "default")
    scheduler.queue("stuck-1", "nowhere")
    scheduler.until_unserved(Lane("nowhere"))
    row = scheduler.table.add_task("stuck-2", queue="nowhere", queued_dttm=timezone.utcnow() - AGO)
    queue_up(scheduler.executor, task_workload(**row, queue="nowhere"))

    scheduler.sweep()

    states = {"healthy-1": "queued", "stuck-1": "scheduled", "stuck-2": "scheduled"}
    assert scheduler.states() == states
    assert scheduler.executor.slots_occupied == 1


def test_what_a_worker_holds_without_starting_it_is_taken_from_it(
    stage: Stage, table: Rows
) -> None:
    stage.monkeypatch.setenv("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT", "0.001")
    scheduler = Scheduler(stage, table)
    told: list[bytes] = []

    async def stop(body: bytes) -> bytes:
        told.append(body)
        return b"stopping"

    stage.ask("serve", stage.names.control("w1", Verb.STOP), stop)
    scheduler.queue("healthy-1", "default")
    hung = scheduler.queue("hung", "default")
    stage.report(hung, State.CLAIMED)
    stage.seen(scheduler.executor)
    runs = scheduler.queue("runs", "default")
    stage.report(runs, State.CLAIMED)
    stage.report(runs, State.RUNNING)
    stage.seen(scheduler.executor)

    scheduler.sweep()

    states = {"healthy-1": "queued", "hung": "scheduled", "runs": "queued"}
    assert {name: scheduler.states()[name] for name in states} == states
    block_until(lambda: told, 30, "the worker to be told")
    assert told == [hung.dispatch_id.encode()]
    _, reason = sorted(scheduler.audited("hung"), reverse=True)
    assert reason.startswith("nats executor: worker worker-1 has held it for ")
    assert "[scheduler] task_queued_timeout (0.001 s)" in reason


def test_what_a_worker_has_held_for_a_moment_is_left_with_it(scheduler: Scheduler) -> None:
    held = scheduler.queue("held", "nowhere")
    scheduler.queue("stuck-1", "nowhere")
    scheduler.stage.report(held, State.CLAIMED)
    scheduler.stage.seen(scheduler.executor)
    scheduler.until_unserved(Lane("nowhere"))

    scheduler.sweep()

    assert scheduler.states() == {"held": "queued", "stuck-1": "scheduled"}


def test_trouble_with_a_stuck_task_does_not_end_the_scheduler(
    scheduler: Scheduler, said: Callable[..., list[str]]
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no")

    scheduler.queue("healthy-1", "default")
    scheduler.queue("stuck-1", "nowhere")
    scheduler.until_unserved(Lane("nowhere"))
    scheduler.stage.monkeypatch.setattr(compat, "requeue_rule", lambda _: fail)

    scheduler.sweep()

    assert scheduler.states() == {"healthy-1": "queued", "stuck-1": "queued"}
    assert len(scheduler.executor._events.ledger) == 2
    [line] = said("cannot take stuck tasks back")
    assert line.endswith("; next: trying at Airflow's next sweep")


def test_an_airflow_without_that_rule_leaves_stuck_tasks_to_the_next_sweep(
    scheduler: Scheduler,
) -> None:
    scheduler.stage.monkeypatch.delattr(SchedulerJobRunner, "_maybe_requeue_stuck_ti")

    assert compat.requeue_rule(scheduler.executor) is None

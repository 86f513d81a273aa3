"""Fails task instances in Airflow for an operator; the executors then remove their messages.

Only tasks whose messages NATS has are touched. So none of another executor is, and none of another
team. An operator's login may not remove such a message itself: it cannot read its token either.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from airflow.jobs.job import Job
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import timezone
from airflow.utils.sqlalchemy import with_row_locks
from airflow.utils.state import TaskInstanceState
from sqlalchemy import ColumnElement, and_, or_, select

from nats_executor.audit_events import BY_ORDER
from nats_executor.batches import batches
from nats_executor.errors import ConfigError
from nats_executor.operations.database import airflow_session
from nats_executor.text import number_of, presentable

if TYPE_CHECKING:
    import uuid
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime

    from nats_executor.fleet.queues import Row

__all__ = [
    "QUEUED",
    "Author",
    "FoundTask",
    "TaskFilter",
    "cancel_tasks",
    "cancelled_rows",
    "find_tasks",
    "has_scheduler",
    "tasks_in_words",
]

QUEUED, RUNNING = TaskInstanceState.QUEUED, TaskInstanceState.RUNNING
# Task instances of one transaction, whose rows it locks.
LOCKED_AT_ONCE = 100
# Task instances that one command takes; another call takes the next ones.
MOST_TASKS = 50_000
LONGEST_ENTRY = 500
# Dags that a sentence names.
NAMED_DAGS = 10


class TaskFilter(NamedTuple):
    """The task instances that are meant: all that fit, whatever is None.

    Attributes:
        older_than: seconds since Airflow queued a task that waits, or since one that runs began.
    """

    dag: str | None = None
    run: str | None = None
    task: str | None = None
    map_index: int | None = None
    queue: str | None = None
    state: str | None = None
    older_than: float | None = None

    def require_any(self) -> TaskFilter:
        """Return the filter.

        Raises:
            ConfigError: it leaves out nothing, so all that is queued and runs would be cancelled.
        """
        if self == TaskFilter():
            options = "--dag, --run, --task, --map-index, --queue, --state or --older-than"
            raise ConfigError(f"say which tasks, by one at least of {options}")
        return self


class FoundTask(NamedTuple):
    """A task instance that is queued or runs."""

    id: uuid.UUID
    dispatch_id: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    queue: str
    state: str

    def as_row(self) -> Row:
        """Return what a list shows of it."""
        return {
            "dag": self.dag_id,
            "run": self.run_id,
            "task": self.task_id,
            "map_index": self.map_index if self.map_index >= 0 else None,
            "try": self.try_number,
            "queue": self.queue,
            "state": self.state,
            "dispatch_id": self.dispatch_id,
        }


class Author(NamedTuple):
    """The person who cancels tasks, why, and by which command, for Airflow's audit log."""

    name: str
    reason: str
    command: str


def find_tasks(wanted: TaskFilter, dispatches: Collection[str]) -> tuple[list[FoundTask], bool]:
    """Return the task instances that a filter leaves, and whether these are all of them.

    Args:
        dispatches: the ids of those that NATS has.

    Raises:
        DatabaseAway: the database gives no answer.
    """
    columns = (
        TaskInstance.id, TaskInstance.external_executor_id, TaskInstance.dag_id,
        TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index,
        TaskInstance.try_number, TaskInstance.queue, TaskInstance.state,
    )  # fmt: skip
    query = select(*columns).where(*conditions(wanted, timezone.utcnow()))
    query = query.order_by(TaskInstance.queued_dttm).execution_options(yield_per=1000)
    found: list[FoundTask] = []
    with airflow_session() as session:
        for row in session.execute(query):
            if row.external_executor_id in dispatches:
                if len(found) == MOST_TASKS:
                    return found, False
                found.append(FoundTask._make(row))
    return found, True


def conditions(wanted: TaskFilter, now: datetime) -> Iterator[ColumnElement[bool]]:
    """Yield what a row has to fulfil."""
    states = [QUEUED, RUNNING] if wanted.state is None else [wanted.state]
    yield TaskInstance.state.in_(states)
    places = {
        TaskInstance.dag_id: wanted.dag,
        TaskInstance.run_id: wanted.run,
        TaskInstance.task_id: wanted.task,
        TaskInstance.map_index: wanted.map_index,
        TaskInstance.queue: wanted.queue,
    }
    for column, value in places.items():
        if value is not None:
            yield column == value
    if wanted.older_than is not None:
        before = now - timedelta(seconds=wanted.older_than)
        yield or_(
            and_(TaskInstance.state == QUEUED, TaskInstance.queued_dttm <= before),
            and_(TaskInstance.state == RUNNING, TaskInstance.start_date <= before),
        )


def cancel_tasks(found: Sequence[FoundTask], author: Author) -> list[FoundTask]:
    """Fail task instances that are as they were found; return these.

    Airflow tries none of them again, as none of those that a person marks as failed.

    Raises:
        DatabaseAway: the database gives no answer; what was done before that stays.
    """
    cancelled: list[FoundTask] = []
    for batch in batches(found, LOCKED_AT_ONCE):
        with airflow_session() as session:
            of_id = {task.id: task for task in batch}
            query = select(TaskInstance).where(TaskInstance.id.in_(of_id))
            failed = []
            for row in session.scalars(with_row_locks(query, session, of=TaskInstance)):
                task = of_id[row.id]
                if (row.external_executor_id, row.state) == (task.dispatch_id, task.state):
                    session.add(audit_entry(row, author))
                    row.set_state(TaskInstanceState.FAILED, session=session)
                    failed.append(task)
        cancelled += failed  # it is committed now
    return cancelled


def audit_entry(row: TaskInstance, author: Author) -> Log:
    reason = f": {author.reason}" if author.reason else ""
    text = f"cancelled while it was {row.state}{reason}"[:LONGEST_ENTRY]
    return Log(
        event=BY_ORDER[author.command].name, task_instance=row, owner=author.name, extra=text
    )


def has_scheduler() -> bool:
    """Whether a scheduler of Airflow lives, by its heartbeat.

    Raises:
        DatabaseAway: the database gives no answer.
    """
    query = select(Job).where(Job.job_type == "SchedulerJob", Job.state == "running")
    with airflow_session() as session:
        return any(job.is_alive() for job in session.scalars(query))


def cancelled_rows(found: Sequence[FoundTask], cancelled: Collection[FoundTask]) -> list[Row]:
    """Return a row for each Dag: how many of its tasks are cancelled, and how many are not.

    Those that are not have begun, ended or were queued again since they were found.
    """
    all_of = Counter(task.dag_id for task in found)
    done = Counter(task.dag_id for task in cancelled)
    return [
        {"dag": dag, "cancelled": done[dag], "changed_meanwhile": count - done[dag]}
        for dag, count in all_of.items()
    ]


def tasks_in_words(found: Sequence[FoundTask]) -> str:
    """Say how many tasks there are, in which states and of which Dags."""
    states = Counter(task.state for task in found)
    dags = Counter(presentable(task.dag_id) for task in found)
    named = [f"{count} of {dag}" for dag, count in dags.most_common(NAMED_DAGS)]
    if len(dags) > NAMED_DAGS:
        named.append(f"the rest of {len(dags) - NAMED_DAGS} more Dags")
    in_states = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return f"{number_of(len(found), 'task')} ({in_states}): {', '.join(named)}"

"""Reads from Airflow's database what it knows of one task instance, and of the others around it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.configuration import conf
from airflow.exceptions import AirflowConfigException, UnknownExecutorException
from airflow.executors.executor_loader import ExecutorLoader
from airflow.jobs.job import Job
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import timezone
from airflow.utils.state import TaskInstanceState
from sqlalchemy import case, func, select

from nats_executor.audit_events import SAID
from nats_executor.errors import NotFound
from nats_executor.operations.database import airflow_session
from nats_executor.operations.facts import PACE_SECONDS, Ahead, Instance, Sender
from nats_executor.text import presentable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.orm import Session

    from nats_executor.settings import Settings

__all__ = ["Crowd", "WhichTask", "crowd_around", "from_database", "instance_of", "sender_of"]

# The events of Airflow's audit log that hold what this executor has said of the end of a try.
REMARKS = (SAID.name, "state mismatch")
# Of the Dags that are ahead, of the tasks that run, of the map indexes that there are.
MOST_DAGS, MOST_RUNS, MOST_INDEXES = 10, 5, 10
CLASS_NAME = "NatsExecutor"
UNMAPPED = -1
JOB_RUNS = "running"


class WhichTask(NamedTuple):
    """The task instance that is asked about; `team` is whose executor would run it."""

    dag: str
    run: str
    task: str
    map_index: int = UNMAPPED
    team: str | None = None


class Crowd(NamedTuple):
    """The other tasks of a queue.

    Attributes:
        started: how many have started within `PACE_SECONDS`.
        runs: some that run, with their hosts.
    """

    ahead: Ahead
    started: int
    runs: tuple[str, ...]


def from_database(question: Callable[[Session], Any]) -> Any:
    """Ask the database.

    Raises:
        DatabaseAway: it gives no answer.
    """
    with airflow_session() as session:
        return question(session)


def instance_of(wanted: WhichTask) -> Instance:
    """Return what the row of a task instance says.

    Raises:
        NotFound: there is no such task instance.
        DatabaseAway: the database gives no answer.
    """

    def ask(session: Session) -> Instance:
        return read_instance(session, wanted)

    instance: Instance = from_database(ask)
    return instance


def read_instance(session: Session, wanted: WhichTask) -> Instance:
    place = (
        TaskInstance.dag_id == wanted.dag,
        TaskInstance.run_id == wanted.run,
        TaskInstance.task_id == wanted.task,
    )
    columns = (
        TaskInstance.state, TaskInstance.queue, TaskInstance.executor, TaskInstance.try_number,
        TaskInstance.external_executor_id, TaskInstance.priority_weight, TaskInstance.pool_slots,
        TaskInstance.queued_dttm, TaskInstance.start_date, TaskInstance.end_date,
        TaskInstance.hostname, TaskInstance.queued_by_job_id,
    )  # fmt: skip
    # Attempts of Airflow 3.4 may share their coordinates: the one that was made last counts.
    query = select(*columns).where(*place, TaskInstance.map_index == wanted.map_index)
    row = session.execute(query.order_by(TaskInstance.id.desc()).limit(1)).one_or_none()
    if row is None:
        of_indexes = select(TaskInstance.map_index).where(*place)
        indexes = session.scalars(of_indexes.order_by(TaskInstance.map_index).limit(MOST_INDEXES))
        raise unknown(wanted, list(indexes))
    return Instance(
        dag=wanted.dag,
        run=wanted.run,
        task=wanted.task,
        map_index=None if wanted.map_index == UNMAPPED else wanted.map_index,
        try_number=row.try_number,
        state=str(row.state or ""),
        queue=row.queue or conf.get_mandatory_value("operators", "default_queue"),
        executor=row.executor or "",
        is_ours=is_of_nats(row.executor, wanted.team),
        dispatch_id=row.external_executor_id or "",
        priority=row.priority_weight or 0,
        weight=row.pool_slots,
        queued_at=epoch(row.queued_dttm),
        started_at=epoch(row.start_date),
        ended_at=epoch(row.end_date),
        worker=row.hostname or "",
        sender_job=row.queued_by_job_id,
        remark=remark_on(session, wanted, row.try_number),
    )


def unknown(wanted: WhichTask, indexes: Sequence[int]) -> NotFound:
    """Return the error about a task instance that is not there."""
    task, dag, run = map(presentable, (wanted.task, wanted.dag, wanted.run))
    what = f"Airflow has no task {task!r} in run {run!r} of Dag {dag!r}"
    if not indexes:
        return NotFound(f"{what}; see: airflow tasks states-for-dag-run {dag} {run}")
    there = ", ".join(map(str, indexes))
    if indexes == [UNMAPPED]:
        return NotFound(f"task {task!r} is not mapped; leave --map-index out")
    more = " and more" if len(indexes) == MOST_INDEXES else ""
    return NotFound(f"task {task!r} is mapped: say which with --map-index; there are {there}{more}")


def remark_on(session: Session, wanted: WhichTask, try_number: int) -> str:
    """Return what this executor has said of a try, the last time."""
    query = (
        select(Log.extra)
        .where(
            Log.dag_id == wanted.dag,
            Log.task_id == wanted.task,
            Log.run_id == wanted.run,
            Log.map_index == wanted.map_index,
            Log.try_number == try_number,
            Log.event.in_(REMARKS),
        )
        .order_by(Log.id.desc())
        .limit(1)
    )
    return session.scalar(query) or ""


def is_of_nats(executor: str | None, team: str | None) -> bool:
    """Whether this machine's configuration gives a task with such an `executor` to this one."""
    try:
        if executor:
            name = ExecutorLoader.lookup_executor_name_by_str(executor, team, validate_teams=False)
        else:
            name = ExecutorLoader.get_default_executor_name(team)
    except (AirflowConfigException, UnknownExecutorException, KeyError):
        return False
    return name.module_path.rpartition(".")[-1] == CLASS_NAME


def crowd_around(instance: Instance, settings: Settings) -> Crowd:
    """Return what Airflow knows of the other tasks of a queue.

    Raises:
        DatabaseAway: the database gives no answer.
    """
    now = timezone.utcnow()

    def ask(session: Session) -> Crowd:
        earlier = same = 0
        by_dag = []
        for dag, count, of_then in session.execute(those_ahead(instance, settings)):
            earlier, same = earlier + count - of_then, same + of_then
            by_dag.append((dag, count))
        ahead = Ahead(earlier, earlier + same, tuple(by_dag[:MOST_DAGS]))
        return Crowd(ahead, session.scalar(starts(instance.queue, now)) or 0, runs(session))

    def runs(session: Session) -> tuple[str, ...]:
        found = session.execute(running_tasks(instance.queue))
        return tuple(f"{row.dag_id}.{row.task_id} on {row.hostname}" for row in found)

    crowd: Crowd = from_database(ask)
    return crowd


def those_ahead(instance: Instance, settings: Settings) -> Any:
    """Count what is queued with a higher band, or in the same one not later, for each Dag."""
    lane = settings.lane(instance.queue, instance.priority)
    thresholds = settings.priority_bands if settings.lanes(instance.queue)[0].band else ()
    queued_at = time_at(instance.queued_at)
    is_first: Any = TaskInstance.queued_dttm <= queued_at
    of_then: Any = TaskInstance.queued_dttm == queued_at
    if lane.band > 0:
        is_first = is_first & (TaskInstance.priority_weight >= thresholds[lane.band - 1])
    if lane.band < len(thresholds):
        is_first = is_first | (TaskInstance.priority_weight >= thresholds[lane.band])
        of_then = of_then & (TaskInstance.priority_weight < thresholds[lane.band])
    count = func.count().label("count")
    return (
        select(TaskInstance.dag_id, count, func.sum(case((of_then, 1), else_=0)))
        .where(
            TaskInstance.state == TaskInstanceState.QUEUED,
            TaskInstance.queue == instance.queue,
            # Not itself, and nothing that was never given to an executor: that has null there.
            TaskInstance.external_executor_id != instance.dispatch_id,
            is_first,
        )
        .group_by(TaskInstance.dag_id)
        .order_by(count.desc(), TaskInstance.dag_id)
    )


def starts(queue: str, now: datetime) -> Any:
    """Count what has started of late; only the column of heartbeats has an index for that."""
    since = now - timedelta(seconds=PACE_SECONDS)
    return select(func.count()).where(
        TaskInstance.last_heartbeat_at >= since,
        TaskInstance.start_date >= since,
        TaskInstance.queue == queue,
    )


def running_tasks(queue: str) -> Any:
    return (
        select(TaskInstance.dag_id, TaskInstance.task_id, TaskInstance.hostname)
        .where(TaskInstance.state == TaskInstanceState.RUNNING, TaskInstance.queue == queue)
        .order_by(TaskInstance.start_date)
        .limit(MOST_RUNS)
    )


def sender_of(job: int | None) -> Sender:
    """Return what Airflow knows of the scheduler that has queued a task instance.

    Raises:
        DatabaseAway: the database gives no answer.
    """
    threshold = conf.getint("scheduler", "scheduler_health_check_threshold")
    active = (TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)
    taken = select(func.count()).where(
        TaskInstance.queued_by_job_id == job, TaskInstance.state.in_(active)
    )

    def ask(session: Session) -> Sender:
        row = session.execute(
            select(Job.state, Job.latest_heartbeat).where(Job.id == job)
        ).one_or_none()
        beat = epoch(row.latest_heartbeat) if row else None
        silent = None if beat is None else max(0.0, timezone.utcnow().timestamp() - beat)
        is_late = silent is None or silent > threshold
        return Sender(
            taken=session.scalar(taken) or 0,
            slots=conf.getint("core", "parallelism"),
            silent=silent,
            is_lost=row is not None and (is_late or row.state != JOB_RUNS),
        )

    sender: Sender = from_database(ask)
    return sender


def epoch(moment_: datetime | None) -> float | None:
    return None if moment_ is None else moment_.timestamp()


def time_at(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

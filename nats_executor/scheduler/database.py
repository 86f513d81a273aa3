"""Asks Airflow's database about the rows that the executor adopts, repairs and checks on.

Every function that opens a session of its own returns None when the database gives no answer:
the scheduler notices that by itself, and these questions can wait.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from airflow.configuration import conf
from airflow.executors.executor_loader import ExecutorLoader
from airflow.models.callback import CallbackKey, ExecutorCallback
from airflow.models.connection_test import ConnectionTestKey, ConnectionTestRequest
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.sdk import timezone
from airflow.utils.session import create_session
from airflow.utils.state import CallbackState, TaskInstanceState
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import joinedload, object_session

from nats_executor.batches import batches
from nats_executor.scheduler import compat
from nats_executor.scheduler.ledger import Dispatch
from nats_executor.wire.messages import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow.executors.executor_utils import ExecutorName
    from airflow.executors.workloads import ExecutorWorkload
    from airflow.executors.workloads.types import WorkloadKey
    from sqlalchemy.orm import Session

    from nats_executor.settings import Settings
    from nats_executor.wire.names import Lane

__all__ = [
    "WAITING",
    "Identity",
    "Owner",
    "archived",
    "identities",
    "queued_longer",
    "standing",
    "unfinished",
    "unwanted",
    "workloads_again",
]

log = logging.getLogger(__name__)

# SQLite takes 999 variables in a statement at the least.
ROWS_PER_QUERY = 500
WAITING = "queued"  # the same word for tasks, callbacks and connection tests

Asked = ParamSpec("Asked")
Found = TypeVar("Found")


def unless_away(question: Callable[Asked, Found]) -> Callable[Asked, Found | None]:
    """Have a question return None where the database gives no answer."""

    @functools.wraps(question)
    def ask(*args: Asked.args, **kwargs: Asked.kwargs) -> Found | None:
        try:
            return question(*args, **kwargs)
        except SQLAlchemyError as exc:
            log.debug("%s: %s; next: asking again later", question.__name__, exc)
        except Exception:
            # One row that was not foreseen must not end the scheduler.
            log.exception("a question to the database failed; next: asking again later")
        return None

    return ask


class Identity(NamedTuple):
    """One attempt of a task."""

    ti: TaskInstance
    key: WorkloadKey
    coordinates: TaskInstanceKey
    lane: Lane


class Owner(NamedTuple):
    """The executor that rows belong to, by what they say of it."""

    job_id: Any  # of its scheduler
    name: ExecutorName | None
    team_name: str | None


def identities(tis: Sequence[TaskInstance], settings: Settings) -> Iterator[Identity]:
    """Yield each task instance with its key, coordinates and lane.

    The scheduler does not load all of these columns for adoption, and touching them would cost one
    query for each row. The rows' own session is used: another one, if it were Airflow's
    scoped session, would detach the scheduler's objects.
    """
    columns = TaskInstance.try_number, TaskInstance.queue, TaskInstance.priority_weight
    facts: dict[Any, tuple[Any, ...]] = {}
    session = object_session(tis[0]) if tis else None
    if session is not None:
        for batch in batches(tis, ROWS_PER_QUERY):
            ids = [ti.id for ti in batch]
            query = select(TaskInstance.id, *columns).where(TaskInstance.id.in_(ids))
            facts.update({row.id: tuple(row)[1:] for row in session.execute(query)})
    for ti in tis:
        found = facts.get(ti.id) or (ti.try_number, ti.queue, ti.priority_weight)
        try_number, queue, priority = found
        named = TaskInstanceKey(ti.dag_id, ti.task_id, ti.run_id, try_number, ti.map_index)
        lane = settings.lane(queue or compat.default_queue(), priority or 0)
        yield Identity(ti, compat.key_of_task(ti, named), named, lane)


def queued_longer(
    session: Session, subjects: Sequence[str], job_id: Any, seconds: float
) -> Iterator[TaskInstance]:
    """Yield those of these task instances that are queued for longer, as Airflow's sweep asks."""
    for batch in batches(subjects, ROWS_PER_QUERY):
        query = select(TaskInstance).where(
            TaskInstance.id.in_(map(uuid.UUID, batch)),
            TaskInstance.state == TaskInstanceState.QUEUED,
            TaskInstance.queued_by_job_id == job_id,
            TaskInstance.queued_dttm < timezone.utcnow() - timedelta(seconds=seconds),
        )
        yield from session.scalars(query).all()


@unless_away
def archived(attempts: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Return which of these attempts are history, which Airflow 3.4 keeps in the same table."""
    columns = TaskInstance.__table__.c  # a query of the class itself leaves history out
    found: list[uuid.UUID] = []
    with create_session(scoped=False) as session:
        for batch in batches(attempts, ROWS_PER_QUERY):
            is_past = columns.id.in_(batch), columns.working_set.is_(None)
            found += session.scalars(select(columns.id).where(*is_past))
    return found


@unless_away
def standing(dispatches: Sequence[Dispatch], job_id: Any) -> dict[str, str]:
    """Return the state of each row that still waits for the end of its dispatch, by dispatch id.

    A row that is missing has ended, was queued again or belongs to another scheduler by now.
    """
    of_kind = by_kind(dispatches)
    found: dict[str, str] = {}
    with create_session(scoped=False) as session:
        for batch in batches(of_kind[Kind.TASK], ROWS_PER_QUERY):
            found |= standing_tasks(session, batch, job_id)
        for model, kind in (
            (ExecutorCallback, Kind.CALLBACK),
            (ConnectionTestRequest, Kind.CONNECTION_TEST),
        ):
            for batch in batches(of_kind[kind], ROWS_PER_QUERY):
                query = select(model.id, model.state).where(model.id.in_(subjects(batch)))
                found |= {
                    str(row.id): str(row.state)
                    for row in session.execute(query)
                    if row.state in {WAITING, CallbackState.RUNNING}
                }
    return found


def standing_tasks(session: Session, batch: Sequence[Dispatch], job_id: Any) -> dict[str, str]:
    by_row = {uuid.UUID(dispatch.token_subject): dispatch for dispatch in batch}
    query = select(TaskInstance.id, TaskInstance.state, TaskInstance.external_executor_id).where(
        TaskInstance.id.in_(by_row),
        TaskInstance.queued_by_job_id == job_id,
        TaskInstance.state.in_(
            [TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING]
        ),
    )
    # The scheduler may not have stored an id yet that we minted.
    return {
        by_row[row.id].id: str(row.state)
        for row in session.execute(query)
        if row.external_executor_id in {by_row[row.id].id, None}
    }


@unless_away
def unwanted(dispatches: Sequence[Dispatch]) -> list[Dispatch]:
    """Return those of these tasks' dispatches that no row waits for any more.

    A row that waits may belong to another scheduler by now, and an id that we minted may not be
    stored yet. A scheduler commits a row before it sends, and each queueing has an id of its own:
    what is not wanted now will not be wanted later.
    """
    found: list[Dispatch] = []
    columns = TaskInstance.id, TaskInstance.state, TaskInstance.external_executor_id
    waits = {TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING}
    with create_session(scoped=False) as session:
        for batch in batches(dispatches, ROWS_PER_QUERY):
            # Without the state: SQLite would go by that, through all that is queued.
            query = select(*columns).where(TaskInstance.id.in_(subjects(batch)))
            known = {
                str(row.id): row.external_executor_id
                for row in session.execute(query)
                if row.state in waits
            }
            found += [d for d in batch if known.get(d.token_subject, "") not in {d.id, None}]
    return found


@unless_away
def workloads_again(
    dispatches: Sequence[Dispatch], job_id: Any, mint: compat.Mint
) -> list[ExecutorWorkload]:
    """Make the workloads of those dispatches again whose rows are queued, with new tokens."""
    of_kind = by_kind(dispatches)
    made: list[ExecutorWorkload] = []
    with create_session(scoped=False) as session:
        for batch in batches(of_kind[Kind.TASK], ROWS_PER_QUERY):
            made += tasks_again(session, batch, job_id, mint)
        for row in waiting(session, ExecutorCallback, of_kind[Kind.CALLBACK]):
            dag_run = session.get(DagRun, row.data["dag_run_id"])
            with reported(row):
                made.append(mint.callback(row, dag_run))
        for row in waiting(session, ConnectionTestRequest, of_kind[Kind.CONNECTION_TEST]):
            with reported(row):
                made.append(mint.connection_test(row))
    return made


@contextlib.contextmanager
def reported(row: Any) -> Iterator[None]:
    """Log what keeps one row from becoming a workload; it must not keep the others."""
    try:
        yield
    except SQLAlchemyError:
        raise
    except Exception:
        log.exception("cannot make the workload of %s; next: leaving it to Airflow", row)


def tasks_again(
    session: Session, batch: Sequence[Dispatch], job_id: Any, mint: compat.Mint
) -> list[ExecutorWorkload]:
    made: list[ExecutorWorkload] = []
    states = standing_tasks(session, batch, job_id)
    ids = {uuid.UUID(d.token_subject): d.id for d in batch if states.get(d.id) == WAITING}
    query = select(TaskInstance).where(TaskInstance.id.in_(ids))
    of_run = joinedload(TaskInstance.dag_run)
    if compat.AIRFLOW_V_3_4_PLUS:  # the version's data go along
        of_run = of_run.joinedload(DagRun.created_dag_version)
    tis = session.scalars(query.options(joinedload(TaskInstance.dag_model), of_run)).all()
    contexts = compat.log_contexts(tis, session)
    for ti in tis:
        with reported(ti):
            workload = mint.task(ti, contexts)
            workload.ti.external_executor_id = ids[ti.id]
            made.append(workload)
    return made


def waiting(session: Session, model: Any, batch: Sequence[Dispatch]) -> Iterable[Any]:
    query = select(model).where(model.id.in_(subjects(batch)), model.state == WAITING)
    return session.scalars(query) if batch else ()


@unless_away
def unfinished(owner: Owner, settings: Settings) -> list[Dispatch]:
    """Return the callbacks and connection tests that some scheduler gave to an executor like this.

    Airflow adopts task instances only. Those of a dead scheduler would stay queued for ever.
    """
    with create_session(scoped=False) as session:
        callbacks = select(ExecutorCallback).where(
            ExecutorCallback.state.in_([CallbackState.QUEUED, CallbackState.RUNNING])
        )
        tests = select(ConnectionTestRequest).where(ConnectionTestRequest.state == WAITING)
        rows: Iterable[Any] = (*session.scalars(callbacks), *session.scalars(tests))
        return [dispatch_of(row, settings) for row in rows if is_for(owner, row, session)]


def dispatch_of(row: Any, settings: Settings) -> Dispatch:
    """Return the dispatch of a callback or connection test; its id is the row's own."""
    subject = str(row.id)
    if isinstance(row, ExecutorCallback):  # without a queue in Airflow 3.3 and 3.4
        key: Any = CallbackKey(subject)
        kind, queue = Kind.CALLBACK, None
    else:
        key = ConnectionTestKey(subject)
        kind, queue = Kind.CONNECTION_TEST, row.queue
    lane = settings.lane(queue or compat.default_queue(), priority=None)
    return Dispatch(subject, key, lane.queue, kind, subject, lane.band)


def is_for(owner: Owner, row: Any, session: Session) -> bool:
    """Whether the scheduler's routing gives a row to this executor (`_try_to_load_executor`)."""
    if conf.getboolean("core", "multi_team"):
        dag_id = row.get_dag_id()
        team = DagModel.get_team_name(dag_id, session=session) if dag_id else row.team_name
        if team != owner.team_name:
            return False
    wanted, name = row.get_executor_name(), owner.name
    if wanted is None:
        return name is None or name == ExecutorLoader.get_default_executor_name(owner.team_name)
    return name is not None and wanted in {
        name.alias,
        name.module_path,
        name.module_path.rpartition(".")[-1],
    }


def by_kind(dispatches: Sequence[Dispatch]) -> dict[str, list[Dispatch]]:
    found: dict[str, list[Dispatch]] = {kind: [] for kind in Kind}
    for dispatch in dispatches:
        found[dispatch.kind].append(dispatch)
    return found


def subjects(batch: Sequence[Dispatch]) -> list[uuid.UUID]:
    return [uuid.UUID(dispatch.token_subject) for dispatch in batch]

"""Has Airflow run the tasks again that became dead letters, where it still waits for that.

Airflow has failed the task instance of a dead letter, because the worker reported it failed. So the
letter itself is never sent: Airflow clears the task instance, and its scheduler sends a new try.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.configuration import conf
from airflow.models.dagbag import DBDagBag
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.utils.sqlalchemy import with_row_locks
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select
from sqlalchemy.orm import joinedload

from nats_executor.audit_events import BY_ORDER
from nats_executor.batches import batches
from nats_executor.operations.database import airflow_session
from nats_executor.wire.messages import Kind
from nats_executor.wire.names import token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from nats_executor.fleet.letters import Letter
    from nats_executor.fleet.queues import Row

__all__ = ["clear_again", "outcome_row"]

# Task instances of one transaction.
AT_ONCE = 100
# Why a letter of any kind but a task cannot be retried.
KINDS: dict[str, str] = {
    "": "it cannot be read, so its task is not known: find it in Airflow and clear it there",
    Kind.CALLBACK: "a callback cannot be retried: Airflow runs each once",
    Kind.CONNECTION_TEST: "a connection test cannot be retried: start another one in Airflow",
}


class RetryOutcome(NamedTuple):
    """The end of one letter; `refusal` says why it is not retried, '' if it is."""

    letter: Letter
    refusal: str


def clear_again(letters: Sequence[Letter], *, by: str, is_trial: bool) -> list[RetryOutcome]:
    """Clear the task instances of letters, each only if it is as its letter left it.

    Args:
        by: the person, for Airflow's audit log.
        is_trial: change nothing, and say what would happen.

    Raises:
        DatabaseAway: the database gives no answer.
    """
    outcomes: list[RetryOutcome] = []
    for batch in batches(letters, AT_ONCE):
        with airflow_session() as session:
            outcomes += clear_batch(session, batch, by=by, is_trial=is_trial)
    return outcomes


def outcome_row(outcome: RetryOutcome, *, is_trial: bool = False) -> Row:
    """Return a row about what became of a letter, or would become of it."""
    letter = outcome.letter
    return {
        "sequence": letter.sequence,
        "dag": letter.dag,
        "run": letter.run,
        "task": letter.task,
        "map_index": letter.map_index,
        "outcome": "kept" if outcome.refusal else "would be retried" if is_trial else "retried",
        "why_not": outcome.refusal or None,
    }


def clear_batch(
    session: Session, letters: Sequence[Letter], *, by: str, is_trial: bool
) -> list[RetryOutcome]:
    rows = instances_of(session, letters)
    dags = DBDagBag(load_op_links=False)
    outcomes: list[RetryOutcome] = []
    cleared: dict[Any, TaskInstance] = {}
    for letter in letters:
        row = rows.get(letter.instance or "")
        why_not = refusal(letter, row)
        if row is not None and not why_not:
            dag = dags.get_dag_for_run(dag_run=row.dag_run, session=session)
            if dag is None or not dag.has_task(row.task_id):
                why_not = "its Dag no longer has this task"
            else:
                below = dag.get_task(row.task_id).get_flat_relative_ids(upstream=False)
                held_up = held_up_by(session, row, below)
                cleared |= {place_of(instance): instance for instance in (row, *held_up)}
                if not is_trial:
                    session.add(audit(row, letter, by))
        outcomes.append(RetryOutcome(letter, why_not))
    if cleared and not is_trial:
        clear_task_instances(list(cleared.values()), session)
    return outcomes


def instances_of(session: Session, letters: Sequence[Letter]) -> dict[str, TaskInstance]:
    """Return the task instances of letters by their ids, locked until the session ends."""
    ids = [id_ for letter in letters if (id_ := as_uuid(letter.instance))]
    query = (
        select(TaskInstance)
        .where(TaskInstance.id.in_(ids))
        .options(joinedload(TaskInstance.dag_run, innerjoin=True))
    )
    query = with_row_locks(query, session, of=TaskInstance)
    return {str(row.id): row for row in session.scalars(query)}


def as_uuid(text: str | None) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except (ValueError, TypeError):
        return None


def refusal(letter: Letter, row: TaskInstance | None) -> str:
    """Return why Airflow does not want a letter's workload again, '' if it does.

    Anyone with a worker's login may have written the letter. So it has to name the dispatch that
    Airflow knows, and may only be about its own queue.
    """
    if letter.kind != Kind.TASK:
        return KINDS.get(letter.kind, "it is no task")
    if row is None:
        return "Airflow has started another try since, or has deleted the task instance"
    return refusal_of(row, letter)


def refusal_of(row: TaskInstance, letter: Letter) -> str:
    if row.external_executor_id not in {None, letter.dispatch_id}:
        return "Airflow has sent the task again since"
    queue = row.queue or conf.get_mandatory_value("operators", "default_queue")
    if token(queue) != letter.queue_token:
        return "its task instance is in another queue"
    if row.state == TaskInstanceState.FAILED:
        return ""
    if row.state == TaskInstanceState.UP_FOR_RETRY:
        return "Airflow tries it again by itself"
    return f"Airflow no longer wants it: the task instance is {row.state or 'cleared'}"


def held_up_by(session: Session, row: TaskInstance, below: set[str]) -> Sequence[TaskInstance]:
    """Return the tasks downstream that did not run because this one failed."""
    query = select(TaskInstance).where(
        TaskInstance.dag_id == row.dag_id,
        TaskInstance.run_id == row.run_id,
        TaskInstance.task_id.in_(below),
        TaskInstance.state == TaskInstanceState.UPSTREAM_FAILED,
    )
    return session.scalars(query).all()


def place_of(row: TaskInstance) -> tuple[str, str, str, int]:
    return (row.dag_id, row.run_id, row.task_id, row.map_index)


def audit(row: TaskInstance, letter: Letter, by: str) -> Log:
    text = f"dead letter {letter.sequence} of dispatch {letter.dispatch_id}"
    return Log(event=BY_ORDER["dead-letters retry"].name, task_instance=row, owner=by, extra=text)

"""Lists what waits in a queue, in Airflow's words and in the order in which workers take it.

NATS tells which dispatches wait, and Airflow's database which tasks those are. So no workload is
read, and no token either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select

from nats_executor.fleet.queues import unknown_queue
from nats_executor.operations.database import airflow_session
from nats_executor.topology.setup import known_queues

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from nats_executor.broker.port import Broker
    from nats_executor.fleet.queues import Row
    from nats_executor.settings import Settings
    from nats_executor.wire.names import Lane

__all__ = ["peek", "queued_tasks", "waiting_rows"]

# Rows that one look takes from the database, the oldest ones.
MOST_ROWS = 20_000


class Peeked(NamedTuple):
    """The dispatches of a queue that NATS has, and whether it listed all of them."""

    dispatches: set[str]
    is_whole: bool


class QueuedTask(NamedTuple):
    """A task instance that is queued, as its row has it."""

    dispatch_id: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    priority_weight: int
    queued_at: datetime | None


async def peek(broker: Broker, settings: Settings, queue: str | None) -> Peeked:
    """Look which dispatches NATS has, of a queue or of all: those that wait and those that run.

    Raises:
        NotFound: no queue has that name.
    """
    names = settings.names
    if queue is None:
        places = [names.tasks()]
    else:
        known = await known_queues(broker, settings)
        if queue not in known:
            raise unknown_queue(queue, known)
        places = [names.tasks(lane) for lane in settings.lanes(queue)]
    dispatches: set[str] = set()
    is_whole = True
    for place in places:
        found = await broker.subjects(names.tasks_stream, place)
        dispatches |= {names.place(subject).dispatch_id for subject in found.messages}
        is_whole &= found.is_whole
    return Peeked(dispatches, is_whole)


def queued_tasks(queue: str) -> list[QueuedTask]:
    """Return the task instances that Airflow has queued for a queue, the oldest first.

    Raises:
        DatabaseAway: the database gives no answer.
    """
    columns = (
        TaskInstance.external_executor_id, TaskInstance.dag_id, TaskInstance.run_id,
        TaskInstance.task_id, TaskInstance.map_index, TaskInstance.try_number,
        TaskInstance.priority_weight, TaskInstance.queued_dttm,
    )  # fmt: skip
    query = (
        select(*columns)
        .where(
            TaskInstance.state == TaskInstanceState.QUEUED,
            TaskInstance.queue == queue,
            TaskInstance.external_executor_id.is_not(None),
        )
        .order_by(TaskInstance.queued_dttm)
        .limit(MOST_ROWS)
    )
    with airflow_session() as session:
        return [QueuedTask._make(row) for row in session.execute(query)]


def waiting_rows(
    queued: Sequence[QueuedTask],
    dispatches: Collection[str],
    settings: Settings,
    queue: str,
    *,
    now: datetime,
    limit: int,
) -> list[Row]:
    """Return a row for each task that waits in NATS, the one that is next first.

    Workers take the highest priority band first, and in it what was sent first.
    """
    waiting = [(settings.lane(queue, task.priority_weight), task) for task in queued
               if task.dispatch_id in dispatches]  # fmt: skip
    waiting.sort(key=in_order)
    return [
        {
            "position": position,
            "dag": task.dag_id,
            "run": task.run_id,
            "task": task.task_id,
            "map_index": task.map_index if task.map_index >= 0 else None,
            "try": task.try_number,
            "waits_seconds": max(0, int((now - task.queued_at).total_seconds()))
            if task.queued_at
            else None,
            "priority": task.priority_weight,
            "band": lane.band,
            "dispatch_id": task.dispatch_id,
        }
        for position, (lane, task) in enumerate(waiting[:limit], start=1)
    ]


def in_order(waiting: tuple[Lane, QueuedTask]) -> tuple[int, float]:
    """Return the key by which tasks that wait are sorted."""
    lane, task = waiting
    return -lane.band, task.queued_at.timestamp() if task.queued_at else 0.0

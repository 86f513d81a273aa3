"""Reads the records of all workers, names their states, and finds who serves a lane."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from nats_executor.fleet.liveness import records_under
from nats_executor.fleet.presences import Seen, merged

if TYPE_CHECKING:
    from collections.abc import Collection

    from nats_executor.broker.port import Broker
    from nats_executor.fleet.presences import Record
    from nats_executor.settings import Settings
    from nats_executor.wire.names import Lane

__all__ = ["seen_workers", "served_queues", "serving", "takes_workloads", "worker_state"]

# Records that are dealt with in another thread.
MANY = 1000


async def seen_workers(
    broker: Broker, settings: Settings, queues: Collection[str] | None = None
) -> list[Seen]:
    """Return what the workers bucket says of workers, each once.

    Args:
        queues: look only under the keys of these. A look takes in a limited number of records, so
            whatever is decided about a queue must not depend on what others write.
    """
    names = settings.names
    if (info := await broker.stream_info(names.workers_stream)) is None:
        return []
    subjects = [names.presences()]
    if queues is not None:
        # Workers of the release before have records without a queue.
        subjects = [*map(names.presences, queues), names.older_presences()]
    records: list[Record] = []
    for subject in subjects:
        records += await records_under(broker, names, subject)

    merge = partial(merged, records, now=info.time, lost_after_seconds=settings.worker_lost_seconds)
    # As many as that would hold the loop for tenths of a second.
    return await asyncio.to_thread(merge) if len(records) > MANY else merge()


def worker_state(seen: Seen, settings: Settings) -> str:
    """Name a worker's state, by the age of its record."""
    if seen.age > settings.worker_lost_seconds:
        return "lost"
    if seen.presence.draining:
        return "draining"
    return "paused" if seen.presence.paused else "running"


def takes_workloads(seen: Seen, settings: Settings) -> bool:
    """Whether a worker takes workloads.

    A paused one, too: it comes back by itself once there is memory, or workloads can start there.
    `airflow nats check` has a row for it.
    """
    return worker_state(seen, settings) in {"running", "paused"}


def serving(workers: list[Seen], lane: Lane, settings: Settings) -> list[Seen]:
    """Return the workers that take workloads of a lane."""
    return [
        seen
        for seen in workers
        if lane.queue in seen.presence.queues
        and lane.band < seen.presence.bands
        and takes_workloads(seen, settings)
    ]


def served_queues(workers: list[Seen], settings: Settings) -> set[str]:
    """Return the queues of all workers that take workloads."""
    return {
        queue
        for seen in workers
        if takes_workloads(seen, settings)
        for queue in seen.presence.queues
    }

"""Describes one queue in full, from a survey. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats_executor.fleet.queues import by_queue, queue_rows, unknown_queue
from nats_executor.fleet.rates import rates_between
from nats_executor.fleet.workers import served_queues, serving, worker_state
from nats_executor.wire.history import minutes_until
from nats_executor.wire.names import Lane

if TYPE_CHECKING:
    from nats_executor.broker.port import ConsumerInfo
    from nats_executor.fleet.queues import Row
    from nats_executor.fleet.rates import Counters
    from nats_executor.operations.survey import Survey
    from nats_executor.settings import Settings
    from nats_executor.wire.history import History

__all__ = ["last_hour", "queue_details"]


def queue_details(
    survey: Survey, queue: str, settings: Settings, after: Counters | None = None
) -> Row:
    """Return all that a survey holds of one queue, with rates if another look came after it.

    Raises:
        NotFound: no queue has that name.
    """
    served = served_queues(survey.workers, settings)
    known: dict[str, list[ConsumerInfo]] = {name: [] for name in served}
    known |= by_queue(survey.consumers)
    if queue not in known:
        raise unknown_queue(queue, known)
    consumers, workers, rates = known[queue], survey.workers, rates_between(survey.look, after)
    [row] = queue_rows(consumers, workers, settings, survey.holds, served=[queue], rates=rates)
    served_by = serving(survey.workers, Lane(queue), settings)
    unserved = [
        band.band
        for band in known[queue]
        if not serving(survey.workers, Lane(queue, band.band), settings)
    ]
    return row | {
        "workers": [
            f"{seen.presence.name} ({worker_state(seen, settings)}, "
            f"{seen.presence.running} of {seen.presence.concurrency} slots in use)"
            for seen in served_by
        ],
        "slots_in_use": sum(seen.presence.running for seen in served_by),
        "limit": settings.limit(queue) or None,
        "unserved_bands": unserved,
    }


def last_hour(history: History | None, minute: int, pending: int) -> Row:
    """Return what happened in a queue in the hour that ends with a minute, counted from the epoch.

    Schedulers write it down at the end of each minute.

    Args:
        pending: how many workloads wait now.
    """
    minutes = minutes_until(history, minute)
    started = sum(minute.started for minute in minutes)
    waited = sum(minute.waited for minute in minutes)
    return {
        # Of the latest minute that is written of; this one is not over.
        "oldest_seconds": (minutes[-1].oldest or minutes[-2].oldest) if pending else None,
        "deepest_last_hour": max(minute.depth for minute in minutes),
        "started_last_hour": started,
        "ended_last_hour": sum(minute.ended for minute in minutes),
        "mean_wait_seconds": round(waited / 1000 / started, 3) if started else None,
    }

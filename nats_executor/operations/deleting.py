"""Deletes a queue in NATS that nothing waits in and no worker serves."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from nats_executor.errors import NotFound
from nats_executor.fleet.queues import by_queue, unknown_queue
from nats_executor.fleet.workers import seen_workers, worker_state
from nats_executor.operations.orders import OrderResult
from nats_executor.text import number_of, presentable
from nats_executor.wire.queue_names import as_text

if TYPE_CHECKING:
    from nats_executor.broker.port import Broker
    from nats_executor.settings import Settings

__all__ = ["delete_queue"]


async def delete_queue(
    broker: Broker, settings: Settings, queue: str, *, is_trial: bool = False
) -> OrderResult:
    """Remove a queue's consumers and what was said about its pause, or say why not.

    A task that is sent to it meanwhile waits until its scheduler has made the consumers again.

    Args:
        is_trial: change nothing, and say what would happen.

    Raises:
        NotFound: no queue has that name.
    """
    names, name = settings.names, presentable(queue)
    known = by_queue(await broker.consumer_infos(names.tasks_stream))
    if queue not in known:
        raise unknown_queue(queue, known)
    running = sum(band.in_flight for band in known[queue])
    waiting = sum(band.pending for band in known[queue])
    if waiting or running:
        text = f"queue {name!r} keeps {waiting} waiting, {running} running"
        remedy = f"airflow nats queues purge {as_text([name])}"
        return OrderResult(False, f"{text}; let them end, or run: {remedy}")
    workers = [
        presentable(seen.presence.name)
        for seen in await seen_workers(broker, settings, {queue})
        if queue in seen.presence.queues and worker_state(seen, settings) != "lost"
    ]
    if workers:
        listed = as_text(sorted(workers))
        remedy = f"airflow nats workers remove-queue {listed} {name}"
        text = f"queue {name!r} is served by {number_of(len(workers), 'worker')}: {listed}"
        return OrderResult(False, f"{text}; stop them, or run: {remedy}")
    if is_trial:
        return OrderResult(True, f"nothing waits in queue {name!r}, and no worker serves it")
    for band in known[queue]:
        with contextlib.suppress(NotFound):  # the question came twice
            await broker.delete_consumer(names.tasks_stream, band.name)
    await broker.purge(names.holds_stream, names.queue_hold(queue))
    return OrderResult(True, f"queue {name!r} is deleted; its next task makes it again")

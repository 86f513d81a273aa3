"""Has workers take nothing more, or again, and notes it for their next start."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from nats_executor.fleet.drains import LONGEST_PERSON, LONGEST_REMARK, seen_notes
from nats_executor.fleet.workers import seen_workers
from nats_executor.operations.choosing import current, meant
from nats_executor.operations.orders import OrderResult, send_order
from nats_executor.text import presentable
from nats_executor.wire.messages import Drain, encode
from nats_executor.wire.names import Verb, token
from nats_executor.wire.queue_names import as_argument, as_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nats_executor.broker.port import Broker
    from nats_executor.fleet.drains import Note
    from nats_executor.fleet.presences import Seen
    from nats_executor.operations.choosing import Which
    from nats_executor.settings import Settings

__all__ = ["drain_workers", "undrain_workers"]

NO_DRAIN = (
    "cannot be drained; this is noted: once it has started again, with a release that can, it "
    "takes nothing until it is undrained"
)
NO_UNDRAIN = "cannot be drained; the note is gone: once it has started again it takes workloads"


class Drained(NamedTuple):
    """A line for each worker, and those that have obeyed."""

    results: list[OrderResult]
    obeying: list[Seen]


async def drain_workers(
    broker: Broker, settings: Settings, which: Which, *, by: str, reason: str
) -> Drained:
    """Have workers take nothing more, until they are undrained; what they run goes on.

    Raises:
        NotFound: one of the names or patterns is that of no worker; then none is drained.
    """
    names = settings.names
    found = current(await seen_workers(broker, settings), settings, which.queue)
    at = time.time()
    drains = {
        name: Drain(worker=name, by=by[:LONGEST_PERSON], at=at, reason=reason[:LONGEST_REMARK])
        for name in meant(which, found)
    }
    for name, drain in drains.items():
        for queue in queues_of(found[name]):
            await broker.publish(names.worker_hold(queue, name), encode(drain))
    # One that has started meanwhile, before there was a note for it, is seen by now.
    found |= current(await seen_workers(broker, settings), settings, which.queue)
    outcome = Drained([], [])
    for name, drain in drains.items():
        for seen in found[name]:
            result = await drain_worker(broker, settings, seen, drain)
            outcome.results.append(result)
            if result.is_obeyed:
                outcome.obeying.append(seen)
    return outcome


async def drain_worker(broker: Broker, settings: Settings, seen: Seen, drain: Drain) -> OrderResult:
    body = encode(drain)
    result = await send_order(broker, settings, seen, Verb.DRAIN, body, lacks=NO_DRAIN)
    if isinstance(result, OrderResult):
        return result
    what = "takes nothing more" if result.is_changed else "was drained already"
    undo = f"airflow nats workers undrain {as_argument(as_text([drain.worker]))}"
    text = (
        f"worker {presentable(drain.worker)} {what}: {result.running} running; to undo it: {undo}"
    )
    return OrderResult(True, text)


async def undrain_workers(
    broker: Broker, settings: Settings, which: Which, *, by: str
) -> list[OrderResult]:
    """Have workers take workloads again, and forget the notes, of workers that are gone, too.

    Raises:
        NotFound: one of the names or patterns is that of no worker and of no note.
    """
    found = current(await seen_workers(broker, settings), settings, which.queue)
    notes = notes_for(await seen_notes(broker, settings.names), which.queue, settings)
    # The token is as good as the name, where a note cannot be read.
    noted = {note.drain.worker or note.worker for note in notes}
    results = []
    for name in meant(which, {*found, *noted}):
        for note in notes:
            if note.worker in {token(name), name}:
                await broker.purge(settings.names.holds_stream, note.subject)
        results += [await undrain(broker, settings, seen, by) for seen in found.get(name, ())]
        if name not in found:
            text = f"worker {presentable(name)} is not there; once it starts, it takes workloads"
            results.append(OrderResult(True, text))
    return results


async def undrain(broker: Broker, settings: Settings, seen: Seen, by: str) -> OrderResult:
    result = await send_order(
        broker, settings, seen, Verb.UNDRAIN, by.encode(errors="replace"), lacks=NO_UNDRAIN
    )
    if isinstance(result, OrderResult):
        return result
    what = "takes workloads again" if result.is_changed else "was not drained"
    text = f"worker {presentable(seen.presence.name)} {what}: {result.running} running"
    return OrderResult(True, text)


def notes_for(notes: list[Note], queue: str | None, settings: Settings) -> list[Note]:
    """Return the notes of all orders that were about workers of a queue; all without a queue.

    A worker of several queues has a note for each of them.
    """
    if queue is None:
        return notes
    orders = {
        (note.worker, note.drain.at)
        for note in notes
        if note.subject.rpartition(".")[0] == settings.names.worker_holds(queue).removesuffix(".*")
    }
    return [note for note in notes if (note.worker, note.drain.at) in orders]


def queues_of(ones: Iterable[Seen]) -> list[str]:
    """Return the queues of the workers of one name."""
    return list(dict.fromkeys(queue for seen in ones for queue in seen.presence.queues))

"""Asks workers whether they are there, and forgets those that are lost."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, NamedTuple

from nats_executor.errors import BrokerUnavailable, NoResponders
from nats_executor.fleet.liveness import Liveness, PingResult, is_lost
from nats_executor.fleet.presences import NO_QUEUE
from nats_executor.fleet.workers import seen_workers, worker_state
from nats_executor.operations.choosing import ALL, current, meant
from nats_executor.operations.orders import OrderResult
from nats_executor.text import number_of, presentable
from nats_executor.wire.names import Verb, token

if TYPE_CHECKING:
    from nats_executor.broker.port import Broker
    from nats_executor.fleet.presences import Seen
    from nats_executor.fleet.queues import Row
    from nats_executor.operations.choosing import Which
    from nats_executor.settings import Settings

__all__ = ["forget_workers", "ping_rows", "ping_workers"]

PATIENT_SECONDS = 2.0
# So many questions are on their way at a time: more would measure this machine.
ASKED_AT_A_TIME = 10


class Pinged(NamedTuple):
    """A worker that was asked, and after how many seconds it has answered; None if it has not."""

    seen: Seen
    result: PingResult
    seconds: float | None = None


async def ping_workers(broker: Broker, settings: Settings, which: Which) -> list[Pinged]:
    """Ask each of these workers, or all; a worker that is lost is asked as well.

    Raises:
        NotFound: one of the names or patterns is that of no worker.
        BrokerUnavailable: it is NATS that does not answer.
    """
    found = current(await seen_workers(broker, settings), settings, which.queue)
    if not found and not which.texts and which.queue is None:
        return []
    names = meant(which if which.texts or which.queue is not None else ALL, found)
    gate = asyncio.Semaphore(ASKED_AT_A_TIME)

    async def ask(seen: Seen) -> Pinged:
        async with gate:
            return await ping_worker(broker, settings, seen)

    return await asyncio.gather(*(ask(seen) for name in names for seen in found[name]))


async def ping_worker(broker: Broker, settings: Settings, seen: Seen) -> Pinged:
    subject = settings.names.control(seen.presence.worker, Verb.PING)
    began = time.perf_counter()
    try:
        await broker.request(subject, b"", timeout=PATIENT_SECONDS)
    except NoResponders:
        return Pinged(seen, PingResult.GONE)
    except BrokerUnavailable:
        if not broker.is_connected:
            raise
        return Pinged(seen, PingResult.SILENT)
    return Pinged(seen, PingResult.ALIVE, time.perf_counter() - began)


def ping_rows(pinged: list[Pinged], settings: Settings) -> list[Row]:
    """Return a row for each worker that was asked."""
    return [
        {
            "worker": one.seen.presence.name,
            "host": one.seen.presence.host,
            "answer": one.result.name.lower(),
            "milliseconds": None if one.seconds is None else round(1000 * one.seconds, 1),
            "state": worker_state(one.seen, settings),
            "last_seen_seconds": max(0, math.floor(one.seen.age)),
        }
        for one in pinged
    ]


async def forget_workers(broker: Broker, settings: Settings, which: Which) -> list[OrderResult]:
    """Remove the records of workers that are lost; a worker that may live is refused.

    Raises:
        NotFound: one of the names or patterns is that of no worker; then none is forgotten.
    """
    by_name: dict[str, list[Seen]] = {}
    for seen in await seen_workers(broker, settings):
        if which.queue is None or which.queue in seen.presence.queues:
            by_name.setdefault(seen.presence.name, []).append(seen)
    liveness = Liveness(broker, settings)
    return [
        await forget_worker(broker, settings, liveness, seen)
        for name in meant(which, by_name)
        for seen in by_name[name]
    ]


async def forget_worker(
    broker: Broker, settings: Settings, liveness: Liveness, seen: Seen
) -> OrderResult:
    name = presentable(seen.presence.name)
    answer = await liveness.ping(seen.presence.worker)
    if answer is PingResult.ALIVE:
        return OrderResult(False, f"worker {name} answers: it lives, and is not forgotten")
    # As the schedulers judge it, which take a worker without a record for dead.
    if not is_lost(
        answer=answer,
        record_age=seen.age,
        connected_for=math.inf,
        lost_after_seconds=settings.worker_lost_seconds,
    ):
        text = (
            f"worker {name} was last seen {seen.age:.0f} s ago: it may come back; try again later"
        )
        return OrderResult(False, text)
    names, token_of_name = settings.names, token(seen.presence.name)
    for key in seen.keys:
        subject = f"$KV.{names.workers_bucket}.{key}.{token_of_name}"
        if key == NO_QUEUE:
            subject = names.older_presence(seen.presence.name)
        await broker.purge(names.workers_stream, subject)
    records = number_of(len(seen.keys), "record")
    return OrderResult(True, f"worker {name} is forgotten: {records} removed")

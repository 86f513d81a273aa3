"""Asks the workers of a queue which of them has a dispatch in hand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nats_executor.batches import batches
from nats_executor.fleet.presences import may_hold
from nats_executor.fleet.workers import worker_state
from nats_executor.operations.describing import Untold, description_of
from nats_executor.operations.facts import InHand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.broker.port import Broker
    from nats_executor.fleet.presences import Seen
    from nats_executor.settings import Settings

__all__ = ["holders_of"]

# Workers that are asked, and so many of them at a time.
MOST_ASKED, ASKED_AT_A_TIME = 1000, 100
# One that hangs does not keep the others' answers.
ASK_SECONDS = 1.0


async def holders_of(
    broker: Broker, settings: Settings, seen: Sequence[Seen], dispatch_id: str
) -> tuple[InHand, ...]:
    """Return the workers that have a dispatch, what has had it for longest first.

    Those of a release that does not know the question may have it, too.
    """
    living = [one for one in seen if worker_state(one, settings) != "lost"][:MOST_ASKED]
    found: list[InHand] = []
    for some in batches(living, ASKED_AT_A_TIME):
        answers = await asyncio.gather(*(ask_one(broker, settings, w, dispatch_id) for w in some))
        found += [answer for answer in answers if answer]
    return tuple(sorted(found, key=lambda one: -(one.since or 0.0)))


async def ask_one(
    broker: Broker, settings: Settings, seen: Seen, dispatch_id: str
) -> InHand | None:
    """Return what a worker says about a dispatch, None if it does not have it."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            told = await description_of(broker, settings, seen, [dispatch_id])
    except TimeoutError:
        return None
    if isinstance(told, Untold):
        return None
    phases = (
        InHand(seen.presence.name, one.phase, max(0.0, told.at - one.since))
        for one in told.carried
        if one.dispatch_id == dispatch_id and may_hold(seen.keys, one.queue)
    )
    return next(phases, None)

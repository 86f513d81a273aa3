"""Reads who paused which queue, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats_executor.errors import DecodeError
from nats_executor.wire.messages import Hold, decode
from nats_executor.wire.sizes import HOLD_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nats_executor.broker.port import Broker, ConsumerInfo, Stored
    from nats_executor.wire.names import Names

__all__ = ["hold_in", "hold_of", "seen_holds"]

# The server keeps a consumer's pause with its own precision.
SAME_SECONDS = 1.0


async def seen_holds(broker: Broker, names: Names) -> list[Hold]:
    """Return what operators said about pauses, of queues that are not paused any more, too."""
    if await broker.stream_info(names.holds_stream) is None:
        return []
    found = await broker.scan(names.holds_stream, names.queue_holds(), largest=HOLD_BYTES)
    return [hold for message in found if (hold := hold_in(message, names))]


def hold_in(message: Stored, names: Names) -> Hold | None:
    """Read a hold; None for one that was deleted, cannot be read, or stands under another key."""
    try:
        hold = decode(Hold, message.body)
    except DecodeError:
        return None
    return hold if message.subject == names.queue_hold(hold.queue) else None


def hold_of(queue: str, bands: Iterable[ConsumerInfo], holds: Iterable[Hold]) -> Hold | None:
    """Return what was said about the pause that a queue has, None if another client paused it."""
    ends = [band.paused_until for band in bands if band.paused_until]
    return next(
        (
            hold
            for hold in holds
            if hold.queue == queue and any(abs(hold.until - end) < SAME_SECONDS for end in ends)
        ),
        None,
    )

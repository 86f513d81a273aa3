"""Pauses queues and lets them go on, on the server, for as long as an operator says."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nats_executor.fleet.queues import UNTIL_RESUMED, by_queue, unknown_queue, until_in_words
from nats_executor.text import presentable
from nats_executor.wire.messages import Hold, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.broker.port import Broker, ConsumerInfo
    from nats_executor.wire.names import Names

__all__ = ["Wish", "pause_queues", "resume_queues"]

LONGEST_REASON = 500


class Wish(NamedTuple):
    """A pause as an operator asks for it: its seconds, None for until it is resumed, and why."""

    by: str
    reason: str
    seconds: float | None


async def pause_queues(
    broker: Broker, names: Names, queues: Sequence[str], wish: Wish
) -> list[str]:
    """Pause queues; returns a line about each. Asking twice changes the time and the reason.

    Raises:
        NotFound: one of them has no consumer; then none is paused.
    """
    known = await consumers_of(broker, names, queues)
    info = await broker.stream_info(names.tasks_stream)
    now = info.time if info else 0.0  # the server judges by its own clock
    until = UNTIL_RESUMED if wish.seconds is None else float(round(now + wish.seconds))
    for queue, bands in known.items():
        hold = Hold(
            queue=queue, by=wish.by, at=now, until=until, reason=wish.reason[:LONGEST_REASON]
        )
        await broker.publish(names.queue_hold(queue), encode(hold))
        for band in bands:
            await broker.pause_consumer(names.tasks_stream, band.name, until)
    return [
        f"queue {presentable(queue)} is paused {until_in_words(until)}: {counted(bands)}"
        for queue, bands in known.items()
    ]


async def resume_queues(broker: Broker, names: Names, queues: Sequence[str]) -> list[str]:
    """End the pauses of queues; returns a line about each.

    Raises:
        NotFound: one of them has no consumer; then none goes on.
    """
    known = await consumers_of(broker, names, queues)
    lines = []
    for queue, bands in known.items():
        for band in bands:
            await broker.pause_consumer(names.tasks_stream, band.name, 0.0)
        await broker.purge(names.holds_stream, names.queue_hold(queue))
        was = "goes on" if any(band.paused_until for band in bands) else "was not paused"
        lines.append(f"queue {presentable(queue)} {was}: {counted(bands)}")
    return lines


async def consumers_of(
    broker: Broker, names: Names, queues: Sequence[str]
) -> dict[str, list[ConsumerInfo]]:
    known = by_queue(await broker.consumer_infos(names.tasks_stream))
    for queue in queues:
        if queue not in known:
            raise unknown_queue(queue, known)
    return {queue: known[queue] for queue in queues}


def counted(bands: Sequence[ConsumerInfo]) -> str:
    """Say what a pause is about: it keeps what waits, and leaves alone what runs."""
    pending = sum(band.pending for band in bands)
    return f"{pending} pending, {sum(band.in_flight for band in bands)} running"

"""Keeps what queues were like in the last hour: reads the records, and adds to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats_executor.errors import DecodeError, WrongSequence
from nats_executor.wire.bounds import packed
from nats_executor.wire.history import History, extended
from nats_executor.wire.messages import as_map, decode
from nats_executor.wire.sizes import HISTORY_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats_executor.broker.port import Broker, Stored
    from nats_executor.wire.history import Minute
    from nats_executor.wire.names import Names

__all__ = ["history_of", "seen_histories", "write_down"]


async def seen_histories(broker: Broker, names: Names) -> dict[str, History]:
    """Return the record of each queue that has one."""
    if await broker.stream_info(names.holds_stream) is None:
        return {}
    subject = names.queue_histories()
    found = await broker.scan(names.holds_stream, subject, largest=HISTORY_BYTES)
    return {history.queue: history for stored in found if (history := history_in(stored, names))}


async def history_of(broker: Broker, names: Names, queue: str) -> History | None:
    """Return the record of one queue, None if there is none."""
    subject = names.queue_history(queue)
    found = await broker.last_of_each(names.holds_stream, [subject], largest=HISTORY_BYTES)
    return history_in(found[0], names) if found else None


def history_in(stored: Stored, names: Names) -> History | None:
    """Read a record; None for one that was deleted, cannot be read, or stands under another key."""
    try:
        history = decode(History, stored.body, most_bytes=HISTORY_BYTES)
    except DecodeError:
        return None
    return history if stored.subject == names.queue_history(history.queue) else None


async def write_down(
    broker: Broker, names: Names, minute: int, seen: Mapping[str, Minute]
) -> dict[str, Minute]:
    """Add what one scheduler has seen to the records of its queues.

    Returns:
        What could not be added because another scheduler wrote at the same moment.

    Raises:
        BrokerError: there was no answer; some of it may be written.
    """
    subjects = {names.queue_history(queue): queue for queue in seen}
    stored = await broker.last_of_each(names.holds_stream, list(subjects), largest=HISTORY_BYTES)
    found = {message.subject: message for message in stored}
    left: dict[str, Minute] = {}
    for subject, queue in subjects.items():
        old = found.get(subject)
        history = extended(history_in(old, names) if old else None, queue, minute, seen[queue])
        try:
            await broker.publish(
                subject, packed(as_map(history)), expected_last=old.sequence if old else 0
            )
        except WrongSequence:
            left[queue] = seen[queue]
    return left

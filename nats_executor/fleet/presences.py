"""Reads the records of workers, each for the worker and the queue of its key alone. Pure.

A worker's user may write under the keys of its own queues only. So a record counts for the queue
of its key, and what it says of another queue counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from nats_executor.errors import DecodeError
from nats_executor.text import shown
from nats_executor.wire.messages import Presence, decode
from nats_executor.wire.names import token

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nats_executor.broker.port import Stored

__all__ = ["NO_QUEUE", "Record", "Seen", "may_hold", "merged", "record_for", "record_in"]

# The queue of a key of the release before, which has none.
NO_QUEUE = ""


@dataclass(frozen=True, slots=True)
class Record:
    """A record that is about the worker and the queue of its key.

    Attributes:
        queue: the token of the queue, `NO_QUEUE` under a key of the release before.
        at: when the broker got it, by its clock.
    """

    presence: Presence
    queue: str
    at: float


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker by all of its records that agree.

    Attributes:
        presence: its `queues` are those under whose keys it says that it serves them.
        age: seconds since the broker got the last one.
        keys: the tokens of the queues that it serves or has served since its start.
    """

    presence: Presence
    age: float
    keys: frozenset[str] = frozenset({NO_QUEUE})


def may_hold(keys: frozenset[str], queue: str) -> bool:
    """Whether a worker with these keys may have a workload of a queue in its hands."""
    return not keys.isdisjoint({token(queue), NO_QUEUE})


# A heartbeat changes these in one record after the other, and each record has its own queue.
DIFFERENT = {"at", "lacks", "queues", "running"}
# A field that is new belongs here: else a forged record could change it for a worker's others.
SAME = tuple(field.name for field in fields(Presence) if field.name not in DIFFERENT)


def record_for(presence: Presence, queue: str) -> Presence:
    """Return what a worker writes under its key of a queue, which it may serve no more."""
    return replace(presence, queues=[name for name in presence.queues if name == queue])


def record_in(message: Stored) -> Record | None:
    """Read a record, None for a deleted one.

    Raises:
        DecodeError: it cannot be read, or is about another worker or queue than its key.
    """
    if not message.body:
        return None
    presence = decode(Presence, message.body)
    _, _, *queue, name = message.subject.split(".")  # $KV.BUCKET.QUEUE.NAME
    if len(queue) > 1 or token(presence.name) != name:
        raise DecodeError(f"it is about worker {shown(presence.name)}, whose key is another one")
    if queue and any(token(served) != queue[0] for served in presence.queues):
        raise DecodeError("it is about queues of other keys")
    return Record(presence, queue[0] if queue else NO_QUEUE, message.at)


def merged(records: Iterable[Record], *, now: float, lost_after_seconds: float) -> list[Seen]:
    """Return one row for each worker.

    Records that do not agree are different rows, whatever worker they name: one of them may be
    forged, and must not change what the others say of their queues.

    Args:
        now: by the broker's clock, because this machine's may be wrong.
    """
    of_one: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        is_lost = now - record.at > lost_after_seconds
        of_one.setdefault((*identity(record.presence), is_lost), []).append(record)
    return [as_one(agreeing, now) for agreeing in of_one.values()]


def identity(presence: Presence) -> tuple[object, ...]:
    """Return what is the same in all records that a worker writes at a time."""
    return tuple(getattr(presence, name) for name in SAME)


def as_one(records: Sequence[Record], now: float) -> Seen:
    latest = max(records, key=lambda record: record.at)
    queues = dict.fromkeys(queue for record in records for queue in record.presence.queues)
    return Seen(
        replace(latest.presence, queues=list(queues)),
        now - latest.at,
        frozenset(record.queue for record in records),
    )

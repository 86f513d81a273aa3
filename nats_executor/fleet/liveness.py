"""Finds out whether a worker lives, by its presence record and by asking it."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from nats_executor.errors import BrokerError, DecodeError, NoResponders
from nats_executor.fleet.presences import record_in
from nats_executor.text import presentable
from nats_executor.wire.names import Verb
from nats_executor.wire.sizes import MOST_NAMES, PRESENCE_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection

    from nats_executor.broker.port import Broker, Stored
    from nats_executor.fleet.presences import Record
    from nats_executor.settings import Settings
    from nats_executor.wire.names import Names

__all__ = ["PATIENCE", "Holder", "Liveness", "PingResult", "is_lost", "readable", "records_under"]

log = logging.getLogger(__name__)

PING_SECONDS = 1.0
# A worker that has just connected may not be subscribed yet when it is pinged.
PINGS = 3
PING_PAUSE_SECONDS = 0.1


# Keys of records that are of no use, each of which is logged once in a process.
COMPLAINTS: deque[str] = deque()
MOST_COMPLAINTS = 100

# How many times as long a worker may be silent while it is subscribed: its process or its network
# may hang, and its tasks may run. Servers notice a dead peer only after minutes.
PATIENCE = 2
# After so many records, some milliseconds of work, others get the loop.
RECORDS_IN_A_ROW = 50


class PingResult(Enum):
    """The result of a ping."""

    ALIVE = auto()
    SILENT = auto()  # it is subscribed and does not answer
    GONE = auto()  # it is not subscribed: its connection is gone


class Holder(NamedTuple):
    """A worker that has claimed something, by its id and its name, and the queue of that.

    It has a record under that queue's key, where workers of other queues can write none.
    """

    worker: str
    name: str
    queue: str


def is_lost(
    *, answer: PingResult, record_age: float, connected_for: float, lost_after_seconds: float
) -> bool:
    """Whether a worker counts as dead.

    We must have been connected long enough for its record to be renewed: after an outage of the
    broker every record is old.

    Args:
        record_age: seconds since its last presence record, infinity without one.
        connected_for: seconds since our own last connect.
    """
    limit = lost_after_seconds * (PATIENCE if answer is PingResult.SILENT else 1)
    return answer is not PingResult.ALIVE and record_age > limit and connected_for > limit


class Liveness:
    """Answers whether workers live.

    Args:
        is_peer: whether it is a worker that asks.
    """

    def __init__(self, broker: Broker, settings: Settings, *, is_peer: bool = False) -> None:
        self._broker = broker
        self._names = settings.names
        self._is_peer = is_peer
        self._lost_after_seconds = settings.worker_lost_seconds

    async def is_alive(self, holder: Holder) -> bool:
        """Whether to leave a worker's claims in a queue alone."""
        return not await self.lost([holder])

    async def lost(self, holders: Collection[Holder]) -> set[Holder]:
        """Return which of these are dead.

        Only those whose record is old are pinged: a fresh one is proof enough.
        """
        ages = await self.record_ages(holders)
        suspects = [holder for holder, age in ages.items() if age > self._lost_after_seconds]
        workers = list(dict.fromkeys(holder.worker for holder in suspects))
        answers = dict(zip(workers, await asyncio.gather(*map(self.ping, workers)), strict=True))
        # Only now: while the connection was broken, no worker could answer.
        connected_for = time.monotonic() - self._broker.connected_since
        return {
            holder
            for holder in suspects
            if is_lost(
                answer=answers[holder.worker],
                record_age=ages[holder],
                connected_for=connected_for,
                lost_after_seconds=self._lost_after_seconds,
            )
        }

    async def ping(self, worker: str) -> PingResult:
        """Ask whether a worker is there."""
        answer, _ = await self.ask(worker, b"")
        return answer

    async def ask(self, worker: str, question: bytes) -> tuple[PingResult, bytes]:
        """Ask a worker several times, because it may be about to subscribe; b"" is no reply."""
        names = self._names
        subject = names.peer(worker) if self._is_peer else names.control(worker, Verb.PING)
        answer = PingResult.GONE
        for _ in range(PINGS):
            try:
                reply = await self._broker.request(subject, question, timeout=PING_SECONDS)
            except NoResponders:
                pass
            except BrokerError:
                answer = PingResult.SILENT
            else:
                return PingResult.ALIVE, reply
            await asyncio.sleep(PING_PAUSE_SECONDS)
        return answer, b""

    async def record_ages(self, holders: Collection[Holder]) -> dict[Holder, float]:
        """Return the seconds since the broker got each one's last record.

        By the broker's clock alone, because this machine's may be wrong.
        """
        names = self._names
        # The release before had one record for each worker, under a key without a queue.
        subjects = {
            holder: (names.presence(holder.queue, holder.name), names.older_presence(holder.name))
            for holder in holders
        }
        found = await self._last_of_each(
            list(dict.fromkeys(s for two in subjects.values() for s in two))
        )
        info = await self._broker.stream_info(names.workers_stream)
        records = {message.subject: readable(message) for message in found}
        return {
            holder: min(
                (
                    info.time - record.at
                    for subject in two
                    if info and (record := records.get(subject))
                    if record.presence.worker == holder.worker
                ),
                default=math.inf,
            )
            for holder, two in subjects.items()
        }

    async def _last_of_each(self, subjects: list[str]) -> list[Stored]:
        stream = self._names.workers_stream
        if not self._is_peer:
            return await self._broker.last_of_each(stream, subjects, largest=PRESENCE_BYTES)
        # A worker may look at records of its own queues only, and a batch's subject names none.
        looks = (self._broker.last(stream, subject) for subject in subjects)
        return [message for message in await asyncio.gather(*looks) if message]


async def records_under(broker: Broker, names: Names, subjects: str) -> list[Record]:
    """Return the records under these keys that can be read.

    Any client that may write there can write any number of them. So the look has an end, and lets
    others have the loop.
    """
    found: list[Record] = []
    left = MOST_NAMES
    messages = await broker.scan(names.workers_stream, subjects, largest=PRESENCE_BYTES)
    for number, message in enumerate(messages, start=1):
        if not number % RECORDS_IN_A_ROW:
            await asyncio.sleep(0)
        if (record := readable(message)) is None:
            continue
        left -= len(record.presence.queues) + len(record.presence.lacks)
        if left < 0:
            note_cut(names.workers_stream)
            break
        found.append(record)
    return found


@functools.cache
def note_cut(stream: str) -> None:
    """Say once that more is there than a look takes in."""
    text = "the workers in stream %s name more than %d queues; next: the first of them count"
    log.warning(f"{text}; remedy: see who writes there", stream, MOST_NAMES)  # noqa: G004


def readable(message: Stored | None) -> Record | None:
    """Read a record; None for a deleted one, or one that is of no use."""
    if message is None:
        return None
    try:
        return record_in(message)
    except DecodeError as exc:
        if message.subject not in COMPLAINTS and len(COMPLAINTS) < MOST_COMPLAINTS:
            COMPLAINTS.append(message.subject)
            log.warning("unreadable presence record %s: %s", presentable(message.subject), exc)
        return None

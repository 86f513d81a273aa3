"""Whether a worker lives: its presence record, and the question to it. Both sides ask."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING

from nats_executor.errors import BrokerError, DecodeError, NoResponders
from nats_executor.messages import Presence, decode
from nats_executor.sizes import MOST_NAMES, PRESENCE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats_executor.names import Names
    from nats_executor.ports import Broker, Stored
    from nats_executor.settings import Settings

__all__ = ["Answer", "Liveness", "is_lost", "presences", "readable"]

log = logging.getLogger(__name__)

PING_SECONDS = 1.0
# A worker that has just connected may not be subscribed yet when it is pinged.
PINGS = 3
PING_PAUSE_SECONDS = 0.1


# How much longer a worker is waited for that is subscribed and does not answer: its process or its
# network may hang, and its tasks may run. Servers notice a dead peer only after minutes.
PATIENCE = 2
# A look at many records lets others have the loop that often: after some milliseconds.
BREATH = 50


class Answer(Enum):
    """What came of pinging a worker."""

    ALIVE = auto()
    SILENT = auto()  # it is subscribed and does not answer
    NOBODY = auto()  # nobody listens: its connection is gone


def is_lost(
    *, answer: Answer, record_age: float, connected_for: float, lost_after_seconds: float
) -> bool:
    """Whether a worker counts as dead.

    We must have been connected long enough for its record to be renewed: after an outage of the
    broker every record is old.

    Args:
        record_age: seconds since its last presence record, infinity without one.
        connected_for: seconds since our own last connect.
    """
    limit = lost_after_seconds * (PATIENCE if answer is Answer.SILENT else 1)
    return answer is not Answer.ALIVE and record_age > limit and connected_for > limit


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

    async def is_alive(self, worker: str, name: str) -> bool:
        """Whether to leave a worker's claims alone."""
        return not await self.lost({worker: name})

    async def lost(self, workers: Mapping[str, str]) -> set[str]:
        """Return which of these workers, ids with their names, are dead.

        Only those whose record is old are pinged: a fresh one is proof enough.
        """
        ages = await self.record_ages(workers)
        suspects = [w for w, age in ages.items() if age > self._lost_after_seconds]
        answers = await asyncio.gather(*map(self.ping, suspects))
        # Only now: a connection that broke meanwhile makes everyone look silent.
        connected_for = time.monotonic() - self._broker.connected_since
        return {
            worker
            for worker, answer in zip(suspects, answers, strict=True)
            if is_lost(
                answer=answer,
                record_age=ages[worker],
                connected_for=connected_for,
                lost_after_seconds=self._lost_after_seconds,
            )
        }

    async def ping(self, worker: str) -> Answer:
        """Ask whether a worker is there."""
        answer, _ = await self.ask(worker, b"")
        return answer

    async def ask(self, worker: str, question: bytes) -> tuple[Answer, bytes]:
        """Ask a worker several times, because it may be about to subscribe; b"" is no reply."""
        names = self._names
        subject = names.peer(worker) if self._is_peer else names.control(worker, "ping")
        answer = Answer.NOBODY
        for _ in range(PINGS):
            try:
                reply = await self._broker.request(subject, question, timeout=PING_SECONDS)
            except NoResponders:
                pass
            except BrokerError:
                answer = Answer.SILENT
            else:
                return Answer.ALIVE, reply
            await asyncio.sleep(PING_PAUSE_SECONDS)
        return answer, b""

    async def record_ages(self, workers: Mapping[str, str]) -> dict[str, float]:
        """Return the seconds since the broker got each worker's last record.

        By the broker's clock alone, because this machine's may be wrong.
        """
        stream = self._names.workers_stream
        subjects = [self._names.presence(name) for name in workers.values()]
        stored = await self._broker.last_of_each(stream, subjects, largest=PRESENCE_BYTES)
        records = {message.subject: message for message in stored}
        info = await self._broker.stream_info(stream)
        ages = {}
        for (worker, _), subject in zip(workers.items(), subjects, strict=True):
            found = records.get(subject)
            presence = readable(found)
            is_its_own = presence is not None and presence.worker == worker
            ages[worker] = info.time - found.at if info and found and is_its_own else math.inf
        return ages


async def presences(broker: Broker, names: Names) -> list[tuple[Presence, Stored]]:
    """Return the records of all workers that can be read, with what they were read from.

    A client of anyone's making can write any number of them. So the look ends somewhere, and lets
    others have the loop.
    """
    found: list[tuple[Presence, Stored]] = []
    left = MOST_NAMES
    stream, subjects = names.workers_stream, names.presences()
    records = await broker.scan(stream, subjects, largest=PRESENCE_BYTES)
    for number, message in enumerate(records, start=1):
        if not number % BREATH:
            await asyncio.sleep(0)
        try:
            presence = decode(Presence, message.body)
        except DecodeError:
            continue  # a deleted record, or one of a release that we cannot read
        left -= len(presence.queues) + len(presence.lacks)
        if left < 0:
            note_cut(stream)
            break
        found.append((presence, replace(message, body=b"")))
    return found


@functools.cache
def note_cut(stream: str) -> None:
    """Say once that more is there than a look takes in."""
    text = "the workers in stream %s name more than %d queues; next: the first of them count"
    log.warning(f"{text}; remedy: see who writes there", stream, MOST_NAMES)  # noqa: G004


def readable(message: Stored | None) -> Presence | None:
    """Decode a record; None for a deleted or unreadable one."""
    if message is None or not message.body:
        return None
    try:
        return decode(Presence, message.body)
    except DecodeError as exc:
        log.warning("unreadable presence record %s: %s", message.subject, exc)
        return None

"""A worker's record in the workers bucket, and the question whether another worker lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from typing import TYPE_CHECKING

from nats_executor.errors import (
    BrokerError,
    DecodeError,
    NatsExecutorError,
    NoResponders,
    WrongSequence,
)
from nats_executor.messages import Presence, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_executor.ports import Broker, Stored
    from nats_executor.settings import Settings

__all__ = ["Announcer", "Liveness", "NameTaken", "is_lost"]

log = logging.getLogger(__name__)

PING_SECONDS = 1.0
# A worker that has just connected may not be subscribed yet when it is pinged.
PINGS = 3
PING_PAUSE_SECONDS = 0.1


class NameTaken(NatsExecutorError):
    """A worker of this name runs already."""


def is_lost(
    *, answers: bool, record_age: float, connected_for: float, lost_after_seconds: float
) -> bool:
    """Whether another worker counts as dead.

    It must be silent in both ways, and we must have been connected long enough for its record to
    be renewed: after an outage of the broker every record is old.

    Args:
        record_age: seconds since its last presence record, infinity without one.
        connected_for: seconds since our own last connect.
    """
    return not answers and record_age > lost_after_seconds and connected_for > lost_after_seconds


class Liveness:
    """Answers whether other workers live."""

    def __init__(self, broker: Broker, settings: Settings) -> None:
        self._broker = broker
        self._names = settings.names
        self._lost_after_seconds = settings.worker_lost_seconds

    async def is_alive(self, worker: str, name: str) -> bool:
        """Whether to leave a worker's claims alone."""
        return not is_lost(
            answers=await self.answers(worker),
            record_age=await self.record_age(worker, name),
            connected_for=time.monotonic() - self._broker.connected_since,
            lost_after_seconds=self._lost_after_seconds,
        )

    async def answers(self, worker: str) -> bool:
        """Whether a worker answers a ping; false only if nobody listens, several times in a row."""
        for _ in range(PINGS):
            with contextlib.suppress(NoResponders):
                try:
                    subject = self._names.control(worker, "ping")
                    await self._broker.request(subject, b"", timeout=PING_SECONDS)
                except NoResponders:
                    raise
                except BrokerError:
                    return True  # no answer is no proof: the broker or the network may be slow
                else:
                    return True
            await asyncio.sleep(PING_PAUSE_SECONDS)
        return False

    async def record_age(self, worker: str, name: str) -> float:
        """Return the seconds since the broker got a worker's last record."""
        found = await self._broker.last(self._names.workers_stream, self._names.presence(name))
        presence = readable(found)
        if found is None or presence is None or presence.worker != worker:
            return math.inf
        return time.time() - found.at


def readable(message: Stored | None) -> Presence | None:
    """Decode a record; None for a deleted or unreadable one."""
    if message is None or not message.body:
        return None
    try:
        return decode(Presence, message.body)
    except DecodeError as exc:
        log.warning("unreadable presence record %s: %s", message.subject, exc)
        return None


class Announcer:
    """Keeps a worker's record fresh; `describe` makes the record of the moment."""

    def __init__(
        self, broker: Broker, settings: Settings, describe: Callable[[], Presence]
    ) -> None:
        self._broker = broker
        self._names = settings.names
        self._interval = settings.heartbeat_seconds
        self._liveness = Liveness(broker, settings)
        self._describe = describe
        self._is_named = asyncio.Event()

    async def claim_name(self) -> None:
        """Write the first record.

        Raises:
            NameTaken: a living worker has the name.
        """
        mine = self._describe()
        subject = self._names.presence(mine.name)
        while True:
            found = await self._broker.last(self._names.workers_stream, subject)
            other = readable(found)
            if other and other.worker != mine.worker and await self._liveness.answers(other.worker):
                raise NameTaken(
                    f"a worker named {mine.name!r} runs already on {other.host} (process "
                    f"{other.pid}): give this one another name with --hostname"
                )
            try:
                sequence = found.sequence if found else 0
                await self._broker.publish(subject, encode(mine), expected_last=sequence)
            except WrongSequence:
                continue  # two start at this moment: look who it is
            self._is_named.set()
            return

    async def beat_forever(self) -> None:
        """Renew the record with every heartbeat, from the first one on."""
        await self._is_named.wait()
        while True:
            await asyncio.sleep(self._interval)
            await self.beat()

    async def beat(self) -> None:
        """Renew the record now, if there is one."""
        if not self._is_named.is_set():
            return
        presence = self._describe()
        with contextlib.suppress(BrokerError):  # the next beat tells it all again
            await self._broker.publish(self._names.presence(presence.name), encode(presence))

    async def retire(self) -> None:
        """Delete the record, as NATS's key-value stores mark a deleted key."""
        if not self._is_named.is_set():
            return
        self._is_named.clear()  # a beat from here on would bring the record back
        subject = self._names.presence(self._describe().name)
        with contextlib.suppress(BrokerError):  # the record ages and is dropped by itself
            await self._broker.publish(subject, b"", headers={"KV-Operation": "DEL"})

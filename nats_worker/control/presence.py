"""Keeps a worker's records in the workers bucket, one for each queue, until it ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from nats_executor.broker.port import Outgoing
from nats_executor.errors import AccessDenied, BrokerError, NatsExecutorError, WrongSequence
from nats_executor.fleet.liveness import PATIENCE, Holder, Liveness, PingResult, readable
from nats_executor.fleet.presences import record_for
from nats_executor.retrying import Outage
from nats_executor.text import presentable
from nats_executor.wire.fitting import fitted_presence

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from nats_executor.broker.port import Broker, Stored
    from nats_executor.settings import Settings
    from nats_executor.wire.messages import Presence

__all__ = ["Announcer"]

BEAT_SECONDS = 5.0
# Heartbeats within which a worker that lives has renewed its record.
BEATS = 2


class NameTaken(NatsExecutorError):
    """A worker of this name runs already."""


class Announcer:
    """Keeps a worker's records fresh; `describe` tells what it is at the moment."""

    def __init__(
        self, broker: Broker, settings: Settings, describe: Callable[[], Presence]
    ) -> None:
        self._broker = broker
        self._names = settings.names
        self._interval = settings.heartbeat_seconds
        self._fresh_seconds = PATIENCE * settings.worker_lost_seconds
        self._liveness = Liveness(broker, settings, is_peer=True)
        self._describe = describe
        # The queues that it serves or has served: what it took from one may still run.
        self._queues: dict[str, None] = {}
        self._is_named = asyncio.Event()
        self._outage = Outage(time.monotonic)
        # Of the workers whose name is asked for, within one claim of all queues.
        self._answers: dict[str, PingResult] = {}
        self._has_waited = False

    async def claim_name(self) -> None:
        """Write the first records; none of them, if the name is taken in one of the queues.

        Raises:
            NameTaken: a living worker of one of the queues has the name.
        """
        # So that this worker knows a cluster's servers by name when no leader is left to name them.
        await self._broker.stream_info(self._names.workers_stream)
        denied: dict[str, AccessDenied] = {}
        try:
            await self._require_no_older()
            while missing := self._unclaimed(denied):
                try:
                    await self.claim(missing[0])
                except AccessDenied as exc:
                    denied[missing[0]] = exc
        except NameTaken:
            await self._delete()
            raise
        finally:
            self._forget()
        if denied and not self._queues:
            raise next(iter(denied.values()))
        # The other queues are served meanwhile; each beat tries these again.
        self._queues |= dict.fromkeys(denied)
        self._is_named.set()

    def _unclaimed(self, denied: Collection[str]) -> list[str]:
        served = self._describe().queues
        return [queue for queue in served if queue not in self._queues and queue not in denied]

    async def claim_in(self, queue: str) -> None:
        """Take the name among the workers of one queue more; raises `NameTaken` as `claim_name`."""
        try:
            await self.claim(queue)
        finally:
            self._forget()

    async def claim(self, queue: str) -> None:
        """Take the name among the workers of a queue.

        Raises:
            NameTaken: a living worker of the queue has it.
        """
        subject = self._subject(queue)
        while True:
            found = await self._broker.last(self._names.workers_stream, subject)
            await self._require_free(found, queue)
            try:
                sequence = found.sequence if found else 0
                await self._broker.publish(subject, self._body(queue), expected_last=sequence)
            except WrongSequence:
                continue  # two start at this moment: look who it is
            self._queues[queue] = None
            return

    async def _require_no_older(self) -> None:
        """Look for a worker of the release before, whose record has a key without a queue."""
        mine = self._describe()
        subject = self._names.older_presence(mine.name)
        found = await self._broker.last(self._names.workers_stream, subject)
        await self._require_free(found, mine.queues[0])

    async def _require_free(self, found: Stored | None, queue: str) -> None:
        record = readable(found)
        if record is None or record.presence.worker == self._describe().worker:
            return
        other = record.presence
        if await self.is_in_use(Holder(other.worker, other.name, queue)):
            raise NameTaken(
                f"a worker named {other.name!r} runs already on {presentable(other.host)} (process "
                f"{other.pid}) for queue {queue!r}: give this one another name with --hostname"
            )

    async def is_in_use(self, other: Holder) -> bool:
        """Whether another worker keeps its name: its connection is open, and it renews its record.

        Workers of other queues hear the ping, too, and any may answer; none can renew the record.
        """
        if other.worker not in self._answers:
            self._answers[other.worker] = await self._liveness.ping(other.worker)
        if self._answers[other.worker] is PingResult.GONE:
            return False
        if await self._is_fresh(other):
            return True
        if self._has_waited:
            return False
        # After an outage of the broker every record is old, for the time of a heartbeat. One wait
        # is enough for all queues: a worker that lives renews all of its records in it.
        self._has_waited = True
        await asyncio.sleep(BEATS * self._interval)
        return await self._is_fresh(other)

    def _forget(self) -> None:
        """Ask and wait again at the next claim."""
        self._answers.clear()
        self._has_waited = False

    async def _is_fresh(self, other: Holder) -> bool:
        ages = await self._liveness.record_ages([other])
        return ages[other] <= self._fresh_seconds

    async def beat_forever(self) -> None:
        """Renew the records with every heartbeat, from the first one on."""
        await self._is_named.wait()
        while True:
            await asyncio.sleep(self._interval)
            await self.beat()

    async def beat(self) -> None:
        """Renew the records now, if there are any."""
        if not self._is_named.is_set():
            return
        outcomes = await self._broker.publish_all(
            [Outgoing(self._subject(queue), self._body(queue)) for queue in self._queues],
            timeout=BEAT_SECONDS,
        )
        # The connection itself logs why it is not there, and what is denied on it.
        troubles = [exc for exc in outcomes if exc and not isinstance(exc, AccessDenied)]
        if not troubles:
            self._outage.over()
        elif self._broker.is_connected:  # the next beat tells it all again
            self._outage.note(troubles[0], "what runs goes on, reports and new workloads wait")

    async def retire(self) -> None:
        """Delete the records."""
        self._is_named.clear()  # a beat from here on would bring them back
        await self._delete()

    async def _delete(self) -> None:
        """Delete what was written, as NATS's key-value stores mark a deleted key."""
        subjects = [self._subject(queue) for queue in self._queues]
        self._queues.clear()

        async def delete(subject: str) -> None:
            with contextlib.suppress(BrokerError):  # the record ages and is dropped by itself
                await self._broker.publish(subject, b"", headers={"KV-Operation": "DEL"})

        await asyncio.gather(*map(delete, subjects))

    def _subject(self, queue: str) -> str:
        return self._names.presence(queue, self._describe().name)

    def _body(self, queue: str) -> bytes:
        return fitted_presence(record_for(self._describe(), queue))

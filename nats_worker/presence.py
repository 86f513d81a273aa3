"""A worker's record in the workers bucket: its name, its beat and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from nats_executor.errors import AccessDenied, BrokerError, NatsExecutorError, WrongSequence
from nats_executor.fitting import fitted_presence, is_cut
from nats_executor.liveness import Answer, Liveness, readable
from nats_executor.outage import Outage
from nats_executor.sizes import PRESENCE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_executor.messages import Presence
    from nats_executor.ports import Broker
    from nats_executor.settings import Settings

__all__ = ["Announcer", "NameTaken"]

log = logging.getLogger(__name__)


class NameTaken(NatsExecutorError):
    """A worker of this name runs already."""


class Announcer:
    """Keeps a worker's record fresh; `describe` makes the record of the moment."""

    def __init__(
        self, broker: Broker, settings: Settings, describe: Callable[[], Presence]
    ) -> None:
        self._broker = broker
        self._names = settings.names
        self._interval = settings.heartbeat_seconds
        self._liveness = Liveness(broker, settings, is_peer=True)
        self._describe = describe
        self._is_named = asyncio.Event()
        self._outage = Outage(time.monotonic)
        self._is_told = False

    async def claim_name(self) -> None:
        """Write the first record.

        Raises:
            NameTaken: a living worker has the name.
        """
        mine = self._describe()
        subject = self._names.presence(mine.name)
        # So that the servers of a cluster are known by name on the day on which none leads.
        await self._broker.stream_info(self._names.workers_stream)
        while True:
            found = await self._broker.last(self._names.workers_stream, subject)
            other = readable(found)
            if other and other.worker != mine.worker and await self.is_in_use(other):
                raise NameTaken(
                    f"a worker named {mine.name!r} runs already on {other.host} (process "
                    f"{other.pid}): give this one another name with --hostname"
                )
            try:
                sequence = found.sequence if found else 0
                await self._broker.publish(subject, self._record(mine), expected_last=sequence)
            except WrongSequence:
                continue  # two start at this moment: look who it is
            self._is_named.set()
            return

    async def is_in_use(self, other: Presence) -> bool:
        """Whether another worker keeps its name; one whose connection is gone does not."""
        return await self._liveness.ping(
            other.worker
        ) is not Answer.NOBODY and await self._liveness.is_alive(other.worker, other.name)

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
        try:
            subject = self._names.presence(presence.name)
            await self._broker.publish(subject, self._record(presence))
        except BrokerError as exc:  # the next beat tells it all again
            # Why there is no connection, and what is denied on it, the connection itself tells.
            if self._broker.is_connected and not isinstance(exc, AccessDenied):
                self._outage.note(exc, "what runs goes on, reports and new workloads wait")
        else:
            self._outage.over()

    def _record(self, presence: Presence) -> bytes:
        """Encode a record, and say once if it cannot have all of the queues."""
        if is_cut(presence) and not self._is_told:
            self._is_told = True
            log.warning(
                "the names of %d queues are too long for a presence record of %d bytes; next: "
                "serving all of them, and listing the first ones only, so `airflow nats check` may "
                "show the others as unserved",
                len(presence.queues),
                PRESENCE_BYTES,
            )
        return fitted_presence(presence)

    async def retire(self) -> None:
        """Delete the record, as NATS's key-value stores mark a deleted key."""
        if not self._is_named.is_set():
            return
        self._is_named.clear()  # a beat from here on would bring the record back
        subject = self._names.presence(self._describe().name)
        with contextlib.suppress(BrokerError):  # the record ages and is dropped by itself
            await self._broker.publish(subject, b"", headers={"KV-Operation": "DEL"})

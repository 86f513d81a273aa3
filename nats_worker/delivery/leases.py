"""Keeps deliveries: tells the broker often enough that their workloads are still here."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats_executor.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats_executor.broker.port import Delivery

__all__ = ["Lease", "Leases"]

log = logging.getLogger(__name__)

# A third of ack_wait: two beats may be lost before the broker offers the workload to others.
BEATS_PER_LEASE = 3


async def at_once() -> None:
    """Wait for nothing."""


@dataclass(slots=True, eq=False)
class Lease:
    """The hold on one dispatch.

    Attributes:
        delivery: the newest one of it, the one to renew, ack and nak.
        before_ack: returns once the message may leave the stream.
    """

    dispatch_id: str
    delivery: Delivery
    before_ack: Callable[[], Awaitable[None]] = at_once

    async def ack(self) -> None:
        await self.before_ack()
        await self.delivery.ack()

    async def nak(self, delay_seconds: float) -> None:
        await self.delivery.nak(delay_seconds)


class Leases:
    """The leases of this worker, by dispatch id.

    Args:
        before_ack: returns once a message may leave the stream, whose report is there.
    """

    def __init__(
        self, ack_wait_seconds: float, before_ack: Callable[[], Awaitable[None]] = at_once
    ) -> None:
        self._interval = ack_wait_seconds / BEATS_PER_LEASE
        self._before_ack = before_ack
        self._held: dict[str, Lease] = {}

    def __contains__(self, dispatch_id: str) -> bool:
        return dispatch_id in self._held

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, dispatch_id: str, delivery: Delivery) -> Lease:
        """Renew a delivery from now on."""
        lease = self._held[dispatch_id] = Lease(dispatch_id, delivery, self._before_ack)
        return lease

    def replace(self, dispatch_id: str, delivery: Delivery) -> None:
        """Go on with a newer delivery of a dispatch that is held."""
        self._held[dispatch_id].delivery = delivery

    def drop(self, lease: Lease) -> None:
        """End a lease; a newer one on the same dispatch stays."""
        if self._held.get(lease.dispatch_id) is lease:
            del self._held[lease.dispatch_id]

    async def renew_forever(self) -> None:
        """Renew every held delivery three times in each `ack_wait`."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                for lease in list(self._held.values()):
                    await lease.delivery.in_progress()
            except BrokerError as exc:
                # The broker may offer them to others meanwhile; their claims keep those out.
                log.debug("leases not renewed: %s", exc)

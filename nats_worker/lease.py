"""Keeps deliveries owned: tells the broker often enough that their workloads are still here."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from nats_executor.errors import BrokerError

if TYPE_CHECKING:
    from nats_executor.ports import Delivery

__all__ = ["Leases"]

log = logging.getLogger(__name__)

# A third of ack_wait: two beats may be lost before the broker offers the workload to others.
BEATS_PER_LEASE = 3


class Leases:
    """The deliveries that this worker holds, by dispatch id."""

    def __init__(self, ack_wait_seconds: float) -> None:
        self._interval = ack_wait_seconds / BEATS_PER_LEASE
        self._held: dict[str, Delivery] = {}

    def __contains__(self, dispatch_id: str) -> bool:
        return dispatch_id in self._held

    def hold(self, dispatch_id: str, delivery: Delivery) -> None:
        """Renew a delivery from now on; it replaces an earlier one of the same dispatch."""
        self._held[dispatch_id] = delivery

    def delivery(self, dispatch_id: str) -> Delivery:
        """Return the newest delivery of a dispatch, the one to ack."""
        return self._held[dispatch_id]

    def let_go(self, dispatch_id: str) -> None:
        self._held.pop(dispatch_id, None)

    async def renew_forever(self) -> None:
        """Renew every held delivery three times in each `ack_wait`."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                for delivery in list(self._held.values()):
                    await delivery.in_progress()
            except BrokerError as exc:
                # The broker may offer them to others meanwhile; their claims keep those out.
                log.debug("leases not renewed: %s", exc)

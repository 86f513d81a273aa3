"""Steps on the broker that are repeated until they succeed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from nats_executor.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["persist"]

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.1
# What the broker does not take is offered again after a pause that doubles up to this.
LONGEST_PAUSE = 5.0


async def persist(action: Callable[[], Awaitable[object]]) -> None:
    """Carry out a step on the broker, for as long as it takes it to come back."""
    pause = FIRST_PAUSE
    while True:
        try:
            await action()
        except BrokerUnavailable as exc:
            log.debug("%s; trying again", exc)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)
        else:
            return

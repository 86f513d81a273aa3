"""Waits until the messages of dispatches have left NATS, and says how it goes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from nats_executor.errors import BrokerUnavailable
from nats_executor.operations.peeking import peek
from nats_executor.retrying import Once
from nats_executor.text import number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from nats_executor.broker.port import Broker
    from nats_executor.settings import Settings

__all__ = ["until_gone"]

VANISHING_LOOK_SECONDS = 1.0


async def until_gone(
    broker: Broker,
    settings: Settings,
    gone: Collection[str],
    timeout: float,
    tell: Callable[[str], None],
) -> bool:
    """Wait until none of these dispatches has a message; returns whether that is so.

    Args:
        tell: gets a line about each step.
    """
    deadline = time.monotonic() + timeout
    silence, left = Once(), len(gone)
    while left:
        try:
            found = await peek(broker, settings, None)
        except BrokerUnavailable as exc:
            if silence.is_new(str(exc)):
                tell(f"{exc}; next: waiting until it answers")
        else:
            still = len(found.dispatches.intersection(gone))
            if still < left:
                left = still
                tell(f"{number_of(left, 'message')} left" if left else "all messages are gone")
        if left and time.monotonic() >= deadline:
            tell(f"the time is over; {number_of(left, 'message')} left, which go by themselves")
            return False
        if left:
            await asyncio.sleep(VANISHING_LOOK_SECONDS)
    return True

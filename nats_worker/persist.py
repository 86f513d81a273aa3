"""Steps on the broker that are repeated until they succeed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from nats_executor.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["persist"]

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# A message that meets a change of the stream's leader is lost without an answer, so the first
# answer is not waited for as long as a slow broker may need: the limit doubles with each attempt.
FIRST_LIMIT = 1.0
FIRST_PAUSE = 0.1
# What the broker does not take is offered again after a pause that doubles up to this: an election
# takes seconds, and its end must not be slept through.
LONGEST_PAUSE = 1.0


def never() -> bool:
    """Go on for as long as it takes."""
    return False


async def persist(
    action: Callable[[], Awaitable[Result]],
    *,
    name: str = "",
    unless: Callable[[], bool] = never,
) -> Result:
    """Carry out a step on the broker, for as long as it takes it to come back.

    A step without an answer may have been carried out, so it has to be one that can be repeated.

    Args:
        name: of a step that is worth a line in the log when it has to be repeated.
        unless: looked at after each failure; once it is true, the failure is raised.
    """
    limit, pause = FIRST_LIMIT, FIRST_PAUSE
    while True:
        try:
            async with asyncio.timeout(limit):
                return await action()
        except TimeoutError:
            failure = BrokerUnavailable(f"no answer within {limit:g} s")
        except BrokerUnavailable as exc:
            failure = exc
        if unless():
            raise failure
        level = logging.INFO if name and pause == FIRST_PAUSE else logging.DEBUG
        log.log(level, "%s: %s; next: asking again until it is known", name or "a step", failure)
        await asyncio.sleep(pause)
        limit, pause = 2 * limit, min(LONGEST_PAUSE, 2 * pause)

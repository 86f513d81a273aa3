"""Repeats a step that the broker did not take, pauses while it is away, and ends tasks."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from nats_executor.errors import (
    AccessDenied,
    BrokerUnavailable,
    LimitReached,
    NoQuorum,
    StreamFull,
)
from nats_executor.pacing import Once, pauses

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = ["Once", "Outage", "end_task", "persist"]

log = logging.getLogger(__name__)

StepResult = TypeVar("StepResult")

# A broker that hangs costs the scheduler one time-out, then none for this long, doubling.
OUTAGE_PAUSES = 0.5, 15.0
# An election takes seconds, and its end must not be slept through.
STEP_PAUSES = 0.1, 1.0
# A message that meets a change of the stream's leader is lost without an answer, so the first
# answer is not waited for as long as a slow broker may need: the limit doubles with each attempt.
FIRST_LIMIT = 1.0
# Seconds between two cancellations of one task.
INSIST_SECONDS = 0.1


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task until it has ended; raises any other error that ended it.

    Once is not enough: nats-py swallows a cancellation that meets its `connect`, its `close` or a
    subscription.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=INSIST_SECONDS)
    if not task.cancelled():
        task.result()


class Outage:
    """The time between the first failure and the next success.

    Attributes:
        trouble: when it began, by the clock, and the last failure; None outside of one. Another
            thread may read it, so both are replaced at once.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.trouble: tuple[float, Exception] | None = None
        self._is_explained = False
        self._pauses: Iterator[float] = iter(())  # nothing has failed yet
        self._until = 0.0
        self._recoveries = 0

    def is_waiting(self, recoveries: int = 0) -> bool:
        """Whether it is too early to ask the broker again.

        Args:
            recoveries: how often it was seen to come back; once more than at the last failure ends
                the pause.
        """
        is_paused = self._clock() < self._until and recoveries == self._recoveries
        return self.trouble is not None and is_paused

    def note(self, reason: Exception, next_step: str, *, recoveries: int = 0) -> None:
        """Enter a failure; logs the first one of an outage with what happens next.

        A cluster without a quorum may give no answer at first: then it is logged again as such.

        Args:
            recoveries: as in `is_waiting`, when the step that failed began: what comes back during
                the step counts.
        """
        is_new, is_explained = self.trouble is None, isinstance(reason, NoQuorum)
        self.trouble = (self._clock() if self.trouble is None else self.trouble[0], reason)
        if is_new:
            self._pauses = pauses(*OUTAGE_PAUSES)
        if is_new or (is_explained and not self._is_explained):
            log.warning("NATS %s: %s; next: %s", trouble_words(reason), reason, next_step)
        self._is_explained |= is_explained
        self._recoveries = recoveries
        self._until = self._clock() + next(self._pauses)

    def over(self) -> None:
        """Enter a success; logs the end of an outage."""
        if self.trouble is not None:
            log.info("NATS is back after %.0f s", self._clock() - self.trouble[0])
            self.trouble = None
            self._is_explained = False


def trouble_words(reason: Exception) -> str:
    match reason:
        case StreamFull() | LimitReached():
            return "is full"
        case AccessDenied():
            return "denies access"
        case _:
            return "is away"


def never() -> bool:
    """Go on for as long as it takes."""
    return False


async def persist(
    action: Callable[[], Awaitable[StepResult]],
    *,
    name: str = "",
    unless: Callable[[], bool] = never,
) -> StepResult:
    """Carry out a step on the broker, for as long as it takes it to come back.

    A step without an answer may have been carried out, so it has to be one that can be repeated.

    Args:
        name: of a step that is worth a line in the log when it has to be repeated.
        unless: looked at after each failure; once it is true, the failure is raised.
    """
    limit, level = FIRST_LIMIT, logging.INFO if name else logging.DEBUG
    for pause in pauses(*STEP_PAUSES):
        try:
            async with asyncio.timeout(limit):
                return await action()
        except TimeoutError:
            failure = BrokerUnavailable(f"no answer within {limit:g} s")
        except BrokerUnavailable as exc:
            failure = exc
        if unless():
            raise failure
        log.log(level, "%s: %s; next: asking again until it is known", name or "a step", failure)
        limit, level = 2 * limit, logging.DEBUG
        await asyncio.sleep(pause)
    raise AssertionError  # the pauses have no end

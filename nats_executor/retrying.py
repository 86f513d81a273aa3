"""How both sides behave while the broker is away: say so once, and do not ask too often."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from nats_executor.errors import AccessDenied, NoQuorum, StreamFull

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Outage"]

log = logging.getLogger(__name__)

# A broker that hangs costs the scheduler one time-out, then none for this long, doubling.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0


class Outage:
    """The time between the first failure and the next success."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None
        self._is_explained = False
        self._pause = FIRST_PAUSE
        self._until = 0.0
        self._recoveries = 0

    def is_waiting(self, recoveries: int = 0) -> bool:
        """Whether it is too early to ask the broker again.

        Args:
            recoveries: how often it was seen to come back; once more than at the last failure ends
                the pause.
        """
        is_paused = self._clock() < self._until and recoveries == self._recoveries
        return self._since is not None and is_paused

    def note(self, reason: Exception, next_step: str, *, recoveries: int = 0) -> None:
        """Enter a failure; logs the first one of an outage with what happens next.

        A cluster without a quorum may give no answer at first: then it is logged again as such.

        Args:
            recoveries: as in `is_waiting`, when the step that failed began: what comes back during
                the step counts.
        """
        is_new, is_explained = self._since is None, isinstance(reason, NoQuorum)
        if is_new:
            self._since = self._clock()
            self._pause = FIRST_PAUSE
        if is_new or (is_explained and not self._is_explained):
            log.warning("NATS %s: %s; next: %s", state_of(reason), reason, next_step)
        self._is_explained |= is_explained
        self._recoveries = recoveries
        self._until = self._clock() + self._pause
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)

    def over(self) -> None:
        """Enter a success; logs the end of an outage."""
        if self._since is not None:
            log.info("NATS is back after %.0f s", self._clock() - self._since)
            self._since = None
            self._is_explained = False


def state_of(reason: Exception) -> str:
    match reason:
        case StreamFull():
            return "is full"
        case AccessDenied():
            return "denies access"
        case _:
            return "is away"

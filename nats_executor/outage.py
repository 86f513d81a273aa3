"""How the executor behaves while the broker is away: says so once, and does not ask too often."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from nats_executor.errors import StreamFull

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Outage"]

log = logging.getLogger(__name__)

# A broker that hangs costs the scheduler one time-out, then none for this long, doubling.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 15.0


class Outage:
    """The time between the first failure and the next success."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None
        self._pause = FIRST_PAUSE
        self._until = 0.0

    def is_waiting(self) -> bool:
        """Whether it is too early to ask the broker again."""
        return self._since is not None and self._clock() < self._until

    def note(self, reason: Exception, next_step: str) -> None:
        """Enter a failure; logs the first one of an outage with what happens next."""
        if self._since is None:
            self._since = self._clock()
            self._pause = FIRST_PAUSE
            what = "full" if isinstance(reason, StreamFull) else "away"
            log.warning("NATS is %s: %s; next: %s", what, reason, next_step)
        self._until = self._clock() + self._pause
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)

    def over(self) -> None:
        """Enter a success; logs the end of an outage."""
        if self._since is not None:
            log.info("NATS is back after %.0f s", self._clock() - self._since)
            self._since = None

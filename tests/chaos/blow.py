"""One fault being carried out: whom it hits, how long it lasts, when what it hurt is well."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from tests.chaos.victims import Victims

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.chaos.database import Database
    from tests.chaos.faults import Injector
    from tests.chaos.injections import Injection

__all__ = ["Blow", "NoVictim", "kill"]

# A fault that finds nothing to hurt looks again for this long.
SEARCH_SECONDS = 4.0
POLL_SECONDS = 0.02

Victim = TypeVar("Victim")


class NoVictim(Exception):
    """There was nothing to hurt."""


class Blow:
    """One fault being carried out."""

    def __init__(self, injector: Injector, injection: Injection, database: Database) -> None:
        self.injector = injector
        self.stage = injector.stage
        self.injection = injection
        self.fault = injection.fault
        self.database = database
        self.victims = Victims(self.stage, database)

    # Finding a victim

    def find(self, candidates: Callable[[], Sequence[Victim]]) -> Victim:
        """Return one of what there is to hurt, as soon as there is any."""
        deadline = time.monotonic() + SEARCH_SECONDS
        while not (found := candidates()):
            if time.monotonic() > deadline or self.injector.stopping.is_set():
                raise NoVictim
            time.sleep(POLL_SECONDS)
        return self.pick(found)

    def pick(self, candidates: Sequence[Victim]) -> Victim:
        return candidates[self.fault.target % len(candidates)]

    def hit(self, victim: str) -> None:
        """Note that it happens now."""
        self.injection.victim = victim
        self.injection.began = self.injection.since = time.monotonic()

    def last(self) -> None:
        """Let the fault last; a run that is stopped waits for none."""
        self.injector.stopping.wait(self.fault.seconds)

    def recovers(self, check: Callable[[Database], bool], *, since: float | None = None) -> None:
        self.injection.since = since or self.injection.since
        self.injection.has_recovered = check


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended by itself
        os.kill(pid, signal.SIGKILL)

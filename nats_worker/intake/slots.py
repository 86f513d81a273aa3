"""Counts the free slots of a worker, and keeps one workload until it fits.

A slot counts as free only while another workload may start. So a worker that has enough starts in
hand pulls nothing: what waits stays in NATS, where it keeps its place by priority, another worker
may take it, and no order has to find it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import dataclass, field

from nats_worker.intake.admission import Admission
from nats_worker.intake.processors import Waits

__all__ = ["Holding", "Slots"]

# Between two looks at the processors while a free slot waits for a start to end.
MOMENT_SECONDS = 0.05
# A look that began so long ago tells of another time.
OLD_MOMENT_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class Holding:
    """The slots of one workload.

    Attributes:
        weight: how many it asks for.
        held: how many it has: those, or all there are if it asks for more.
        settled: it has them, or does not wait for them any longer.
        is_starting: it has them, and the API server has not accepted its start yet.
    """

    weight: int
    held: int = 0
    is_starting: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class Slots:
    """The slots of a worker, to wait on; `concurrency` of them in all.

    Args:
        admission: says how many workloads may start at a time; without it, all that have slots.

    Attributes:
        used: how many are taken; more than there are after a change to fewer.
        kept: the one workload that is here and does not fit yet. Everything that is free is for
            it until it fits, because lighter ones that overtake it would keep it out for ever.
        pauses: the reasons to pause now; while there is any, no workload gets slots, however many
            are free.
        is_on_trial: one workload is taken at a time, whatever is free; `trial` is that one.
    """

    def __init__(self, concurrency: int, admission: Admission | None = None) -> None:
        self.admission = admission or Admission(sys.maxsize)
        self.concurrency = concurrency
        self.used = 0
        self.kept: Holding | None = None
        self.pauses: set[str] = set()
        self.is_on_trial = False
        self.trial: Holding | None = None
        self._changed = asyncio.Event()
        self._waits = Waits()

    @property
    def free(self) -> int:
        """How many may be taken now."""
        return min(self._vacant, self.admission.openings)

    @property
    def _vacant(self) -> int:
        """How many may be taken, if as many may start."""
        if self.pauses or self.kept or self.trial:
            return 0
        vacant = max(0, self.concurrency - self.used)
        return min(1, vacant) if self.is_on_trial else vacant

    def take(self, weight: int = 1) -> Holding:
        """Give a workload its slots, or keep it until it fits; only while a slot is free.

        Raises:
            ValueError: none is.
        """
        if not self.free:
            raise ValueError("no slot is free")
        self.kept = holding = Holding(weight)
        if self.is_on_trial:
            self.trial = holding
        self._look()
        return holding

    def give(self, holding: Holding) -> None:
        """Take back what a workload holds, or let it wait no longer; twice is as good as once."""
        if holding is self.kept:
            self.kept = None
        self.used -= holding.held
        holding.held = 0
        holding.settled.set()
        self.end_start(holding)
        self._look()

    def end_start(self, holding: Holding) -> None:
        """Note that the start of a workload is accepted, or need not be waited for."""
        if holding.is_starting:
            holding.is_starting = False
            self.admission.end()
            self._look()

    def conclude(self, holding: Holding) -> None:
        """Note that all is known about a workload, whose slots may have been free for longer."""
        self.give(holding)
        if holding is self.trial:
            self.trial = None
            self._look()

    def resize(self, concurrency: int) -> None:
        """Change how many there are; a workload keeps what it holds."""
        self.concurrency = concurrency
        self._look()

    def pause(self, why: str) -> None:
        """Give no workload slots until each pause has its `resume`."""
        self.pauses.add(why)

    def resume(self, why: str) -> None:
        self.pauses.discard(why)
        self._look()

    def limit(self, *, is_on_trial: bool) -> None:
        """Take one workload at a time from now on, or as many as there are free slots."""
        self.is_on_trial, self.trial = is_on_trial, None
        self._look()

    async def one_free(self) -> None:
        """Wait until a slot is free, and a workload in it may start."""
        while not self.free:
            self._changed.clear()
            if self._vacant and self.admission.is_by_pressure:
                await self._look_at_processors()
            else:
                await self._changed.wait()

    async def _look_at_processors(self) -> None:
        """Wait for a change, or until a moment has told whether processors are idle."""
        waits = self._waits
        if not waits.seconds < OLD_MOMENT_SECONDS:
            waits.begin()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, MOMENT_SECONDS - waits.seconds)):
                await self._changed.wait()
        if waits.seconds >= MOMENT_SECONDS:
            self.admission.note_pressure(waits.share())
            waits.begin()

    def _look(self) -> None:
        """Give the kept workload its slots if it fits, and wake up what waits for a free one."""
        if (holding := self.kept) and not self.pauses:
            # By the concurrency of now: one that shrank below the weight would never have enough.
            needed = min(holding.weight, self.concurrency)
            if needed <= self.concurrency - self.used:
                self.kept = None
                holding.held = needed
                self.used += needed
                holding.is_starting = True
                self.admission.begin()
                holding.settled.set()
        self._changed.set()

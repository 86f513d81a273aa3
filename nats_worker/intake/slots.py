"""Counts the free slots of a worker, and keeps one workload until it fits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

__all__ = ["Holding", "Slots"]


@dataclass(slots=True, eq=False)
class Holding:
    """The slots of one workload.

    Attributes:
        weight: how many it asks for.
        held: how many it has: those, or all there are if it asks for more.
        settled: it has them, or does not wait for them any longer.
    """

    weight: int
    held: int = 0
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class Slots:
    """The slots of a worker, to wait on; `concurrency` of them in all.

    Attributes:
        used: how many are taken; more than there are after a change to fewer.
        kept: the one workload that is here and does not fit yet. Everything that is free is for
            it until it fits, because lighter ones that overtake it would keep it out for ever.
        pauses: the reasons to pause now; while there is any, no workload gets slots, however many
            are free.
        is_on_trial: one workload is taken at a time, whatever is free; `trial` is that one.
    """

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.used = 0
        self.kept: Holding | None = None
        self.pauses: set[str] = set()
        self.is_on_trial = False
        self.trial: Holding | None = None
        self._changed = asyncio.Event()

    @property
    def free(self) -> int:
        """How many may be taken now."""
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
        """Wait until a slot is free."""
        while not self.free:
            self._changed.clear()
            await self._changed.wait()

    def _look(self) -> None:
        """Give the kept workload its slots if it fits, and wake up what waits for a free one."""
        if (holding := self.kept) and not self.pauses:
            # By the concurrency of now: one that shrank below the weight would never have enough.
            needed = min(holding.weight, self.concurrency)
            if needed <= self.concurrency - self.used:
                self.kept = None
                holding.held = needed
                self.used += needed
                holding.settled.set()
        self._changed.set()

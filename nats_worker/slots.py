"""How many workloads a worker may still take."""

from __future__ import annotations

import asyncio

__all__ = ["Slots"]


class Slots:
    """A counter to wait on; `concurrency` of them in all."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.used = 0
        self._changed = asyncio.Event()

    @property
    def free(self) -> int:
        return max(0, self.concurrency - self.used)

    def take(self) -> None:
        self.used += 1

    def give(self) -> None:
        self.used -= 1
        self._changed.set()

    async def one_free(self) -> None:
        """Wait until a slot is free."""
        while not self.free:
            self._changed.clear()
            await self._changed.wait()

"""Counts pauses that grow, and tells new things from those that were told. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

__all__ = ["Once", "pauses"]

# Things that are remembered as told; each is a line of a log at most.
REMEMBERED = 100


def pauses(first: float, longest: float, factor: float = 2.0) -> Iterator[float]:
    """Yield seconds that grow by a factor up to the longest, without an end."""
    pause = first
    while True:
        yield pause
        pause = min(longest, factor * pause)


class Once:
    """Tells new things from those that were told before; remembers the last hundred."""

    def __init__(self) -> None:
        self._told: dict[Hashable, None] = {}

    def is_new(self, thing: Hashable) -> bool:
        """Whether a thing was not told yet; from now on it was."""
        is_new = thing not in self._told
        self._told.pop(thing, None)
        self._told[thing] = None
        if len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]
        return is_new

    def forget(self, thing: Hashable) -> None:
        """Take one thing for new when it comes again."""
        self._told.pop(thing, None)

    def forget_all(self) -> None:
        """Take everything for new, as after a new connection."""
        self._told.clear()

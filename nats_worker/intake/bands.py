"""Orders the priority bands of a queue for the slots that are free. Pure."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

__all__ = ["asks"]

# One slot in so many asks a lower band first, so that none ever starves.
YIELD_EVERY = 8


class Ask(NamedTuple):
    """Take up to so many from a band."""

    band: int
    most: int


def asks(bands: int, turn: int, slots: int) -> list[Ask]:
    """Return what to ask for one after another, until as many as there are slots were taken.

    Args:
        bands: how many the queue has.
        turn: how many slots the queue's workloads have got before.
        slots: how many to fill now.
    """
    firsts = Counter(first(bands, turn + slot) for slot in range(slots))
    reserved = [Ask(band, firsts[band]) for band in range(bands - 1) if firsts[band]]
    return reserved + [Ask(band, slots) for band in range(bands - 1, -1, -1)]


def first(bands: int, turn: int) -> int:
    """Return the band that a slot asks first: the highest, or in its turn one of the others."""
    round_, place = divmod(turn, YIELD_EVERY)
    if bands > 1 and place == YIELD_EVERY - 1:
        return round_ % (bands - 1)
    return bands - 1

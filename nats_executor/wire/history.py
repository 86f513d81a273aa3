"""Keeps what a queue was like in each minute of the last hour, in one small record. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["History", "Minute", "extended", "minutes_until"]

# How many of them a record tells of.
MINUTES = 60
# By so many the clock of the scheduler that wrote last may be ahead.
MINUTES_AHEAD = 5


class Minute(NamedTuple):
    """A queue in one minute.

    Attributes:
        depth: how many workloads no worker had been given, at its end.
        started: number that began to run and whose wait is known.
        waited: milliseconds that these had waited, all together.
        ended: number that came to their end.
        oldest: for how many seconds the one had waited that waited longest, at its end.
    """

    depth: int = 0
    started: int = 0
    waited: int = 0
    ended: int = 0
    oldest: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The record of a queue; each list has a number for each minute, the latest one last.

    Attributes:
        minute: the latest one, counted from the epoch, by the clock of the scheduler that wrote it.
        depth: as in `Minute`, and so are the others.
    """

    queue: str
    minute: int
    depth: list[int]
    started: list[int]
    waited: list[int]
    ended: list[int]
    oldest: list[int]


def minutes_until(history: History | None, minute: int) -> list[Minute]:
    """Return the `MINUTES` that end with this one, all empty if there is no record.

    Schedulers write nothing about a minute in which a queue was idle.
    """
    if history is None:
        return [Minute()] * MINUTES
    lists = (history.depth, history.started, history.waited, history.ended, history.oldest)
    back = range(history.minute - minute + MINUTES - 1, history.minute - minute - 1, -1)
    return [Minute(*(ago(values, n) for values in lists)) for n in back]


def ago(values: list[int], minutes: int) -> int:
    """Return the number of so many minutes before the last one, 0 where there is none."""
    return values[-1 - minutes] if 0 <= minutes < len(values) else 0


def extended(history: History | None, queue: str, minute: int, seen: Minute) -> History:
    """Return the record with what one scheduler has seen, beside what others saw in that minute."""
    if history is not None and history.minute - minute > MINUTES_AHEAD:
        history = None  # of a clock that was wrong: it would never end
    elif history is not None:
        minute = max(minute, history.minute)
    *earlier, last = minutes_until(history, minute)
    now = Minute(
        seen.depth,
        last.started + seen.started,
        last.waited + seen.waited,
        last.ended + seen.ended,
        max(last.oldest, seen.oldest),
    )
    minutes = [*earlier, now]
    return History(
        queue=queue,
        minute=minute,
        depth=[each.depth for each in minutes],
        started=[each.started for each in minutes],
        waited=[each.waited for each in minutes],
        ended=[each.ended for each in minutes],
        oldest=[each.oldest for each in minutes],
    )

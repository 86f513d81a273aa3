"""Plan the restarts: a seed in, a list of restarts out. Pure."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, cycle, islice, zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["COMPONENTS", "Kind", "Restart", "make_plan"]

# The load is steady by then.
FIRST_AT_SECONDS = 5.0
# The last one has this much of the load after it.
LAST_SECONDS = 10.0


class Kind(StrEnum):
    """What of a deployment there is more than one of."""

    SCHEDULER = "scheduler"
    API_SERVER = "API server"
    WORKER = "worker"
    NATS_SERVER = "NATS server"


COMPONENTS = {Kind.SCHEDULER: 2, Kind.API_SERVER: 2, Kind.WORKER: 3, Kind.NATS_SERVER: 3}
# What a killed worker runs has to be lost, and without retries that is the end of it.
KILLED = frozenset(Kind) - {Kind.WORKER}


@dataclass(frozen=True, slots=True)
class Restart:
    """One restart.

    Attributes:
        at: seconds after the load's start, or later: what was restarted before is back first.
        number: which one of its kind, counted from 0.
    """

    at: float
    kind: Kind
    number: int
    how: signal.Signals


def make_plan(seed: int, *, seconds: float, every: float) -> list[Restart]:
    """Return the restarts of a run: with SIGTERM, then with SIGKILL, then of workers alone.

    In ten minutes with one restart every 20 s everything is restarted once with each of the first
    two, and the workers thirteen more times. A shorter run does a third of its restarts each way.
    """
    # Not for secrets: the point is that it can be repeated.
    source = random.Random(seed)  # noqa: S311
    room = int((seconds - FIRST_AT_SECONDS - LAST_SECONDS) / every) + 1
    third = -(-room // 3)
    stopped = list(islice(in_turn(source, Kind), third))
    killed = list(islice(in_turn(source, KILLED), min(third, number_of(KILLED))))
    rest = islice(cycle(range(COMPONENTS[Kind.WORKER])), room - len(stopped) - len(killed))
    steps = chain(
        ((*component, signal.SIGTERM) for component in stopped),
        ((*component, signal.SIGKILL) for component in killed),
        ((Kind.WORKER, number, signal.SIGTERM) for number in rest),
    )
    return [
        Restart(FIRST_AT_SECONDS + every * place, *step)
        for place, step in enumerate(islice(steps, room))
    ]


def in_turn(source: random.Random, kinds: Iterable[Kind]) -> Sequence[tuple[Kind, int]]:
    """Return the components of some kinds, one of each kind after the other."""
    order = sorted(kinds)
    source.shuffle(order)
    columns = [[(kind, number) for number in range(COMPONENTS[kind])] for kind in order]
    rows = zip_longest(*columns)
    return [component for row in rows for component in row if component is not None]


def number_of(kinds: Iterable[Kind]) -> int:
    return sum(COMPONENTS[kind] for kind in kinds)

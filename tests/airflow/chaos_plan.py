"""Plans the faults that hit a real Airflow: a seed in, a list of planned faults out. Pure."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.chaos.plan import Fault, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["KINDS", "make_airflow_plan"]

# How often each kind comes before any comes more often, and how long what it hits stays away.
KINDS: dict[Kind, tuple[int, tuple[float, float]]] = {
    Kind.WORKER_KILLED: (2, (0.5, 6.0)),
    Kind.WORKER_STOPPED: (1, (0.5, 4.0)),
    Kind.SUPERVISOR_KILLED: (2, (0.0, 0.0)),
    Kind.TASK_KILLED: (2, (0.0, 0.0)),
    Kind.SCHEDULER_KILLED: (2, (0.5, 5.0)),
    Kind.API_AWAY: (1, (0.5, 4.0)),
    Kind.BROKER_KILLED: (1, (0.0, 4.0)),
    Kind.BROKER_STOPPED: (1, (0.0, 2.0)),
    Kind.BROKER_FROZEN: (1, (1.0, 5.0)),
    Kind.BROKER_WIPED: (1, (0.0, 2.0)),
}
GAP_SECONDS = (2.0, 7.0)
# A component of Airflow needs so long to be of use again; a second fault of its group waits.
AFTERMATH_SECONDS = {"worker": 6.0, "scheduler": 12.0, "API": 12.0, "broker": 3.0}
FIRST_AT_SECONDS = 4.0


def make_airflow_plan(seed: int, *, seconds: float) -> list[Fault]:
    """Return the faults of a run, by time; the same arguments give the same ones."""
    # Not for secrets: the point is that it can be repeated.
    source = random.Random(seed)  # noqa: S311
    plan: list[Fault] = []
    free_from: dict[str, float] = {}
    at = FIRST_AT_SECONDS
    for kind in deal(source):
        lasts = round(source.uniform(*KINDS[kind][1]), 2)
        target = source.randrange(1000)
        at += source.uniform(*GAP_SECONDS)
        group = kind.split()[0]
        at = max(at, free_from.get(group, 0.0))
        if at + lasts > seconds:
            return plan
        plan.append(Fault(round(at, 2), kind, target, lasts))
        free_from[group] = at + lasts + AFTERMATH_SECONDS.get(group, 0.0)
    return plan


def deal(source: random.Random) -> Iterator[Kind]:
    """Yield kinds for ever, each as often as it should come before any comes more often."""
    while True:
        deck = [kind for kind, (often, _) in KINDS.items() for _ in range(often)]
        source.shuffle(deck)
        yield from deck

"""The rounds of whole Airflows: who is started for what, and in which order."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nats_executor.local.process import LocalError
from tests.bench.needs import Unmeasured, missing
from tests.bench.session import Session
from tests.bench.shared_airflow import RunFailed, SharedAirflow
from tests.bench.sides import SIDES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.bench.sample import Sample, Task
    from tests.bench.sides import Side

__all__ = ["Work", "carried_out", "sides_here"]


@dataclass(frozen=True, slots=True)
class Work:
    """What one contender's scheduler and worker are started for.

    Attributes:
        table: which contenders a key is measured of.
        is_timed: whether the worker is to note when its slots are free.
        is_each_task: whether there is a sample for each task, too many to be shown.
    """

    run: Callable[[Session, frozenset[str]], Iterator[Sample]]
    slots: int
    table: dict[str, frozenset[Side]] = field(default_factory=dict)
    is_timed: bool = False
    is_each_task: bool = False

    def sides_of(self, keys: frozenset[str]) -> frozenset[Side]:
        return frozenset(s for key, sides in self.table.items() if key in keys for s in sides)


def carried_out(
    task: Task, works: Sequence[Work], airflow_for: Callable[[Sequence[Side]], SharedAirflow]
) -> Iterator[Sample]:
    """Yield the samples of every round.

    Raises:
        Missing: what every contender needs is not installed.
        Unmeasured: some session has failed; all others are measured by then.
    """
    asked = [work for work in works if work.sides_of(task.keys)]
    if not asked:
        return
    here = sides_here(task, asked)
    failures: dict[str, dict[str, str]] = defaultdict(dict)
    with airflow_for(here) as airflow:
        for number in range(task.rounds):
            for work in asked:
                sides = [side for side in here if side in work.sides_of(task.keys)]
                # Another one begins each time: a machine may tire, or warm up.
                first = number % max(1, len(sides))
                for side in (*sides[first:], *sides[:first]):
                    task.say(f"round {number + 1}: {side.name}, {work.slots} slots")
                    yield from sitting(airflow, side, work, failures)
    if failures:
        raise Unmeasured(failures)


def sides_here(task: Task, works: Sequence[Work]) -> list[Side]:
    """Return the contenders that are asked for and that can be measured on this machine."""
    asked = {side for work in works for side in work.sides_of(task.keys)}
    here = []
    for side in sorted(asked, key=place):
        if reason := missing(side.name) if side.worker else "":
            task.say(f"without {side.name}: {reason}")
        else:
            here.append(side)
    return here


def place(side: Side) -> tuple[int, str]:
    """The order of `SIDES`; choices of a contender follow it."""
    names = [known.executor for known in SIDES]
    return names.index(side.executor), side.name


def sitting(
    airflow: SharedAirflow, side: Side, work: Work, failures: dict[str, dict[str, str]]
) -> Iterator[Sample]:
    """Measure one contender once; a failure costs no other contender its figures.

    Args:
        failures: gets the reason, by key and contender.
    """
    task = airflow.task
    keys = frozenset(key for key, sides in work.table.items() if side in sides) & task.keys
    try:
        with Session(airflow, side, work.slots, is_timed=work.is_timed) as session:
            for sample in work.run(session, keys):
                if not work.is_each_task:
                    task.say(f"  {sample.key} {sample.contender}: {sample.value:.3g}")
                yield sample
    except (LocalError, RunFailed, TimeoutError) as exc:
        airflow.require_alive()
        for key in keys:
            failures[key][side.name] = str(exc)
        task.say(f"  failed: {exc}")

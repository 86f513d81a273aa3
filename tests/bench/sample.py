"""The results of a measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Measurement", "Sample", "Task"]


class Sample(NamedTuple):
    """One measured figure.

    Attributes:
        key: of `build/bench.json`, such as `e2e_tasks_per_s_4_slots`.
        contender: `nats`, `celery`, `local`, or what else was measured, such as `bare`.
        value: in the unit that `goals.py` gives for the key.
    """

    key: str
    contender: str
    value: float


@dataclass(frozen=True, slots=True)
class Task:
    """What a measurement is asked to do.

    Attributes:
        rounds: how often to measure each contender, alternating between them.
        scale: 1.0 is the full size; a trial run uses less of everything.
        directory: for servers, logs and data; removed at the end of the run.
        say: shows a line of progress.
        keys: what was asked for, of those that the measurement can do.
    """

    rounds: int
    scale: float
    directory: Path
    say: Callable[[str], None]
    keys: frozenset[str]


Measurement = Callable[[Task], Iterator[Sample]]
"""Yields samples as soon as they are there; cleans up when it is closed early."""

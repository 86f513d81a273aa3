"""Measure how long it takes to find out what one task waits for, among 100,000 that wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.aside import run_aside
from tests.bench.sample import Sample
from tests.bench.stage import BenchStage, new_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.sample import Task

__all__ = ["KEYS", "measure"]

KEY = "why_p95_ms_100k"
KEYS = frozenset({KEY})
WAITING = 100_000
FEWEST = 100
ASKED = 100


def measure(task: Task) -> Iterator[Sample]:
    with BenchStage(task.directory, task.say) as stage:
        stage.add_database()
        for number in range(1, task.rounds + 1):
            stage.renew_nats()
            figures = run_aside(
                "tests.bench.why_ours", stage.logs, stage.with_prefix(new_prefix()),
                waiting=max(FEWEST, int(WAITING * task.scale)), questions=ASKED,
            )  # fmt: skip
            task.say(f"round {number} of {task.rounds}")
            for value in figures["milliseconds"]:
                yield Sample(KEY, "nats", value)

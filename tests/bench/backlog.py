"""Measure a long queue's cost: rates and broker memory with 1,000 and with 100,000 waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.aside import run_aside
from tests.bench.sample import Sample
from tests.bench.stage import BenchStage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.sample import Task

__all__ = ["KEYS", "measure"]

KEY = "backlog_100k"
KEYS = frozenset({KEY})
LEVELS = {"1k": 1_000, "100k": 100_000}
BATCH = 1_000
REPETITIONS = 10


def measure(task: Task) -> Iterator[Sample]:
    with BenchStage(task.directory, task.say) as stage:
        for number in range(1, task.rounds + 1):
            stage.renew_nats()
            figures = run_aside(
                "tests.bench.backlog_ours", stage.logs, stage.environment,
                url=stage.nats.url, pid=stage.nats_pid, batch=BATCH, repetitions=REPETITIONS,
                levels={
                    name: full if name == "1k" else max(2 * BATCH, int(full * task.scale))
                    for name, full in LEVELS.items()
                },
            )  # fmt: skip
            task.say(f"round {number} of {task.rounds}")
            for contender, values in figures.items():
                for value in values:
                    yield Sample(KEY, contender, value)

"""Measure how long a report takes to the scheduler, and a workload to its worker.

Both ends are processes of their own, and one machine's clock times both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.bench.aside import run_aside
from tests.bench.sample import Sample
from tests.bench.stage import BenchStage, new_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.sample import Task

__all__ = ["KEYS", "measure"]

RESULTS, PICKUP = "result_latency_ms", "pickup_latency_ms"
KEYS = frozenset({RESULTS, PICKUP})
REPORTS, WORKLOADS = 500, 60
FEWEST = 10


def measure(task: Task) -> Iterator[Sample]:
    parts = {
        RESULTS: ("tests.bench.latency_results", REPORTS),
        PICKUP: ("tests.bench.latency_pickup", WORKLOADS),
    }
    with BenchStage(task.directory, task.say) as stage:
        stage.add_database()
        for number in range(1, task.rounds + 1):
            for key in (RESULTS, PICKUP):
                if key not in task.keys:
                    continue
                module, full = parts[key]
                count = max(FEWEST, int(full * task.scale))
                figures = run_aside(
                    module, stage.logs, stage.with_prefix(new_prefix()), count=count,
                    url=stage.nats.url, directory=str(stage.logs),
                )  # fmt: skip
                task.say(f"round {number} of {task.rounds}: {key}")
                yield from samples(key, figures)


def samples(key: str, figures: dict[str, Any]) -> Iterator[Sample]:
    for contender, seconds in figures.items():
        for value in seconds:
            yield Sample(key, contender, value * 1000)

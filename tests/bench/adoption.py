"""Measure how long a scheduler takes to adopt what a dead one left: rows, messages, reports.

A third waits in its queue, a third runs, a third is over and its scheduler has not heard of it yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.aside import Broken, run_aside
from tests.bench.needs import Unmeasured
from tests.bench.sample import Sample
from tests.bench.stage import BenchStage, new_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.sample import Task

__all__ = ["KEYS", "measure"]

KEY = "adopt_10k_s"
KEYS = frozenset({KEY})
SIZES = {"nats-1k": 1_000, "nats-5k": 5_000, "nats": 10_000}
FEWEST = 30


def measure(task: Task) -> Iterator[Sample]:
    failures: dict[str, str] = {}
    with BenchStage(task.directory, task.say) as stage:
        stage.add_database()
        for number in range(1, task.rounds + 1):
            for contender, full in SIZES.items():
                count = max(FEWEST, int(full * task.scale))
                stage.renew_nats()
                environment = stage.with_prefix(new_prefix())
                try:
                    figures = run_aside(
                        "tests.bench.adoption_ours", stage.logs, environment, count=count
                    )
                except Broken as exc:
                    task.say(f"{contender}: {exc}")
                    failures[contender] = str(exc)
                    continue
                seconds = figures["adoption"]
                task.say(f"round {number} of {task.rounds}: {count:,} in {seconds:.2f} s")
                yield Sample(KEY, contender, seconds)
                yield Sample(KEY, contender.replace("nats", "first-sync", 1), figures["sync"])
    if failures:
        raise Unmeasured({KEY: failures})

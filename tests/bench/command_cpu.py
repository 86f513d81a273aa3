"""Measure the CPU time that commands add to what `airflow version` costs, in turns."""

from __future__ import annotations

import math
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.bench.sample import Sample
from tests.bench.stage import BenchStage, new_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.bench.sample import Task

__all__ = ["COMMANDS", "KEYS", "measure"]

KEY = "command_cpu_s"
KEYS = frozenset({KEY})
BASE = "version"
# `check` exits with 1: no worker serves anything.
COMMANDS = {
    "queues-list": ("nats", "queues", "list"),
    "queues-show": ("nats", "queues", "show", "default"),
    "workers-list": ("nats", "workers", "list"),
    "dead-letters-list": ("nats", "dead-letters", "list"),
    "check": ("nats", "check"),
}
# Of each command in each round. The least counts: other work on the machine only adds to it, and
# the first one fills the caches of files.
REPEATS = 7


def measure(task: Task) -> Iterator[Sample]:
    with BenchStage(task.directory, task.say) as stage:
        environment = stage.with_prefix(new_prefix())
        cpu_of(environment, "nats", "setup", "-q", "default,gpu")
        for number in range(1, task.rounds + 1):
            least = dict.fromkeys((BASE, *COMMANDS), math.inf)
            for _ in range(max(1, round(REPEATS * task.scale))):
                for name in least:
                    taken = cpu_of(environment, *COMMANDS.get(name, (BASE,)))
                    least[name] = min(least[name], taken)
            base = least.pop(BASE)
            yield Sample(KEY, BASE, base)
            for name, taken in least.items():
                yield Sample(KEY, name, taken - base)
            task.say(f"round {number} of {task.rounds}")


def cpu_of(environment: Mapping[str, str], *arguments: str) -> float:
    """Run `airflow` and return the user and system time of it; raises if it did not answer."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in {0, 1} or "Traceback" in done.stderr:
        raise RuntimeError(f"airflow {' '.join(arguments)}: {done.returncode}: {done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

"""Measure how fast workloads leave the scheduler, and what they cost it while they are away.

Each contender has sent one workload before, as a scheduler that runs has. Then it gets the same
workloads from `queue_workload` and one `heartbeat()`, which has to hand over all of them; `bare`
publishes the same bodies with nats-py alone. Then the idle `sync()`.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.bench.aside import Broken, run_aside
from tests.bench.needs import Unmeasured, missing
from tests.bench.sample import Sample
from tests.bench.stage import BenchStage, new_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.sample import Task

__all__ = ["KEYS", "measure"]

DISPATCH, SYNC = "dispatch_per_s_10k", "idle_sync_ms_10k"
KEYS = frozenset({DISPATCH, SYNC})

OURS, CELERYS, BARE = (f"tests.bench.dispatch_{name}" for name in ("ours", "celery", "bare"))
FULL = 10_000
# By contender: how many are outstanding.
OUTSTANDING = {"nats-100": 100, "nats-100k": 100_000}
OUR_CALLS, CELERYS_CALLS = 20_000, 50


def measure(task: Task) -> Iterator[Sample]:
    with ExitStack() as exits:
        stage = exits.enter_context(BenchStage(task.directory, task.say))
        stage.add_database()
        stage.add_celery()
        failures: dict[str, str] = {}
        for number in range(1, task.rounds + 1):
            # There and back, so that none always follows the same one.
            for contender, part in list(parts(task, stage).items())[:: 1 if number % 2 else -1]:
                try:
                    figures = part()
                except Broken as exc:
                    task.say(f"{contender}: {exc}")
                    failures[contender] = str(exc)
                    continue
                rate = f", {figures['rate']:,.0f} a second" if figures["rate"] else ""
                task.say(f"round {number} of {task.rounds}: {contender}{rate}")
                yield from samples(task, contender, figures)
        if failures:
            raise Unmeasured(reasons(failures))


def parts(task: Task, stage: BenchStage) -> dict[str, Callable[[], Any]]:
    """Return each contender's part of a round."""
    count = max(100, int(FULL * task.scale))
    has_sync = SYNC in task.keys
    ours = max(100, int(OUR_CALLS * task.scale)) if has_sync else 0
    celerys = CELERYS_CALLS if has_sync else 0

    def run(module: str, count: int, calls: int) -> Any:
        stage.renew_nats()
        environment = stage.with_prefix(new_prefix())
        return run_aside(module, stage.logs, environment, count=count, calls=calls)

    found: dict[str, Callable[[], Any]] = {"nats": partial(run, OURS, count, ours)}
    if not missing("celery"):
        found["celery"] = partial(run, CELERYS, count, celerys)
    if DISPATCH in task.keys:
        found["bare"] = partial(run, BARE, count, 0)
    for contender, full in OUTSTANDING.items() if has_sync else ():
        found[contender] = partial(run, OURS, max(10, int(full * task.scale)), ours)
    return found


def reasons(failures: dict[str, str]) -> dict[str, dict[str, str]]:
    """Say of each key why contenders of its are missing."""
    found: dict[str, dict[str, str]] = {DISPATCH: {}, SYNC: {}}
    for contender, reason in failures.items():
        if contender not in OUTSTANDING:
            found[DISPATCH][contender] = reason
        if contender != "bare":
            found[SYNC][contender] = reason
    return found


def samples(task: Task, contender: str, figures: dict[str, Any]) -> Iterator[Sample]:
    if DISPATCH in task.keys and contender not in OUTSTANDING:
        yield Sample(DISPATCH, contender, figures["rate"])
    for milliseconds in figures.get("sync", ()):
        yield Sample(SYNC, contender, milliseconds)
    for name in ("sweep", "sweep-whole"):
        for milliseconds in figures.get(name, ()):
            yield Sample(SYNC, contender.replace("nats", f"nats-{name}", 1), milliseconds)

"""Many drains of real workers that run short tasks, and what they may cost: no try.

Workers with eight slots each run tasks that end at once; the API server takes its time to answer
their starts. Ten tasks come, some of them end, and at a random moment one of the workers gets
SIGTERM, and another one starts in its place: again and again. Now and then one is killed as well.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from unittest import mock

from nats_executor.wire.messages import State
from tests.chaos.processes import left_behind
from tests.chaos.reaper import marked
from tests.chaos.report import table
from tests.faults.stage import open_stage
from tests.support.locking_api import Delay, LockingApi
from tests.support.process_stage import make_home
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from nats_executor.wire.messages import Report
    from tests.faults.stage import FaultStage
    from tests.support.worker_process import WorkerProcess

__all__ = ["Course", "Outcome", "as_json", "as_text", "lost_tries", "run_drains"]

WORKERS, SLOTS = 3, 8
TASKS_PER_DRAIN = 10
MOST_ENDED = 9
LATEST_MOMENT_SECONDS = 0.5
DRAINS_PER_KILL = 5
SHOW_SECONDS = 10.0
MOST_SHOWN = 20
# For as long as nothing ends at all: machines are slow.
STILL_SECONDS = 180.0
ORPHAN_SECONDS = 15.0
OPTIONS = {
    "ack_wait_seconds": 5,
    "heartbeat_seconds": 1,
    "worker_lost_seconds": 5,
    "drain_seconds": 540,
}
# Airflow's client waits so long for an answer, and asks again.
SURROUNDINGS = {"AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "2"}
# Of a hundred answers to starts: from when to when they come, and whether they are lost then.
ANSWERS = {(0.0, 0.3, False): 70, (0.3, 1.9, False): 20, (2.1, 4.0, False): 5, (0.0, 0.5, True): 5}


@dataclass(frozen=True, slots=True)
class Course:
    """What a run is to be."""

    seed: int
    drains: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run has shown.

    Attributes:
        lost_with_the_killed: tries that a worker that was killed had started, or may have.
    """

    tasks: int
    drains: int
    kills: int
    lost_with_the_killed: int
    violations: Sequence[str]


async def run_drains(
    course: Course, url: str, directory: Path, say: Callable[[str], None]
) -> Outcome:
    """Start workers on a server, drain them, and judge what became of every task."""
    marks, home, output = (directory / name for name in ("marks", "home", "workers"))
    for folder in (marks, home, output):
        folder.mkdir(parents=True)
    with LockingApi() as api:
        environment = make_home(home, api, marks) | SURROUNDINGS
        with mock.patch.dict(os.environ, environment), marked():
            async with open_stage(url, "drains", api, marks, output, **OPTIONS) as stage:
                return await Drains(course, stage, api, say).run()


class Drains:
    """One run on a stage."""

    def __init__(
        self, course: Course, stage: FaultStage, api: LockingApi, say: Callable[[str], None]
    ) -> None:
        self.course = course
        self.stage = stage
        self.api = api
        self.say = say
        # Not for secrets: the point is that it can be repeated.
        self.source = random.Random(course.seed)  # noqa: S311
        self.answers = random.Random(course.seed)  # noqa: S311
        self.sent: set[str] = set()
        self.serving: list[WorkerProcess] = []
        self.draining: list[WorkerProcess] = []
        self.killed: list[WorkerProcess] = []
        self.up: set[str] = set()
        self.next_show, self.changed_at = 0.0, time.monotonic()
        self.seen = 0
        api.delay = self.delay

    async def run(self) -> Outcome:
        for _ in range(WORKERS):
            self.launch()
        await wait_until(lambda: len(self.ready) == WORKERS, 300, "the first workers to be ready")
        self.changed_at = time.monotonic()
        while len(self.draining) < self.course.drains:
            await self.has_work(self.source.randint(0, MOST_ENDED))
            await asyncio.sleep(self.source.uniform(0, LATEST_MOMENT_SECONDS))
            self.drain()
            if len(self.draining) % DRAINS_PER_KILL == 0:
                self.kill()
        problems = await self.settle()
        return await self.judge(problems)

    def delay(self, _: str) -> Delay:
        [(low, high, is_lost)] = self.answers.choices(list(ANSWERS), list(ANSWERS.values()))
        return Delay(self.answers.uniform(low, high), is_lost=is_lost)

    # Workers

    def launch(self) -> None:
        name = f"w{len(self.stage.workers) + 1}"
        worker = self.stage.launch("--skip-serve-logs", "-c", str(SLOTS), name=name, **OPTIONS)
        self.serving.append(worker)

    @property
    def ready(self) -> list[WorkerProcess]:
        self.up |= {w.name for w in self.serving if w.name not in self.up and "is ready" in w.text}
        return [worker for worker in self.serving if worker.name in self.up]

    def drain(self) -> None:
        worker = self.source.choice(self.ready)
        worker.tell(signal.SIGTERM)
        self.serving.remove(worker)
        self.draining.append(worker)
        self.launch()

    def kill(self) -> None:
        """Kill one as an out-of-memory killer does, in the midst of what it starts and runs."""
        worker = self.source.choice(self.ready)
        worker.tell(signal.SIGKILL)
        self.serving.remove(worker)
        self.killed.append(worker)
        self.launch()

    # Tasks

    @property
    def finished(self) -> int:
        return sum(last_state(self.stage.history[task]).is_final for task in self.sent)

    async def has_work(self, count: int) -> None:
        """Send the next tasks once two workers are there, and wait until so many have ended."""
        await wait_until(lambda: len(self.ready) > 1, 300, "two workers to be ready")
        before = self.finished
        for _ in range(TASKS_PER_DRAIN):
            self.sent.add(await self.stage.send("succeed"))

        def check() -> bool:
            self.require_progress()
            return self.finished >= before + count

        await wait_until(check, float("inf"))

    def require_progress(self) -> None:
        now, finished = time.monotonic(), self.finished
        if finished != self.seen:
            self.seen, self.changed_at = finished, now
        if now - self.changed_at > STILL_SECONDS:
            raise TimeoutError(f"nothing has ended for {STILL_SECONDS:g} s")
        if now >= self.next_show:
            self.next_show = now + SHOW_SECONDS
            self.say(
                f"{len(self.sent):5} tasks sent  {finished:5} ended  {len(self.draining):4} drains"
                f"  {len(self.killed):3} kills"
            )

    async def settle(self) -> list[str]:
        """Drain nothing more, and wait until all is over; return what does not end."""

        def is_over() -> bool:
            self.require_progress()
            return self.finished == len(self.sent)

        problems = []
        try:
            await wait_until(is_over, float("inf"))
        except TimeoutError as exc:
            problems.append(str(exc))
        # Before that SIGTERM is nothing orderly.
        await wait_until(lambda: len(self.ready) == WORKERS, 300, "the last workers to be ready")
        for worker in self.serving:
            worker.tell(signal.SIGTERM)
        for worker in (*self.draining, *self.serving):
            try:
                code = await worker.ended()
            except TimeoutError:
                problems.append(f"{worker.name} does not end")
            else:
                problems += [f"{worker.name} ended with {code}"] if code else []
        return problems

    async def judge(self, problems: list[str]) -> Outcome:
        history = {task: self.stage.history[task] for task in self.sent}
        killed = {worker.name for worker in self.killed}
        lost = dict(lost_tries(history, killed))
        excused = {task for task, is_excused in lost.items() if is_excused}
        problems += [
            f"{task}: {history[task][-1].state}, {history[task][-1].info or 'no reason'}"
            for task in lost
            if task not in excused
        ]
        for task in history.keys() - lost.keys():
            if (states := self.stage.final_states(task)) != ["success"]:
                problems.append(f"{task}: the API server was told {states}")
            if not await self.stage.post.is_acked(task):
                problems.append(f"{task}: its message is left in the queue")
        with suppress(TimeoutError):
            await wait_until(lambda: not left_behind(), ORPHAN_SECONDS)
        problems += [f"process {pid} was left behind: {c}" for pid, c in left_behind().items()]
        return Outcome(
            tasks=len(self.sent), drains=len(self.draining), kills=len(self.killed),
            lost_with_the_killed=len(excused), violations=problems,
        )  # fmt: skip


def last_state(reports: Sequence[Report]) -> State:
    return reports[-1].state if reports else State.RELEASED


def lost_tries(
    history: Mapping[str, Sequence[Report]], killed: Collection[str]
) -> Iterator[tuple[str, bool]]:
    """Yield every task that did not succeed, and whether the worker that had it was killed."""
    for task, reports in history.items():
        if last_state(reports) is State.SUCCESS:
            continue
        held = [r for r in reports if r.state in {State.CLAIMED, State.RUNNING}]
        # The one before may have been allowed to start it: only its own life could tell.
        names = {held[-1].worker_name, *held[-1].predecessors[-1:]} if held else set()
        # Its supervisor may even have told the API server that it failed, so that none wants it.
        is_over = last_state(reports) in {State.FAILED, State.DROPPED}
        yield task, is_over and bool(names & set(killed))


def as_json(course: Course, outcome: Outcome) -> str:
    return json.dumps({"seed": course.seed, **asdict(outcome)}, indent=2) + "\n"


def as_text(course: Course, outcome: Outcome) -> str:
    """Return the figures, the first violations, and the verdict."""
    figures = asdict(outcome)
    found = figures.pop("violations")
    parts = [table([figures])]
    if found:
        parts.append(table([{"violated": text} for text in found[:MOST_SHOWN]]))
    verdict = f"{len(found)} violations" if found else "no violation"
    parts.append(f"{verdict}; repeat with --drains {course.drains} --seed {course.seed}")
    return "\n\n".join(parts) + "\n"

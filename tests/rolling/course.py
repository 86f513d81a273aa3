"""The course of a rolling restart: a steady load, one restart after the other, quiet, judgement."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from tests.airflow.postgres import PostgresServer
from tests.airflow.tables import LIVE, SPENT
from tests.chaos.reaper import marked
from tests.rolling.fleet import Fleet
from tests.rolling.judgement import (
    FINAL,
    Done,
    causes,
    judge,
    lost,
    read_runs,
    restarts_by_kind,
    said,
    too_long,
    waits_in,
)
from tests.rolling.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.rolling.judgement import Wait
    from tests.rolling.plan import Restart

__all__ = ["Course", "Result", "run_rolling"]

TASKS_PER_RUN = 8
WARM_RUNS = 3
POLL_SECONDS = 0.1
SHOW_SECONDS = 10.0
# For as long as anything changes: machines are slow.
STILL_SECONDS = 180.0
CLEAN_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What a run is to be.

    Attributes:
        every: seconds from one restart to the next.
        rate: tasks in a second.
        longest_wait: what no task may be queued for longer, in seconds; None for no limit.
    """

    seed: int
    seconds: float
    every: float = 20.0
    rate: float = 4.0
    longest_wait: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run has shown; `waits` are the seconds that each task was queued."""

    tasks: int
    lost: int
    tries_spent: int
    waits: Sequence[float] = field(repr=False)
    longest_wait_cause: str
    restarts: Sequence[dict[str, Any]]
    violations: Sequence[str]

    def wait(self, percent: int) -> float:
        """Return a percentile of the waits."""
        if len(self.waits) < 2:
            return max(self.waits, default=0.0)
        return quantiles(self.waits, n=100, method="inclusive")[percent - 1]


def run_rolling(course: Course, directory: Path, say: Callable[[str], None]) -> Result:
    """Deploy an Airflow, restart all of it under load, and judge; starting it takes a minute."""
    with marked(), PostgresServer() as database:
        say("starting PostgreSQL, three NATS servers and a whole Airflow")
        with Fleet(directory / "airflow", database.url) as fleet:
            return Rolling(course, fleet, say).run()


class Rolling:
    """One run on a fleet."""

    def __init__(self, course: Course, fleet: Fleet, say: Callable[[str], None]) -> None:
        self.course = course
        self.fleet = fleet
        self.say = say
        self.upcoming = make_plan(course.seed, seconds=course.seconds, every=course.every)
        self.done: list[Done] = []
        self.under_way: UnderWay | None = None
        self.problems: list[str] = []
        self.runs = 0
        self.next_run = self.next_show = 0.0
        self.began = time.monotonic()
        self.load_began = 0.0  # in seconds since the epoch

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def run(self) -> Result:
        self.warm_up()
        self.say(f"seed {self.course.seed}: {len(self.upcoming)} restarts")
        self.began, self.load_began = time.monotonic(), time.time()
        while self.elapsed < self.course.seconds or self.upcoming or self.under_way is not None:
            self.load()
            self.step()
        self.settle()
        return self.judge()

    def warm_up(self) -> None:
        """Have a few runs end: what is needed for a first time takes seconds everywhere."""
        while self.runs < WARM_RUNS or not self.is_over():
            if self.runs < WARM_RUNS and self.fleet.has_triggered(f"run-{self.runs}"):
                self.runs += 1
            self.step()

    def step(self) -> None:
        self.restart()
        self.problems += [f"by itself, {text}" for text in self.fleet.bury()]
        self.show()
        time.sleep(POLL_SECONDS)

    def load(self) -> None:
        """Trigger a run when it is due; one that was not answered is asked for again."""
        if self.elapsed >= self.next_run and self.fleet.has_triggered(f"run-{self.runs}"):
            self.runs += 1
            pause = TASKS_PER_RUN / self.course.rate
            self.next_run = max(self.next_run + pause, self.elapsed)

    def restart(self) -> None:
        """Begin a restart, or see whether the one under way is over: never two at a time."""
        if self.under_way is None:
            if self.load_began and self.upcoming and self.elapsed >= self.upcoming[0].at:
                self.under_way = UnderWay.begin(self.fleet, self.upcoming.pop(0))
        elif (done := self.under_way.look()) is not None:
            self.done.append(done)
            self.under_way = None

    def show(self) -> None:
        if self.elapsed < self.next_show:
            return
        self.next_show = self.elapsed + SHOW_SECONDS
        last = f"{self.done[-1]}, back after {self.done[-1].seconds:.1f} s" if self.done else ""
        states = ", ".join(f"{n} {state}" for state, n in self.fleet.counts().items())
        self.say(f"{self.elapsed:4.0f} s  {states}  {len(self.done)} restarts  {last}")

    # The end

    def settle(self) -> None:
        """Restart nothing more, and wait until all is over, for as long as anything changes."""
        seen, since = self.fleet.counts(), time.monotonic()
        while not self.is_over():
            self.step()
            if (now := self.fleet.counts()) != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > STILL_SECONDS:
                self.problems.append(f"nothing changed for {STILL_SECONDS:g} s")
                return
        deadline = time.monotonic() + CLEAN_SECONDS
        while left := [*self.fleet.left_in_broker(), *self.still_draining()]:
            self.step()
            if time.monotonic() > deadline:
                self.problems += left
                return

    def is_over(self) -> bool:
        return all(row["state"] in FINAL for row in self.fleet.rows("SELECT state FROM dag_run"))

    def still_draining(self) -> list[str]:
        living = [process for process in self.fleet.leaving if process.exit_code is None]
        return [f"{process.name} was told to stop and runs" for process in living]

    def judge(self) -> Result:
        rows = self.fleet.rows(f"SELECT * FROM {LIVE}")
        history = self.fleet.rows(f"SELECT * FROM {SPENT}")
        notes = ""
        with suppress(FileNotFoundError):  # nothing has run
            notes = (self.fleet.marks / "runs").read_text()
        waits = [wait for wait in waits_in(rows) if wait.queued >= self.load_began]
        found = self.problems + judge(rows, history, read_runs(notes))
        if self.course.longest_wait is not None:
            found += too_long(waits, self.done, self.course.longest_wait)
        return Result(
            tasks=len(rows),
            lost=lost(rows),
            tries_spent=len(history),
            waits=[wait.seconds for wait in waits],
            longest_wait_cause=self.cause(waits),
            restarts=restarts_by_kind(self.done),
            violations=found,
        )

    def cause(self, waits: Sequence[Wait]) -> str:
        return said(causes(waits[-1], self.done)) if waits else ""


@dataclass(slots=True)
class UnderWay:
    """A restart that is not over yet."""

    restart: Restart
    name: str
    began: float
    is_back: Callable[[], bool]

    @classmethod
    def begin(cls, fleet: Fleet, restart: Restart) -> UnderWay:
        began = time.time()
        name, is_back = fleet.end(restart.kind, restart.number, restart.how)
        return cls(restart, name, began, is_back)

    def look(self) -> Done | None:
        if not self.is_back():
            return None
        return Done(self.restart.kind, self.name, self.restart.how, self.began, time.time())

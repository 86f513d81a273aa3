"""The course of a run: workloads and faults for some time, then quiet until all has ended."""

from __future__ import annotations

import random
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats_executor.errors import BrokerError
from tests.chaos.database import FINAL, Behaviour
from tests.chaos.evidence import BrokerContent, Evidence, look_into_broker
from tests.chaos.faults import Injector
from tests.chaos.processes import left_behind, wait_for
from tests.chaos.stage import QUEUES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.database import Job
    from tests.chaos.plan import Fault
    from tests.chaos.stage import ChaosStage

__all__ = ["Course", "Storm"]

# Three interpreters that import Airflow, on a machine that may be busy.
START_SECONDS = 180.0
LOOP_SECONDS = 0.05
SHOW_SECONDS = 3.0
ORPHAN_SECONDS = 15.0
# More of them waiting would show nothing but a backlog.
MOST_WAITING = 150
# A fault's recovery is seen by workloads that come after it.
TRICKLE_SECONDS = 0.2
RETRIES = 20
# The parent of a fork server whose worker died a moment ago.
INIT = 1

BEHAVIOURS = {
    Behaviour.PLAIN: 90,
    Behaviour.CALLBACK: 4,
    Behaviour.FAILING: 3,
    Behaviour.OLD_TOKEN: 3,
}
QUEUE_WEIGHTS = (5, 3, 2)
# How many of a hundred run for how long: some outlive a cut that makes their worker count as lost.
LENGTHS = {(0.01, 0.3): 93, (1.0, 5.0): 6, (9.0, 10.0): 1}


@dataclass(frozen=True, slots=True)
class Course:
    """What a run is to be."""

    seed: int
    seconds: float
    workloads: int
    plan: Sequence[Fault]


class Storm:
    """One run on a stage."""

    def __init__(self, stage: ChaosStage, course: Course) -> None:
        self.stage = stage
        self.course = course
        self.database = stage.database
        self.injector = Injector(stage)
        self.upcoming = deque(course.plan)
        # A source of its own: what is submitted depends on how fast the machine is.
        self.source = random.Random(course.seed)  # noqa: S311
        self.submitted = 0
        self.began = 0.0
        self.next_show = self.next_trickle = 0.0

    def run(self) -> None:
        try:
            self.wait_until_ready()
            self.began = time.monotonic()
            self.disturb()
            self.settle()
        finally:
            self.injector.stop()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def wait_until_ready(self) -> None:
        """Wait for every scheduler's first heartbeat; the workers are faster."""
        expected = len(self.stage.schedulers)
        if not wait_for(START_SECONDS, lambda: len(self.database.jobs()) >= expected):
            raise TimeoutError(f"no schedulers; see {self.stage.logs}")

    def disturb(self) -> None:
        """Submit workloads and carry out the plan."""
        while self.elapsed < self.course.seconds:
            self.submit()
            while self.upcoming and self.upcoming[0].at <= self.elapsed:
                self.injector.begin(self.upcoming.popleft())
            self.injector.watch(self.database)
            self.show()
            time.sleep(LOOP_SECONDS)

    def submit(self) -> None:
        due = int(self.course.workloads * min(1.0, self.elapsed / self.course.seconds))
        if due <= self.submitted:
            return
        room = MOST_WAITING - self.unended()
        with self.database.transaction():
            for _ in range(min(room, due - self.submitted)):
                self.submit_one()

    def submit_one(self) -> None:
        [behaviour] = self.source.choices(list(BEHAVIOURS), list(BEHAVIOURS.values()))
        [queue] = self.source.choices(QUEUES, QUEUE_WEIGHTS)
        [limits] = self.source.choices(list(LENGTHS), list(LENGTHS.values()))
        length = self.source.uniform(*limits)
        if behaviour == Behaviour.CALLBACK:
            queue = "default"  # the executor puts them all there
        retries = 0 if behaviour == Behaviour.FAILING else RETRIES
        self.database.submit(behaviour, queue, round(length, 3), retries)
        self.submitted += 1

    def unended(self) -> int:
        return sum(n for state, n in self.database.counts().items() if state not in FINAL)

    def settle(self) -> None:
        """Wait without faults until everything has ended and nothing is left to report."""
        deadline = time.monotonic() + self.stage.pace.quiet_seconds
        while time.monotonic() < deadline:
            if self.injector.is_busy or self.injector.waiting:
                self.trickle()
            elif not self.unended():
                break
            self.injector.watch(self.database)
            self.show()
            time.sleep(LOOP_SECONDS)
        wait_for(self.stage.pace.idle_seconds, self.is_idle)

    def trickle(self) -> None:
        if time.monotonic() >= self.next_trickle:
            self.next_trickle = time.monotonic() + TRICKLE_SECONDS
            with self.database.transaction():
                self.submit_one()

    def is_idle(self) -> bool:
        self.show()
        is_free = not any(job.running or job.ledger for job in self.living_jobs())
        found = self.look()
        # A worker that was started last may need a while on a busy machine to say that it is there.
        return is_free and found.is_idle and set(found.workers) == set(self.aliases)

    @property
    def aliases(self) -> list[str]:
        return [worker.alias for worker in self.stage.workers]

    def living_jobs(self) -> list[Job]:
        pids = {scheduler.pid for scheduler in self.stage.schedulers if scheduler.is_alive}
        return [job for job in self.database.jobs() if job.pid in pids]

    def look(self) -> BrokerContent:
        try:
            return look_into_broker(self.stage.settings)
        except BrokerError as exc:
            return BrokerContent(tasks=[f"the broker does not answer: {exc}"])

    def show(self) -> None:
        """Say every few seconds how it goes."""
        if time.monotonic() < self.next_show:
            return
        self.next_show = time.monotonic() + SHOW_SECONDS
        counts = self.database.counts()
        ended = sum(counts.get(state, 0) for state in FINAL)
        following = self.upcoming[0] if self.upcoming else None
        last = f"next {following.kind} at {following.at:.0f} s" if following else "no more faults"
        sys.stderr.write(
            f"{self.elapsed:5.0f} s  {sum(counts.values())} submitted  {ended} ended"
            f"  {counts.get('running', 0)} running  {len(self.injector.injections)} faults"
            f" ({len(self.injector.waiting)} not recovered)  {last}\n"
        )

    def evidence(self) -> Evidence:
        """Look at what is left, stop the workers, and look at what is left of them."""
        broker, jobs = self.look(), self.living_jobs()
        survivors = {worker.pid for worker in self.stage.workers}
        # Those that drain are not hurt: what they have to do, they do.
        survivors |= {process.pid for w in self.stage.workers for process in w.draining}
        gone = {pid for worker in self.stage.workers for pid in worker.pids} - survivors
        self.stage.stop_workers()
        others = [m.pid for m in self.stage.crew.members if m not in self.stage.workers]
        others += [server.process.pid for server in self.stage.servers if server.process]
        wait_for(ORPHAN_SECONDS, lambda: not left_behind(others))
        return Evidence(
            rows=self.database.rows(),
            history=self.database.history(),
            executions=self.database.executions(),
            jobs=jobs,
            broker=broker,
            worker_names=self.aliases,
            orphans=left_behind(others),
            injections=self.injector.injections,
            hurt=frozenset({INIT, *self.injector.hurt, *gone}),
            cut_off=self.injector.cut_off,
            api_outages=self.injector.api_outages,
            wiped_at=self.injector.wiped_at,
            is_mixed=self.stage.earlier is not None,
        )

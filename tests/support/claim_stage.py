"""One dispatch, any number of workers, and every order in which their steps can fall.

The errands, their claims and verdicts are the real ones. What is simulated is around them: each
step on the broker waits until a test lets it through or loses it, workers crash or are cut off,
Airflow's API server answers, accepts in silence or does not answer.
"""

from __future__ import annotations

import base64
import dataclasses
import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from nats_executor.scheduler.ledger import Dispatch, Ended, Ledger, Unwanted
from nats_executor.topology import setup
from nats_executor.wire.messages import Kind, Report, State, Workload, encode
from nats_worker.delivery.errand import Errand
from nats_worker.delivery.shared import Shared
from nats_worker.processes.exit_report import Ending
from nats_worker.state import Plan
from nats_worker.worker import Worker
from tests.support.fake_api import ANSWERS, Api
from tests.support.fake_broker import FakePulls
from tests.support.fake_pool import FakePool, FakeRun
from tests.support.fixtures import settings_for
from tests.support.gated_broker import GatedBroker, Loop, RememberingServer
from tests.support.worker_stage import holdings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nats_executor.fleet.liveness import Holder

__all__ = ["ACK_WAIT", "DETAILS", "EXPIRED_TOKEN", "ROUNDS", "ClaimStage", "claim_stage"]

ACK_WAIT = 6.0
MAX_ATTEMPTS = 2
SETTINGS = settings_for(
    "nats://127.0.0.1:4222", ack_wait_seconds=ACK_WAIT, max_attempts=MAX_ATTEMPTS
)
NAMES = SETTINGS.names
TASK_SUBJECT = NAMES.task("default", "d1")
RESULT_SUBJECT = NAMES.result("default", "d1")
ENDS = {"well": (Ending.FINISHED, 0), "killed": (Ending.FINISHED, -9), "died": (Ending.DIED, 0)}
# What a move is about, where that is a choice.
DETAILS: dict[str, tuple[Any, ...]] = {
    "ask": ANSWERS,
    "end": tuple(ENDS),
    "wait": (1.0, ACK_WAIT, 20.0),
}
# Longer than any pause before a message or a step on the broker comes again.
LATER = 20.0
ROUNDS = 30
# One less than the renewals after which a refusal counts.
MOST_DEAD_TOKENS = 2
EXPIRED_TOKEN = "a." + base64.urlsafe_b64encode(b'{"exp": 1}').decode() + ".c"
PLAN = Plan(
    name="w", queues=("default",), concurrency=100, team=None, cleanup_seconds=0.0, version="1"
)


@dataclass(eq=False, repr=False)
class Site:
    """One start of one worker.

    Attributes:
        was_cut: it was cut off from the broker once, so others may have taken it for dead.
        succeeded: a run of it ended well.
    """

    worker: Worker
    broker: GatedBroker
    pool: FakePool
    is_dead: bool = False
    is_draining: bool = False
    was_cut: bool = False
    succeeded: bool = False

    @property
    def takes(self) -> bool:
        """Whether the broker may deliver to it."""
        return not self.is_dead and not self.is_draining and self.broker.is_connected

    @property
    def runs(self) -> list[FakeRun]:
        return [run for run in self.pool.own if not run.is_over]


@dataclass
class ClaimStage:
    """One dispatch, the workers and what they meet."""

    kind: Kind = Kind.TASK
    token: str = "token-0"
    loop: Loop = field(default_factory=Loop)
    server: RememberingServer = field(default_factory=lambda: RememberingServer(RESULT_SUBJECT))
    pool: FakePool = field(default_factory=FakePool)
    every_site: list[Site] = field(default_factory=list)
    given_up: set[str] = field(default_factory=set)  # the ids that count as dead

    def __post_init__(self) -> None:
        self.api = Api(is_locking=self.kind is Kind.TASK)
        setting_up = setup.apply(self.server.broker(), SETTINGS, ["default"])
        self.loop.run_until_complete(setting_up)
        workload = Workload(
            dispatch_id="d1", queue="default", kind=self.kind, body={"token": self.token},
            key=["a"], sender="s",
        )  # fmt: skip
        self.server.put(TASK_SUBJECT, encode(workload))
        self.sites = [self.site(f"w{number}") for number in range(3)]
        self.runs_seen = 0

    def site(self, name: str) -> Site:
        worker = Worker(SETTINGS, dataclasses.replace(PLAN, name=name))
        worker.state.id = f"{name}.{len(self.every_site)}"
        site = Site(worker, GatedBroker(self.server), self.pool.branch())
        self.every_site.append(site)
        return site

    async def is_alive(self, holder: Holder) -> bool:
        """Answer as `Liveness` does."""
        return holder.worker not in self.given_up

    @property
    def is_queued(self) -> bool:
        return bool(self.server.messages(NAMES.tasks_stream))

    @property
    def last(self) -> Report | None:
        return self.server.said[-1] if self.server.said else None

    @property
    def finals(self) -> list[Report]:
        return [report for report in self.server.said if report.state.is_final]

    @property
    def was_cut(self) -> bool:
        return any(site.was_cut for site in self.every_site)

    @property
    def is_due(self) -> bool:
        """Whether the message waits for a worker, for the first time or again."""
        consumer = self.server.consumer(NAMES.tasks_stream, NAMES.consumer("default"))
        flights = consumer.flights.values()
        return self.is_queued and all(flight.due <= self.server.now for flight in flights)

    # What can happen

    def moves(self) -> dict[str, list[str]]:
        """Return what can happen now, with the ids of the workers to which it can."""
        living = [site for site in self.sites if not site.is_dead]
        busy = [site for site in living if holdings(site.worker)]
        waiting = [site for site in living if site.broker.is_waiting]
        possible: dict[str, list[Site]] = {
            "go on": waiting,
            "go far": waiting,
            "lose": waiting,
            "deliver": [site for site in living if site.takes] if self.is_due else [],
            "ask": [site for site in living if any(not run.task_pid for run in site.runs)],
            "end": [site for site in living if any(run.task_pid for run in site.runs)],
            "crash": busy,
            "cut": [site for site in busy if site.broker.is_connected],
            "heal": [site for site in living if not site.broker.is_connected],
            "drain": [site for site in busy if not site.is_draining],
            "come back": [site for site in self.sites if site.is_dead or site.is_draining],
            # Only who is gone or cut off may be taken for dead.
            "give up": [site for site in self.every_site if not site.broker.is_connected],
            "renew": self.sites[:1] if self.last and self.last.state is State.EXPIRED else [],
            "let tokens die": self.sites[:1] if self.api.oldest_token < MOST_DEAD_TOKENS else [],
            "wait": self.sites[:1],
        }
        return {
            move: [site.worker.state.id for site in where]
            for move, where in possible.items()
            if where
        }

    def move(self, what: str, worker: str, detail: Any = None) -> None:
        """Make one of the moves."""
        (site,) = (site for site in self.every_site if site.worker.state.id == worker)
        table: dict[str, Callable[[], object]] = {
            "lose": lambda: self.go_on(site, lose=True),
            "ask": lambda: self.ask(site, detail),
            "end": lambda: self.end(site, *ENDS[detail]),
            "renew": self.renew,
            "let tokens die": self.let_tokens_die,
            "wait": lambda: self.wait(detail),
        }
        if what in table:
            table[what]()
        else:
            getattr(self, what.replace(" ", "_"))(site)

    def deliver(self, site: Site) -> bool:
        pulls = FakePulls(site.broker, NAMES.tasks_stream, NAMES.consumer("default"))
        delivery = pulls.next_offer() if site.takes else None
        if delivery is None:
            return False
        shared = Shared(
            broker=site.broker, settings=SETTINGS, pool=site.pool, leases=site.worker.leases,
            liveness=cast("Any", self), worker=site.worker.state.id,
            worker_name=site.worker.state.plan.name,
        )  # fmt: skip
        errand = Errand(shared, "default", delivery)
        self.loop.call_soon(site.worker.crew.accept, errand)
        self.settle()
        return True

    def go_on(self, site: Site, *, lose: bool = False) -> bool:
        is_moving = site.broker.open_gate(lose=lose)
        self.settle()
        return is_moving

    def go_far(self, site: Site) -> None:
        while self.go_on(site):
            pass

    def wait(self, seconds: float = LATER) -> None:
        self.loop.now += seconds
        self.server.advance(seconds)
        self.settle()

    def ask(self, site: Site, how: str = "answered") -> None:
        for run in site.runs:
            if not run.task_pid:
                self.api.ask(run, how)
        self.settle()

    def end(self, site: Site, ending: Ending = Ending.FINISHED, exit_code: int = 0) -> None:
        for run in site.runs:
            if run.task_pid:
                site.succeeded = ending is Ending.FINISHED and exit_code == 0
                # A task that was killed told Airflow nothing: its row says that it runs.
                self.api.state = "success" if site.succeeded else self.api.state
                run.finish(ending, exit_code=exit_code)
        self.settle()

    def come_back(self, site: Site) -> None:
        self.sites[self.sites.index(site)] = self.site(site.worker.state.plan.name)

    def give_up(self, site: Site) -> None:
        self.given_up.add(site.worker.state.id)

    def let_tokens_die(self) -> None:
        self.api.oldest_token += 1

    def crash(self, site: Site) -> None:
        site.is_dead = True
        site.broker.disconnect()
        for task in site.worker.crew.tasks:
            task.cancel()
        self.settle()
        for run in site.runs:
            run.end("the machine is gone")
        self.settle()

    def cut(self, site: Site) -> None:
        site.was_cut = True
        site.broker.disconnect()

    def heal(self, site: Site) -> None:
        if not site.is_dead:
            site.broker.reconnect()
            self.given_up.discard(site.worker.state.id)

    def drain(self, site: Site) -> None:
        site.is_draining = True
        for errand in site.worker.crew.errands:
            if isinstance(errand.record.run, FakeRun):
                errand.record.run.deadly.add(signal.SIGKILL)
            errand.hand_back()
        self.settle()

    def renew(self) -> None:
        """Answer an expired token as the dispatcher does."""
        if self.last and self.last.state is State.EXPIRED:
            generation = self.last.generation + 1
            self.api.oldest_token = max(generation, self.api.oldest_token)
            token = f"token-{self.api.oldest_token}"
            answer = dataclasses.replace(
                self.last, state=State.RENEWED, generation=generation, token=token
            )
            self.server.put(RESULT_SUBJECT, encode(answer))

    def calm_down(self) -> None:
        """Let all that is broken recover and everybody work on, until nothing is left to do."""
        for site in self.every_site:
            self.heal(site)
            if site.is_dead:
                self.given_up.add(site.worker.state.id)
        self.sites.append(self.site("w9"))
        for turn in range(ROUNDS):
            self.renew()
            first = turn % len(self.every_site)  # nobody is always too late
            for site in self.every_site[first:] + self.every_site[:first]:
                self.go_far(site)
                self.deliver(site)
                self.go_far(site)
                self.ask(site)
                self.go_far(site)
                self.end(site)
                self.go_far(site)
            for site in self.every_site:
                if site.is_draining and not site.worker.crew.tasks:
                    self.crash(site)  # it has nothing left to do and exits
                    self.given_up.add(site.worker.state.id)
            if not self.is_queued and not any(holdings(s.worker) for s in self.every_site):
                return
            self.wait()
        raise AssertionError(f"it never ended: {self.server.said[-10:]}")

    def close(self) -> None:
        for site in self.every_site:
            self.crash(site)
        self.loop.close()

    # What must hold

    def settle(self) -> None:
        self.loop.settle()
        for run in self.pool.requested[self.runs_seen :]:
            self.check_start(run)
        self.runs_seen = len(self.pool.requested)

    def check_start(self, run: FakeRun) -> None:
        """Check what has just been started against what had been said until then."""
        said = self.server.said
        (site,) = (site for site in self.every_site if run in site.pool.own)
        claim = max(
            number
            for number, report in enumerate(said)
            if report.worker == site.worker.state.id and report.state is State.CLAIMED
        )
        renewals = [report.token for report in said[:claim] if report.state is State.RENEWED]
        assert run.body["token"] == (renewals[-1] if renewals else self.token)
        if not self.was_cut:
            assert all(report.state is not State.RUNNING for report in said)

    def check(self) -> None:
        trusted = [site for site in self.every_site if not site.was_cut]
        assert sum(len(site.runs) for site in trusted) <= 1
        assert all(0 <= report.attempt <= MAX_ATTEMPTS for report in self.server.said)
        ends = [report for report in self.finals if report.state is not State.DROPPED]
        assert len(ends) <= 1
        assert len(self.finals) <= 1 or self.was_cut
        for before, after in pairwise(self.server.said):
            # Who has no token to start with waits for one, and it costs nothing.
            is_answer = before.state is not State.EXPIRED or after.state is State.RENEWED
            assert is_answer or self.was_cut
        # The report comes before the ack.
        assert self.is_queued or self.finals

    def check_end(self) -> None:
        ledger = Ledger()
        ledger.track(Dispatch("d1", "key", "default", self.kind, "ti"))
        outcomes = [ledger.apply(report) for report in self.server.said]
        assert sum(isinstance(outcome, Ended | Unwanted) for outcome in outcomes) == 1
        assert len(ledger) == 0
        if any(site.succeeded and not site.is_dead for site in self.every_site if not site.was_cut):
            assert self.finals[-1].state is State.SUCCESS


@contextmanager
def claim_stage(**conditions: Any) -> Iterator[ClaimStage]:
    made = ClaimStage(**conditions)
    try:
        yield made
    finally:
        made.close()

"""One delivery from its arrival to its ack: decide, claim, run, report, ack.

Every step may be the last one: the process, the broker or the API server may go away between any
two. What is left behind then is a claim, a message that comes back, or a report twice; the next
worker's `claims.decide` knows what each means.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nats_executor.errors import BrokerError, BrokerUnavailable, DecodeError, WrongSequence
from nats_executor.messages import Kind, Report, State, Workload, decode, encode

from nats_worker import claims
from nats_worker.verdict import Back, Expired, Final, Left, judge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats_executor.ports import Broker, Delivery
    from nats_executor.settings import Settings

    from nats_worker.lease import Leases
    from nats_worker.pool import ProcessPool, Run
    from nats_worker.presence import Liveness
    from nats_worker.verdict import Verdict

__all__ = ["Errand", "Surroundings"]

log = logging.getLogger(__name__)

# A report that the broker does not take is offered again after a pause that doubles up to this.
LONGEST_PAUSE = 5.0
# An executor answers an expired token within a loop of its scheduler.
RENEWAL_SECONDS = 2.0
STOPPING = "this worker stops"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every errand of a worker shares."""

    broker: Broker
    settings: Settings
    pool: ProcessPool
    leases: Leases
    liveness: Liveness
    worker: str  # this worker's id
    worker_name: str


@dataclass(slots=True)
class Errand:
    """One delivery of one queue's consumer.

    Attributes:
        is_revoked: the scheduler took the workload back.
        is_handed_back: this worker stops, and the workload has not started.
        run: the process, once there is one.
    """

    around: Surroundings
    queue: str
    delivery: Delivery
    is_revoked: bool = False
    is_handed_back: bool = False
    run: Run | None = None
    attempt: int = 1
    sequence: int = 0
    generation: int = 0
    workload: Workload | None = field(default=None, repr=False)

    @property
    def dispatch_id(self) -> str:
        return self.around.settings.names.place(self.delivery.subject).dispatch_id

    @property
    def subject(self) -> str:
        return self.around.settings.names.result(self.queue, self.dispatch_id)

    async def carry(self, on_exit: Callable[[], None]) -> None:
        """See the delivery through; calls `on_exit` once its process is gone, if it had one."""
        try:
            self.workload = self.read()
        except DecodeError as exc:
            await self.bury(str(exc))
            return
        claim = await self.claim()
        if claim is None:
            return
        self.around.leases.hold(self.dispatch_id, self.delivery)
        try:
            verdict = await self.execute(self.workload, claim, on_exit)
            await self.settle(verdict)
        finally:
            self.around.leases.let_go(self.dispatch_id)

    def read(self) -> Workload:
        """Decode the message; raises `DecodeError` for what this release cannot run."""
        workload = decode(Workload, self.delivery.body)
        if workload.dispatch_id != self.dispatch_id:
            raise DecodeError(f"the message says it is {workload.dispatch_id!r}")
        if workload.kind not in set(Kind):
            raise DecodeError(f"unknown workload type {workload.kind!r}")
        return workload

    @property
    def pause(self) -> float:
        """Seconds after which to look again at what another worker holds."""
        return self.around.settings.ack_wait_seconds / 3

    def hand_back(self) -> None:
        """Give the workload to another worker, unless it has started."""
        if self.run is None or not self.run.task_pid:
            self.is_handed_back = True
            if self.run is not None:
                self.run.signal(signal.SIGKILL)

    # Claiming

    async def claim(self) -> claims.Claim | None:
        """Decide from the history whether to run it; None when it is done with otherwise."""
        last, self.sequence = await self.last_report()
        held_by_other = last is not None and last.worker != self.around.worker
        is_alive = bool(
            last
            and held_by_other
            and last.state in {State.CLAIMED, State.RUNNING}
            and await self.around.liveness.is_alive(last.worker, last.worker_name)
        )
        decision = claims.decide(
            last,
            self.sequence,
            worker=self.around.worker,
            is_held=self.dispatch_id in self.around.leases,
            is_alive=is_alive,
            max_attempts=self.around.settings.max_attempts,
        )
        return await self.follow(decision)

    async def follow(self, decision: claims.Decision) -> claims.Claim | None:
        match decision:
            case claims.Claim(expected_last, attempt):
                self.sequence, self.attempt = expected_last, attempt
                self.generation = decision.generation
                if await self.try_report(State.CLAIMED):
                    return decision
                await self.delivery.nak(self.pause)  # somebody else was faster
            case claims.Done():
                await self.delivery.ack()
            case claims.Mine():
                self.around.leases.hold(self.dispatch_id, self.delivery)
            case claims.Held(worker):
                log.debug("%s is with %s; handing it back", self.dispatch_id, worker)
                await self.delivery.nak(self.pause)
            case claims.Unanswered():
                await self.delivery.nak(min(RENEWAL_SECONDS, self.pause))
            case claims.Lost(expected_last, report):
                self.sequence, self.attempt = expected_last, report.attempt
                info = f"worker {report.worker_name} lost while it ran process {report.pid}"
                log.warning("%s: %s; next: reporting it failed", self.dispatch_id, info)
                if await self.try_report(State.FAILED, info):
                    await self.delivery.ack()
            case claims.Exhausted(expected_last, attempt):
                self.sequence, self.attempt = expected_last, attempt
                await self.bury(f"{attempt} workers took it and none could start it")
        return None

    # Running

    async def execute(
        self, workload: Workload, claim: claims.Claim, on_exit: Callable[[], None]
    ) -> Verdict:
        expires_at = workload.token_expires_at
        # A token that was just renewed is tried even so: this machine's clock may be wrong.
        if not claim.token and expires_at is not None and expires_at < time.time():
            return Expired("its token expired while it was queued")
        if self.is_revoked:
            return Final(State.DROPPED, "the scheduler took it back")
        if self.is_handed_back:
            return Back(STOPPING, 0.0, counts=False)
        body = workload.body | ({"token": claim.token} if claim.token else {})
        self.run = await self.around.pool.start(self.dispatch_id, body)
        announced = asyncio.create_task(self.announce_start(self.run), name="announce start")
        try:
            report = await self.run.exited()
        finally:
            on_exit()
            if not self.run.task_pid:
                announced.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await announced
        if self.is_handed_back and not report.started:
            return Back(STOPPING, 0.0, counts=False)
        return judge(
            report,
            predecessor=claim.predecessor,
            generation=claim.generation,
            is_revoked=self.is_revoked,
        )

    async def announce_start(self, run: Run) -> None:
        """Report that it runs, once; the final report does without it if the broker is away."""
        await run.started()
        with contextlib.suppress(BrokerError):
            await self.try_report(State.RUNNING)

    # Ending

    async def settle(self, verdict: Verdict) -> None:
        """Report, then ack: a crash between the two repeats the report, which changes nothing."""
        delivery = self.around.leases.delivery
        match verdict:
            case Final(state, info):
                await self.report(state, info)
                await persist(lambda: delivery(self.dispatch_id).ack())
            case Left(info):
                await self.report(State.RELEASED, info)
                await persist(lambda: delivery(self.dispatch_id).ack())
            case Back(info, delay_seconds, counts):
                log.warning("%s goes back to the queue: %s", self.dispatch_id, info)
                self.attempt -= not counts
                await self.report(State.RELEASED, info)
                await persist(lambda: delivery(self.dispatch_id).nak(delay_seconds))
            case Expired(info):
                await self.report(State.EXPIRED, info)
                await persist(lambda: delivery(self.dispatch_id).nak(RENEWAL_SECONDS))

    async def bury(self, reason: str) -> None:
        """Set a message aside that no worker can handle, and tell Airflow that it failed."""
        names = self.around.settings.names
        log.error("%s of queue %s is a dead letter: %s", self.dispatch_id, self.queue, reason)
        await persist(
            lambda: self.around.broker.publish(
                names.dead_letter(self.queue, self.dispatch_id),
                self.delivery.body,
                message_id=f"{self.dispatch_id}.{self.delivery.stream_sequence}",
                headers={"Airflow-Reason": header_text(reason)},
            )
        )
        await self.report(State.FAILED, f"dead letter: {reason}")
        await persist(lambda: self.delivery.term(header_text(reason)))

    # Reports

    async def last_report(self) -> tuple[Report | None, int]:
        """Return the dispatch's last readable report, and the sequence to expect in any case."""
        found = await self.around.broker.last(
            self.around.settings.names.results_stream, self.subject
        )
        if found is None:
            return None, 0
        try:
            return decode(Report, found.body), found.sequence
        except DecodeError as exc:
            log.warning("unreadable report on %s: %s", self.subject, exc)
            return None, found.sequence

    async def try_report(self, state: State, info: str = "") -> bool:
        """Publish a report on the claim's sequence; False when somebody else has reported."""
        report = Report(
            dispatch_id=self.dispatch_id,
            queue=self.queue,
            state=state,
            kind=self.workload.kind if self.workload else "",
            key=self.workload.key if self.workload else [],
            worker=self.around.worker,
            worker_name=self.around.worker_name,
            sender=self.workload.sender if self.workload else "",
            attempt=self.attempt,
            generation=self.generation,
            info=info,
            pid=self.run.task_pid if self.run else 0,
            at=time.time(),
        )
        try:
            self.sequence = await self.around.broker.publish(
                self.subject,
                encode(report),
                expected_last=self.sequence,
                timeout=self.around.settings.publish_timeout_seconds,
            )
        except WrongSequence:
            return False
        return True

    async def report(self, state: State, info: str = "") -> None:
        """Publish a report for as long as it takes, unless another worker's end came first.

        The sequence may be wrong because an answer was lost and the report before is our own, or
        because the stream was wiped; then the last one there tells.
        """

        async def attempt() -> None:
            while not await self.try_report(state, info):
                last, self.sequence = await self.last_report()
                if last is None:
                    continue
                is_ours = last.worker == self.around.worker
                if last.state.is_final and (is_ours or last.state is not State.DROPPED):
                    if not is_ours:
                        log.warning("%s: %s reported first", self.dispatch_id, last.worker_name)
                    return

        await persist(attempt)


async def persist(action: Callable[[], Awaitable[object]]) -> None:
    """Carry out a step on the broker, for as long as it takes it to come back."""
    pause = 0.1
    while True:
        try:
            await action()
        except BrokerUnavailable as exc:
            log.debug("%s; trying again", exc)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)
        else:
            return


def header_text(text: str) -> str:
    """Return text as a NATS header can carry it: one line."""
    return " ".join(text.split())[:500]

"""Carries one delivery from its arrival to its ack: decide, claim, run, report, ack.

Every step may be the last one: the process, the broker or the API server may go away between any
two. That leaves a claim, a message that comes back, or a report twice; the next worker's
`claims.decide` knows what each means.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nats_executor.errors import BrokerError, DecodeError, MessageTooLarge
from nats_executor.fleet.liveness import Holder
from nats_executor.retrying import persist
from nats_executor.wire.descriptions import Phase
from nats_executor.wire.messages import Report, State, Workload, token_expiry
from nats_executor.wire.redaction import without_tokens
from nats_executor.wire.sizes import CUT_LETTER_BYTES, HEADERS_BYTES
from nats_worker.delivery import claims
from nats_worker.delivery.arrival import workload_in
from nats_worker.delivery.observer import Observer
from nats_worker.delivery.record import DispatchRecord
from nats_worker.delivery.verdict import STOPPING, Back, Expired, Final, Left, judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_executor.broker.port import Delivery
    from nats_worker.delivery.leases import Lease
    from nats_worker.delivery.shared import Shared
    from nats_worker.delivery.verdict import Verdict
    from nats_worker.processes.exit_report import ExitReport
    from nats_worker.processes.run import Run

__all__ = ["Errand"]

log = logging.getLogger(__name__)

# An executor answers an expired token within a loop of its scheduler.
RENEWAL_SECONDS = 2.0
REFUSED = (
    "the API server refuses its token: [api_auth] jwt_secret must be the same there and at the "
    "schedulers, and the clocks must agree; next: asking for a new token"
)
# A stream without a leader may have one after this time, and a race is decided.
SOON_SECONDS = 1.0
# Longer than any restart of all schedulers that goes by plan.
ABANDONED_SECONDS = 900.0


@dataclass(slots=True, eq=False)
class Errand:
    """One delivery of one queue's consumer.

    Attributes:
        delivery: the newest one, where it was delivered again while it waited.
        observer: is told of each step.
        record: the reports of its dispatch.
        is_revoked: the scheduler took the workload back.
        is_handed_back: this worker takes nothing more, and the workload has not started.
        defect: why this release cannot run the message, '' if it can.
        said_on: `connected_since` of the connection on which its report that it runs was last seen
            to be there; NaN before.
        on_begun: called once the API server has accepted its start.
    """

    shared: Shared
    queue: str
    delivery: Delivery
    observer: Observer = field(default_factory=Observer)
    record: DispatchRecord = field(init=False)
    is_revoked: bool = False
    is_handed_back: bool = False
    defect: str = ""
    said_on: float = math.nan
    on_begun: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        """Begin a record of what is reported about the dispatch."""
        dispatch_id = self.shared.settings.names.place(self.delivery.subject).dispatch_id
        self.record = DispatchRecord(self.shared, self.queue, dispatch_id, self.observer)
        self.read()

    @property
    def dispatch_id(self) -> str:
        return self.record.dispatch_id

    async def carry(self, on_exit: Callable[[], None]) -> None:
        """See the delivery through; calls `on_exit` once its process is gone, if it had one."""
        leases = self.shared.leases
        if self.dispatch_id in leases:
            # It is here already: this delivery renews the other one.
            leases.replace(self.dispatch_id, self.delivery)
            return
        lease = leases.hold(self.dispatch_id, self.delivery)
        try:
            claim = await self.follow(await self.decide())
            if claim is None or self.record.workload is None:
                return
            verdict = await self.execute(self.record.workload, claim, on_exit)
            await self.settle(verdict, lease)
        finally:
            leases.drop(lease)

    def read(self) -> None:
        """Read the newest delivery's message, or why it cannot be run."""
        try:
            self.record.workload = workload_in(self.delivery.body, self.dispatch_id)
        except DecodeError as exc:
            self.record.workload, self.defect = None, str(exc)
        else:
            self.defect = ""

    @property
    def soon(self) -> float:
        """Seconds after which to try again what lost a race, or met a stream without a leader."""
        return min(SOON_SECONDS, self.pause)

    @property
    def pause(self) -> float:
        """Seconds after which to look again at what another worker holds."""
        return self.shared.settings.ack_wait_seconds / 3

    def hand_back(self) -> None:
        """Give the workload to another worker, unless a process has it.

        A process may have asked the API server for the start. So it is left to hear the answer.
        """
        self.is_handed_back = self.record.run is None

    def revoke(self) -> None:
        """Stop the workload, because the scheduler took it back."""
        self.is_revoked = True
        self.signal(signal.SIGTERM)

    async def kill(self) -> None:
        """End what did not end by itself; a start that hangs, too."""
        self.signal(signal.SIGKILL)
        if self.record.run is not None and not self.record.run.has_asked:
            await self.shared.pool.give_up(self.record.run)

    def signal(self, sig: signal.Signals) -> None:
        """Signal the task's process group, if there is one."""
        if self.record.run is not None:
            self.record.run.signal(sig)

    # Claiming

    async def decide(self) -> claims.Decision:
        """Decide from the dispatch's history, as soon as the broker tells it."""
        return await persist(self.look, unless=lambda: self.is_handed_back)

    async def look(self) -> claims.Decision:
        """Look at the history once; even what cannot be read may be another's by now."""
        last = await self.record.last_report()
        held_by_other = last is not None and last.worker != self.shared.worker
        is_alive = bool(
            last
            and held_by_other
            and last.state in {State.CLAIMED, State.RUNNING}
            and await self.shared.liveness.is_alive(
                Holder(last.worker, last.worker_name, self.queue)
            )
        )
        return claims.decide(
            last,
            self.record.sequence,
            worker=self.shared.worker,
            is_alive=is_alive,
            max_attempts=self.shared.settings.max_attempts,
        )

    async def follow(self, decision: claims.Decision) -> claims.Claim | None:
        """Claim it, or do whatever else is left to do, and return None."""
        match decision:
            case claims.Claim():
                return await self.claim(decision)
            case claims.Done():
                await self.delivery.ack()
            case claims.Held(worker):
                text = "%s is with worker %s; next: offering it again in %g s unless it ends there"
                log.info(text, self.record.name, worker, self.pause)
                await self.delivery.nak(self.pause)
            case claims.Unanswered(report):
                await self.await_renewal(report)
            case claims.Lost(expected_last, report):
                self.record.sequence, self.record.attempt = expected_last, report.attempt
                log.warning("%s: %s; next: reporting it failed", self.record.name, report.loss)
                if await self.record.try_report(State.FAILED, report.loss, of=report):
                    await self.delivery.ack()
                else:
                    await self.yield_to_other()
            case claims.Exhausted(expected_last, attempt, predecessors, info):
                self.record.sequence, self.record.attempt = expected_last, attempt
                self.record.predecessors = predecessors
                by = ", ".join(predecessors)
                what = f"it was claimed {attempt} times and never started, last by {by}"
                await self.bury(f"{what}: {info}" if info else what)
        return None

    async def await_renewal(self, expired: Report) -> None:
        """Leave it to an executor, or take it out of the queue when none has answered for long.

        An executor that knows it finds out that it is gone and sends it again.
        """
        self.record.enter(Phase.RENEWING)
        names = self.shared.settings.names
        info = await self.shared.broker.stream_info(names.results_stream)
        if info is None or info.time - self.record.said_at < ABANDONED_SECONDS:
            await self.delivery.nak(min(RENEWAL_SECONDS, self.pause))
            return
        self.record.attempt, self.record.generation = expired.attempt, expired.generation
        self.record.predecessors = tuple(expired.predecessors)
        if await self.record.try_report(
            State.RELEASED, "no executor has renewed its token", of=expired
        ):
            await self.delivery.ack()

    async def claim(self, claim: claims.Claim) -> claims.Claim | None:
        self.record.sequence, self.record.attempt = claim.expected_last, claim.attempt
        self.record.generation, self.record.predecessors = claim.generation, claim.predecessors
        self.record.token = claim.token
        if self.defect:
            await self.bury(self.defect)
        elif await self.record.try_claim(lambda: self.is_handed_back):
            return claim
        else:
            await self.yield_to_other()
        return None

    async def yield_to_other(self) -> None:
        """Hand it back because another worker has reported first; the next worker looks again."""
        text = "%s: another worker or a scheduler reported first; next: offering it again in %g s"
        log.info(text, self.record.name, self.soon)
        await self.delivery.nak(self.soon)

    # Running

    async def execute(
        self, workload: Workload, claim: claims.Claim, on_exit: Callable[[], None]
    ) -> Verdict:
        expires_at = token_expiry(claim.token or workload.token)
        is_fresh = expires_at is None or expires_at >= time.time()
        # A token that was renewed is tried even so: this machine's clock may be wrong.
        if not claim.token and not is_fresh:
            return Expired("its token expired while it was queued")
        await self.shared.pool.ready()
        if self.is_revoked:
            return Final(State.DROPPED, "the scheduler took it back")
        if self.is_handed_back:
            return Back(STOPPING, 0.0, counts=False)
        body = workload.body | ({"token": claim.token} if claim.token else {})
        start_seconds = self.shared.settings.start_timeout_seconds
        self.record.enter(Phase.STARTING)
        self.record.run = await self.shared.pool.start(
            self.dispatch_id, body, start_seconds=start_seconds
        )
        report = await self.follow_run(self.record.run, start_seconds, on_exit)
        verdict = judge(
            report,
            predecessor=claim.predecessor,
            generation=claim.generation,
            is_token_fresh=is_fresh,
            is_revoked=self.is_revoked,
        )
        if isinstance(verdict, Expired) and is_fresh:
            log.warning("%s: %s (%s)", self.record.name, REFUSED, verdict.info)
        is_ours = isinstance(verdict, Back) and verdict.is_ours
        self.shared.fitness.note_end(report, verdict.info if is_ours else "")
        return verdict

    async def follow_run(
        self, run: Run, start_seconds: float, on_exit: Callable[[], None]
    ) -> ExitReport:
        """Tell of a run as long as it lasts, and return how it ended."""
        announced = asyncio.create_task(self.announce_start(run), name="announce start")
        known = asyncio.create_task(self.stay_known(announced), name="stay known")
        try:
            await self.watch_start(run, start_seconds)
            report = await run.exited()
            self.record.enter(Phase.ENDING)
            self.observer.exited()
            on_exit()
            if run.task_pid:
                await announced
        finally:
            known.cancel()
            announced.cancel()
        return report

    async def watch_start(self, run: Run, seconds: float) -> None:
        """Give a start up that hangs before the API server was asked; then nothing has begun."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await run.asked()
        if await self.shared.pool.give_up(run):
            option = "[nats_executor] start_timeout_seconds"
            text = "%s: its start took longer than %s = %g; next: handing it back"
            log.error(text, self.record.name, option, seconds)
        return None

    async def announce_start(self, run: Run) -> None:
        """Report that it runs, once; the final report does without it if the broker is away."""
        await run.started()
        self.record.enter(Phase.RUNNING)
        self.on_begun()
        self.observer.started()
        self.shared.fitness.note_start()
        with contextlib.suppress(BrokerError):
            # False also where the broker has lost the claim: then `stay_known` says it.
            if await self.record.try_report(State.RUNNING):
                self.said_on = self.shared.broker.connected_since

    async def stay_known(self, announced: asyncio.Task[None]) -> None:
        """Report again that it runs, before the broker drops that for its age or has lost it."""
        await asyncio.wait([announced])
        settings, broker = self.shared.settings, self.shared.broker
        is_hidden = settings.jetstream_domain is not None  # behind a leaf node no reconnect tells
        said_at = time.monotonic()
        while True:
            await asyncio.sleep(self.pause)
            is_old = time.monotonic() - said_at > settings.result_retention_seconds / 2
            is_new = is_hidden or broker.connected_since != self.said_on
            if not broker.is_connected or not (is_new or is_old):
                continue
            with contextlib.suppress(BrokerError):
                expected = self.record.sequence
                if is_old or await self.record.last_report() is None:
                    await self.record.try_report(State.RUNNING)
                    said_at = time.monotonic()
                else:
                    # The end must not take the place of another's report.
                    self.record.sequence = expected
                self.said_on = broker.connected_since

    # Ending

    async def settle(self, verdict: Verdict, lease: Lease) -> None:
        """Report, then ack: a crash between the two repeats the report, which changes nothing."""
        match verdict:
            case Final(state, info):
                if self.record.run is not None and not self.is_revoked:
                    self.shared.fitness.note_start()
                await self.record.report(state, info)
                await persist(lease.ack)
            case Left(info):
                if await self.record.report(State.RELEASED, info):
                    await persist(lease.ack)
                else:  # it was cut off, and another worker has claimed it meanwhile
                    await persist(lambda: lease.nak(self.pause))
            case Back(info, delay_seconds, counts):
                log.warning("%s goes back to the queue: %s", self.record.name, info)
                if not counts:
                    self.record.attempt -= 1
                await self.give_up(State.RELEASED, info, lease, delay_seconds)
            case Expired(info):
                self.record.enter(Phase.RENEWING)
                await self.give_up(State.EXPIRED, info, lease, RENEWAL_SECONDS)

    async def give_up(self, state: State, info: str, lease: Lease, delay_seconds: float) -> None:
        await self.record.report(state, info)
        # From here on any worker may claim it, this one included.
        self.shared.leases.drop(lease)
        await persist(lambda: lease.nak(delay_seconds))

    async def bury(self, reason: str) -> None:
        """Set a message aside that no worker can handle, and tell Airflow that it failed."""
        names = self.shared.settings.names
        log.error("%s of queue %s is a dead letter: %s", self.record.name, self.queue, reason)
        letter = functools.partial(
            self.shared.broker.publish,
            names.dead_letter(self.queue, self.dispatch_id),
            message_id=f"{self.dispatch_id}.{self.delivery.stream_sequence}",
        )
        # Operators may read letters, and none of them needs a token: a retry gets a new one.
        body, text = without_tokens(self.delivery.body), header_text(reason)
        try:
            await persist(lambda: letter(body, headers={"Airflow-Reason": text}))
        except MessageTooLarge:  # with its reason it is over a limit that it just met without
            cut = body[: max(0, min(CUT_LETTER_BYTES, len(body) - HEADERS_BYTES))]
            text = f"{text} (the first {len(cut)} of {len(body)} bytes are kept)"
            await persist(lambda: letter(cut, headers={"Airflow-Reason": text}))
        await self.record.report(State.FAILED, f"dead letter: {reason}")
        await persist(lambda: self.delivery.term(header_text(reason)))
        self.observer.buried()


def header_text(text: str) -> str:
    """Return text as a NATS header can carry it: one line."""
    return " ".join(text.split())[:500]

"""Reads the reports of one dispatch on the result stream, and adds to them by compare-and-set."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nats_executor.errors import BrokerUnavailable, DecodeError, WrongSequence
from nats_executor.retrying import persist
from nats_executor.text import presentable
from nats_executor.wire.coordinates import name_of
from nats_executor.wire.descriptions import Phase
from nats_executor.wire.fitting import fitted_report
from nats_executor.wire.messages import Report, State, decode
from nats_worker.delivery import claims
from nats_worker.delivery.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_executor.wire.messages import Workload
    from nats_worker.delivery.shared import Shared
    from nats_worker.processes.run import Run

__all__ = ["DispatchRecord"]

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class DispatchRecord:
    """Holds what this worker knows of the dispatch of one delivery, and reports it.

    Attributes:
        observer: is told of each claim and report.
        workload: the message, once it was read.
        run: the process, once there is one.
        sequence: of the last report on the subject, as far as known here; the next
            one expects that no other worker and no executor has reported since.
        said_at: when the broker got that report, by its clock; 0 without one.
        attempt: the number of this worker's claim.
        predecessors: the workers that claimed it before.
        generation: number of times that its token was renewed; `token` is the last one.
        hops: of a probe, as its report has them.
        phase: what happens to it, for those who ask.
        since: when that began, in epoch seconds.
    """

    shared: Shared
    queue: str
    dispatch_id: str
    observer: Observer = field(default_factory=Observer)
    workload: Workload | None = field(default=None, repr=False)
    run: Run | None = None
    sequence: int = 0
    said_at: float = 0.0
    attempt: int = 1
    predecessors: tuple[str, ...] = ()
    generation: int = 0
    token: str = field(default="", repr=False)
    hops: list[int] = field(default_factory=list)
    phase: Phase = Phase.LOOKING
    since: float = field(default_factory=time.time)

    def enter(self, phase: Phase) -> None:
        """Begin a phase."""
        self.phase, self.since = phase, time.time()

    @property
    def name(self) -> str:
        """The dispatch in a log line, with Dag, run and task as far as they can be read."""
        return name_of(self.dispatch_id, self.workload)

    @property
    def subject(self) -> str:
        return self.shared.settings.names.result(self.queue, self.dispatch_id)

    async def try_claim(self, unless: Callable[[], bool]) -> bool:
        """Claim it; False when another worker or an executor has reported since.

        Without an answer the claim may be stored or not. It is asked for again, on the same
        expected sequence, until one of the two is known.

        Args:
            unless: gives up the asking once it is true; the failure is raised then.
        """
        expected = self.sequence

        async def claim() -> bool:
            self.sequence = expected
            if await self.try_report(State.CLAIMED):
                return True
            last = await self.last_report()
            if self.sequence == expected:
                raise BrokerUnavailable("the server that was asked has not got the last report yet")
            return claims.is_claimed(last, worker=self.shared.worker, attempt=self.attempt)

        is_ours = await persist(claim, name=f"the claim of {self.name}", unless=unless)
        if is_ours:
            self.enter(Phase.CLAIMED)
            self.observer.claimed(is_first=self.attempt == 1 and not self.generation)
        return is_ours

    async def last_report(self) -> Report | None:
        """Return the last report, None if it is unreadable; what is published next expects it."""
        found = await self.shared.broker.last(
            self.shared.settings.names.results_stream, self.subject
        )
        self.sequence, self.said_at = (found.sequence, found.at) if found else (0, 0.0)
        try:
            return decode(Report, found.body) if found else None
        except DecodeError as exc:
            log.warning("unreadable report on %s: %s", self.subject, exc)
            return None

    async def try_report(
        self, state: State, info: str = "", *, of: Workload | Report | None = None
    ) -> bool:
        """Publish a report on the claim's sequence; False when another has reported since.

        Args:
            of: what to copy kind, key and sender from, if not from the message: a dead worker's
                report, in whose place this one is made.
        """
        about = of or self.workload
        report = Report(
            dispatch_id=self.dispatch_id,
            queue=self.queue,
            state=state,
            kind=about.kind if about else "",
            key=about.key if about else [],
            worker=self.shared.worker,
            worker_name=self.shared.worker_name,
            sender=about.sender if about else "",
            attempt=self.attempt,
            predecessors=list(self.predecessors),
            generation=self.generation,
            token=self.token if state in {State.CLAIMED, State.RELEASED} else "",
            info=presentable(info),
            pid=self.run.task_pid if self.run else 0,
            at=time.time(),
            hops=list(self.hops),
        )
        began = time.monotonic()
        try:
            self.sequence = await self.shared.broker.publish(
                self.subject,
                fitted_report(report),
                expected_last=self.sequence,
                timeout=self.shared.settings.publish_timeout_seconds,
            )
        except WrongSequence:
            return False
        self.observer.confirmed(time.monotonic() - began)
        if of is not None:
            self.observer.reported(state)
        return True

    async def report(self, state: State, info: str = "") -> bool:
        """Publish a report for as long as it takes, unless it is void by now.

        The sequence may be wrong because an answer was lost and the report before is our own, or
        because the stream was wiped; then the last one there tells.

        Returns:
            False if another worker or a scheduler goes on with the dispatch: the message is theirs.
        """

        async def attempt() -> bool:
            while not await self.try_report(state, info):
                last = await self.last_report()
                if last is not None and claims.is_void(state, last, worker=self.shared.worker):
                    is_ours = last.worker == self.shared.worker
                    if not is_ours:
                        log.warning("%s: %s reported first", self.name, last.worker_name)
                    return is_ours or last.state.is_final
            return True

        is_said = await persist(attempt)
        self.observer.reported(state)
        return is_said

"""Finds dead workers, lost messages and queues without a worker, of which no report tells.

Everything here runs in the bridge's thread; the scheduler's thread takes the findings.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from nats_executor.batches import batches
from nats_executor.errors import BrokerError, WrongSequence
from nats_executor.fleet.liveness import Holder, Liveness, is_lost
from nats_executor.fleet.workers import seen_workers, serving
from nats_executor.scheduler.evidence import Evidence
from nats_executor.scheduler.whereabouts import (
    Statement,
    can_conclude,
    denied,
    loss_of,
    run_nowhere,
)
from nats_executor.text import number_of
from nats_executor.wire.fitting import fitted_report
from nats_executor.wire.messages import Report, State
from nats_executor.wire.names import Lane
from nats_executor.wire.queue_names import remedy
from nats_executor.wire.sizes import REPORT_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from nats_executor.broker.port import Broker, Stored
    from nats_executor.fleet.presences import Seen
    from nats_executor.scheduler.ledger import Dispatch
    from nats_executor.scheduler.reports import Mailbox
    from nats_executor.settings import Settings

__all__ = ["Finding", "Inspector"]

log = logging.getLogger(__name__)

# A message that the broker lost while it stayed up is found by samples; a full look at a hundred
# thousand of them would cost more than that is worth.
SAMPLE = 512
SECOND_LOOK_SECONDS = 1.0
# So many dispatches go into one question to a worker, and to so many workers at once.
QUESTION = 500
ASKED_AT_ONCE = 1000


class Finding(NamedTuple):
    """The evidence of one dispatch on which no worker has reported."""

    dispatch: Dispatch
    evidence: Evidence
    loss: str = ""  # the worker that had it is dead, or no worker has it


class Inspector:
    """Looks into the streams on behalf of one executor.

    Attributes:
        findings: the results of looks at single dispatches.
        unserved: lanes with workloads that wait, and without a living worker.
        is_renewed: the connection is a new one, so it is time for a look.
    """

    def __init__(
        self, settings: Settings, sender: str, require: Callable[[], Broker], mailbox: Mailbox
    ) -> None:
        self._settings = settings
        self._names = settings.names
        self._sender = sender
        self._require = require
        self._mailbox = mailbox
        self.findings: deque[Finding] = deque()
        self.unserved: set[Lane] = set()
        self.is_renewed = False
        self._has_looked_at_all = False  # since the connection was made

    def renew(self) -> None:
        """Note that the connection is a new one: anything may be lost since the last look."""
        self._has_looked_at_all = False
        self.is_renewed = True

    async def look_up(self, places: Sequence[tuple[Lane, str]]) -> dict[str, Evidence]:
        """Return what the streams hold of each (lane, dispatch id), by dispatch id."""
        broker = self._require()
        tasks = [self._names.task(lane.queue, id_, lane.band) for lane, id_ in places]
        results = [self._names.result(lane.queue, id_) for lane, id_ in places]
        # Messages first: a workload that ends in between has left its report by then.
        queued = await broker.occupied(self._names.tasks_stream, tasks)
        reports = {m.subject: self._mailbox.read(m) async for m in self._reported(broker, results)}
        return {
            dispatch_id: Evidence(reports.get(result), is_in_stream=task in queued)
            for (_, dispatch_id), task, result in zip(places, tasks, results, strict=True)
        }

    async def _reported(self, broker: Broker, subjects: Sequence[str]) -> AsyncIterator[Stored]:
        """Yield the last reports, of which few are in memory at a time."""
        for window in batches(subjects, SAMPLE):
            stream = self._names.results_stream
            for message in await broker.last_of_each(stream, window, largest=REPORT_BYTES):
                yield message

    def note(self, dispatch: Dispatch, evidence: Evidence) -> None:
        """Pass evidence on as what it is: a report, or a finding where there is no message."""
        if evidence.last_report:
            self._mailbox.reports.append(evidence.last_report)
        if evidence.is_lost:
            self.findings.append(Finding(dispatch, evidence))

    # From time to time

    async def sweep(self, dispatches: Sequence[Dispatch]) -> None:
        """Look at every outstanding workload: its last report, its message, its queue's workers."""
        try:
            broker = self._require()
            has_looked, self._has_looked_at_all = self._has_looked_at_all, True
            subjects = {d.id: self._names.result(d.queue, d.id) for d in dispatches}
            known = set()
            async for message in self._reported(broker, list(subjects.values())):
                await self._mailbox.room()
                self._mailbox.take(message)
                known.add(message.subject)
            # A worker may say it again, or its end was lost on the way.
            silent = [d for d in dispatches if d.is_held and subjects[d.id] not in known]
            self.findings.extend(Finding(d, Evidence(None, is_in_stream=False)) for d in silent)
            waiting = [d for d in dispatches if not d.is_held]
            await self._warn_of_unserved(broker, Counter(d.lane for d in waiting))
            if has_looked and len(waiting) > SAMPLE and await self._may_be_whole(len(waiting)):
                waiting = random.sample(waiting, SAMPLE)
            await self.examine(waiting)
        except BrokerError as exc:
            self._has_looked_at_all = False
            log.debug("sweep: %s", exc)

    async def _may_be_whole(self, waiting: int) -> bool:
        info = await self._require().stream_info(self._names.tasks_stream)
        return info is not None and info.messages >= waiting

    async def examine(self, dispatches: Sequence[Dispatch]) -> None:
        """Look at single dispatches; those that the scheduler has to act on become findings.

        Raises:
            BrokerError: there was no answer.
        """
        evidence = await self.look_up([(d.lane, d.id) for d in dispatches])
        if any(e.is_lost for e in evidence.values()):
            # Twice, because the follower that answered may have been a moment behind.
            await asyncio.sleep(SECOND_LOOK_SECONDS)
            evidence = await self.look_up([(d.lane, d.id) for d in dispatches])
        looked = (Finding(d, evidence[d.id]) for d in dispatches)
        self.findings.extend(f for f in looked if f.evidence.is_lost or f.evidence.is_over)

    async def examine_orphans(self, dispatches: Sequence[Dispatch]) -> None:
        """Look at dispatches that no living executor may own."""
        with contextlib.suppress(BrokerError):  # the next sweep does it
            await self.examine(dispatches)

    async def watch(self, held: Sequence[Dispatch]) -> None:
        """Report tasks of dead workers as failed, so that Airflow retries them at once.

        A worker that gets the message again would do the same; but they may all be busy, or there
        may be none.
        """
        try:
            broker = self._require()
            holders = {d.id: Holder(d.worker, d.worker_name, d.queue) for d in held}
            lost = await Liveness(broker, self._settings).lost(holders.values())
            dead = ((d, holders[d.id]) for d in held if holders[d.id] in lost)
            await asyncio.gather(*(self._bury(broker, d, holder) for d, holder in dead))
        except BrokerError as exc:
            log.debug("watch: %s", exc)

    async def _bury(self, broker: Broker, dispatch: Dispatch, dead: Holder) -> None:
        """Settle what a dead worker had, unless another one has it by now.

        The scheduler's thread changes a dispatch with each report, so only `dead` is what was
        asked about.
        """
        subject = self._names.result(dispatch.queue, dispatch.id)
        found = await broker.last(self._names.results_stream, subject)
        last = self._mailbox.read(found) if found else self._last_known(dispatch)
        if last is None or not last.state.is_held or last.worker != dead.worker:
            return
        task = self._names.task(dispatch.queue, dispatch.id, dispatch.band)
        if last.state is State.CLAIMED:
            # It may not have started: a worker that gets the message again asks Airflow. Without a
            # message no worker does.
            if not await broker.last(self._names.tasks_stream, task):
                evidence = Evidence(last if found else None, is_in_stream=False)
                self.findings.append(Finding(dispatch, evidence, last.loss))
            return
        await self._fail(dispatch, last, found.sequence if found else 0, last.loss)

    async def bury(self, finding: Finding) -> None:
        """Report a dispatch without a worker as failed, unless a report came since it was found."""
        dispatch, evidence, loss = finding
        try:
            broker = self._require()
            subject = self._names.result(dispatch.queue, dispatch.id)
            found = await broker.last(self._names.results_stream, subject)
            last = self._mailbox.read(found) if found else None
            if last == evidence.last_report:
                last = last or self._last_known(dispatch)
                await self._fail(dispatch, last, found.sequence if found else 0, loss)
        except BrokerError as exc:  # the next look finds it again
            log.debug("bury: %s", exc)

    async def _fail(self, dispatch: Dispatch, last: Report, sequence: int, loss: str) -> None:
        """Report a failure in the place of a worker, if its report is still the last one."""
        broker = self._require()
        log.warning("%s: %s; next: reporting it failed", dispatch.id, loss)
        verdict = dataclasses.replace(
            last, state=State.FAILED, info=loss, worker=self._sender,
            worker_name=self._sender, at=time.time(),
        )  # fmt: skip
        subject = self._names.result(dispatch.queue, dispatch.id)
        with contextlib.suppress(WrongSequence):  # another report came first
            await broker.publish(subject, fitted_report(verdict), expected_last=sequence)
            task = self._names.task(dispatch.queue, dispatch.id, dispatch.band)
            await broker.remove(self._names.tasks_stream, task)

    def _last_known(self, dispatch: Dispatch) -> Report:
        """Return what a worker had reported before the broker lost it."""
        return Report(
            dispatch_id=dispatch.id,
            queue=dispatch.queue,
            state=dispatch.state or State.CLAIMED,
            kind=dispatch.kind,
            key=[],
            worker=dispatch.worker,
            worker_name=dispatch.worker_name,
        )

    # Dispatches without a trace

    async def search(self, dispatches: Sequence[Dispatch]) -> None:
        """Find out which of these no worker has; neither a message nor a report tells of them.

        Those that have left a trace by now become findings as well.
        """
        settings = self._settings
        try:
            broker = self._require()
            info = await broker.stream_info(self._names.workers_stream)
            if info and can_conclude(
                bucket_age=info.time - info.created,
                connected_for=time.monotonic() - broker.connected_since,
                lost_after_seconds=settings.worker_lost_seconds,
                heartbeat_seconds=settings.heartbeat_seconds,
            ):
                for batch in batches(dispatches, QUESTION):
                    await self._search(broker, batch)
        except BrokerError as exc:
            log.debug("search: %s", exc)

    async def _search(self, broker: Broker, dispatches: Sequence[Dispatch]) -> None:
        if silent := [dispatch for dispatch, *_ in await self._without_trace(dispatches)]:
            question = " ".join(dispatch.id for dispatch in silent).encode()
            queues = {dispatch.queue for dispatch in silent}
            workers = await seen_workers(broker, self._settings, queues)
            statements: list[Statement] = []
            for some in batches(workers, ASKED_AT_ONCE):
                statements += await asyncio.gather(*(self._ask(broker, w, question) for w in some))
            nowhere = run_nowhere(silent, statements)
            # After the question, because a worker reports an end before it denies the dispatch.
            for finding in await self._without_trace(nowhere):
                self.findings.append(finding._replace(loss=loss_of(finding.dispatch)))

    async def _without_trace(self, dispatches: Sequence[Dispatch]) -> list[Finding]:
        """Return those that neither a message nor a report tells of, and pass the others on."""
        evidence = await self.look_up([(d.lane, d.id) for d in dispatches])
        looked = [Finding(d, evidence[d.id]) for d in dispatches]
        traced = [finding for finding in looked if not finding.evidence.is_lost]
        self.findings.extend(traced)
        self._mailbox.reports.extend(r for f in traced if (r := f.evidence.last_report))
        return [finding for finding in looked if finding.evidence.is_lost]

    async def _ask(self, broker: Broker, seen: Seen, question: bytes) -> Statement:
        worker = seen.presence.worker
        answer, reply = await Liveness(broker, self._settings).ask(worker, question)
        is_dead = is_lost(
            answer=answer,
            record_age=seen.age,
            connected_for=time.monotonic() - broker.connected_since,
            lost_after_seconds=self._settings.worker_lost_seconds,
        )
        # Of its answer nothing is kept but what was asked; there may be any number of workers.
        lacks = denied(reply, worker).intersection(question.decode().split())
        return Statement(worker, is_dead, lacks, seen.keys)

    async def _warn_of_unserved(self, broker: Broker, waiting: Counter[Lane]) -> None:
        """Say once for each queue that its workloads wait for a worker that is not there.

        A paused queue may have none: its workloads wait for the operator who paused it.
        """
        queues = {lane.queue for lane in waiting}
        workers = await seen_workers(broker, self._settings, queues) if waiting else []
        unserved = {lane for lane in waiting if not serving(workers, lane, self._settings)}
        if unserved:
            infos = await broker.consumer_infos(self._names.tasks_stream)
            unserved -= {Lane(info.queue, info.band) for info in infos if info.paused_until}
        for lane in unserved - self.unserved:
            log.warning(
                "no worker serves %s, %s waiting; remedy: %s",
                lane,
                number_of(waiting[lane], "workload"),
                remedy(lane, has_workers=bool(serving(workers, Lane(lane.queue), self._settings))),
            )
        self.unserved = unserved

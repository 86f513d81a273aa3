"""Sends workloads, takes them back and collects reports: the executor's asyncio side.

Everything here runs in the bridge's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from nats_executor.batches import batches
from nats_executor.broker.connection import connect
from nats_executor.broker.diagnosis import is_doubtful
from nats_executor.broker.port import Outgoing
from nats_executor.errors import (
    BrokerError,
    BrokerUnavailable,
    NoResponders,
    SubjectOccupied,
    WrongSequence,
)
from nats_executor.pacing import Once
from nats_executor.scheduler.chronicle import Chronicle
from nats_executor.scheduler.inspector import Inspector
from nats_executor.scheduler.probing import Probes
from nats_executor.scheduler.reports import Mailbox
from nats_executor.scheduler.streams import RETRY_SECONDS, Streams
from nats_executor.scheduler.telemetry import Telemetry
from nats_executor.scheduler.withdrawals import Withdrawals
from nats_executor.wire.fitting import fitted_report
from nats_executor.wire.messages import State
from nats_executor.wire.names import Verb
from nats_executor.wire.sizes import REPORT_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from nats_executor.broker.port import Broker
    from nats_executor.scheduler.answers import Answers
    from nats_executor.scheduler.ledger import Dispatch
    from nats_executor.settings import Settings
    from nats_executor.wire.names import Lane
    from nats_executor.wire.scheduler_answers import ProbeOrder, ProbeResult

__all__ = ["Dispatcher", "Envelope"]

log = logging.getLogger(__name__)

# Publishes under way at once: enough to fill the pipe, few enough to stop early when it breaks.
WINDOW = 512
# Of the time that the scheduler waits: the rest is for the way back.
SHARE = 0.9


class Envelope(NamedTuple):
    """An encoded workload and where it goes."""

    lane: Lane
    dispatch_id: str
    message_id: str | None
    body: bytes


class Dispatcher:
    """One connection of an executor; `run` is its life.

    Attributes:
        mailbox: the reports that have arrived.
        inspector: what is found on this connection.
        telemetry: what of all that becomes a metric.
        chronicle: what of it is shown as the last hour of queues.
        withdrawals: what is taken out of queues.
    """

    def __init__(self, settings: Settings, sender: str, answers: Answers | None = None) -> None:
        self._settings = settings
        self._sender = sender
        self._answers = answers
        self._names = settings.names
        self._broker: Broker | None = None
        self._pending: dict[str, Callable[[], Awaitable[None]]] = {}
        self._is_behind = False  # on `_pending`, and it was said
        self.mailbox = Mailbox(settings.names)
        self.inspector = Inspector(settings, sender, self.require_broker, self.mailbox)
        self.telemetry = Telemetry(settings)
        self.chronicle = Chronicle(settings)
        self.withdrawals = Withdrawals(settings, self.inspector, self.require_broker)
        self._streams = Streams(settings, self.inspector.renew)

    async def run(self) -> None:
        """Connect, keep what is needed there, and read results until cancelled."""
        async with connect(self._settings, role="scheduler") as broker:
            self._broker = broker
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._streams.keep(broker), name="streams")
                    group.create_task(self._follow(broker), name="results")
                    group.create_task(self._carry_out_pending(), name="pending")
                    telemetry = self.telemetry.watch_forever(self.require_broker)
                    group.create_task(telemetry, name="telemetry")
                    chronicle = self.chronicle.write_forever(self.require_broker)
                    group.create_task(chronicle, name="chronicle")
                    if self._answers is not None:
                        answering = self._answers.serve(
                            broker, self._names, lambda: self.trouble, self.probe
                        )
                        group.create_task(answering, name="answers")
            finally:
                self._broker = None

    @property
    def trouble(self) -> BrokerError | None:
        """Why something cannot be sent or read at present, None when all is well."""
        if self._broker is None:
            return BrokerUnavailable("not connected yet")
        return self._streams.trouble

    @property
    def recoveries(self) -> int:
        """How often workloads could be sent again after they could not, for any thread."""
        return self._streams.recoveries

    async def prepared(self) -> None:
        """Wait until the broker was reached for the first time and its streams are there."""
        await self._streams.prepared()

    # Workloads

    async def publish(self, envelopes: Sequence[Envelope]) -> dict[str, BrokerError | None]:
        """Send workloads in their order, as many as there is time for.

        Returns:
            For each dispatch id None when the broker has it, or why not. An id that is missing was
            not tried, because the broker went away before or the time was over.
        """
        is_answered = False
        try:
            outcomes = await self._publish(envelopes)
            is_answered = not any(map(is_doubtful, outcomes.values()))
        finally:
            if not is_answered:  # also when the time was over, which cancels this
                self._streams.doubt()
        return outcomes

    async def _publish(self, envelopes: Sequence[Envelope]) -> dict[str, BrokerError | None]:
        broker = self.require_broker(self._names.tasks_stream)
        if self._streams.read_after is None:
            # The stream of reports has not answered yet: it is read from its start once it does.
            self._streams.read_after = 0
        refused = await self._open_queues(broker, {envelope.lane.queue for envelope in envelopes})
        outcomes: dict[str, BrokerError | None] = {
            e.dispatch_id: refused[e.lane.queue] for e in envelopes if e.lane.queue in refused
        }
        # No window begins in the second half of the time, and each one ends within a half. So the
        # confirmed windows count; otherwise a large batch would start from its beginning each time.
        limit = self._settings.publish_timeout_seconds * SHARE / 2
        last_start = time.monotonic() + limit
        for window in batches([e for e in envelopes if e.lane.queue not in refused], WINDOW):
            results = await broker.publish_all([self._outgoing(e) for e in window], timeout=limit)
            for envelope, result in zip(window, results, strict=True):
                # It is there already: an earlier attempt's answer was lost.
                is_there = isinstance(result, SubjectOccupied)
                outcomes[envelope.dispatch_id] = None if is_there else result
            is_away = any(isinstance(result, BrokerUnavailable) for result in results)
            if is_away or time.monotonic() > last_start:
                break
        return outcomes

    async def _open_queues(self, broker: Broker, queues: set[str]) -> dict[str, BrokerError]:
        """Create the consumers of new queues; return why it failed for those where it did."""
        refused: dict[str, BrokerError] = {}
        for queue in queues - self._streams.queues:
            try:
                await self._streams.open_queue(broker, queue)
            except BrokerError as exc:
                refused[queue] = exc
        return refused

    def _outgoing(self, envelope: Envelope) -> Outgoing:
        lane, dispatch_id = envelope.lane, envelope.dispatch_id
        subject = self._names.task(lane.queue, dispatch_id, lane.band)
        return Outgoing(subject, envelope.body, envelope.message_id)

    async def probe(self, order: ProbeOrder) -> ProbeResult:
        """Send a probe through a queue, and return how long each of its steps took."""
        probes = Probes(self._settings, self._sender, self.require_broker, self.mailbox)
        return await probes.send(order, self._publish_probe)

    async def _publish_probe(self, lane: Lane, dispatch_id: str, body: bytes) -> None:
        outcomes = await self.publish([Envelope(lane, dispatch_id, dispatch_id, body)])
        if failure := outcomes.get(dispatch_id, BrokerUnavailable("not tried")):
            raise failure

    async def renew(self, dispatch: Dispatch, new_token: str) -> None:
        """Answer a report of an expired token with a new one, on the report's own subject.

        So the message keeps its place in the queue, and no moment exists at which it is nowhere.
        """
        action = functools.partial(self._renew, dispatch, new_token)
        await self._carry_out(f"renew the token of {dispatch.id}", action)

    async def _renew(self, dispatch: Dispatch, new_token: str) -> None:
        broker = self.require_broker(self._names.results_stream)
        subject = self._names.result(dispatch.queue, dispatch.id)
        found = await broker.last(self._names.results_stream, subject)
        report = self.mailbox.read(found) if found else None
        if found is None or report is None or report.state is not State.EXPIRED:
            return
        answer = dataclasses.replace(
            report, state=State.RENEWED, generation=report.generation + 1, token=new_token
        )
        with contextlib.suppress(WrongSequence):  # another scheduler has answered
            await broker.publish(subject, fitted_report(answer), expected_last=found.sequence)

    async def revoke(self, lane: Lane, dispatch_id: str, worker: str) -> None:
        """Take a workload back: out of the queue, or off the worker that has it.

        Goes on trying after this call when the broker is away: a message left behind would run
        beside the next dispatch of the same task.
        """
        action = functools.partial(self._revoke, lane, dispatch_id, worker)
        await self._carry_out(f"revoke {dispatch_id}", action)

    async def _revoke(self, lane: Lane, dispatch_id: str, worker: str) -> None:
        broker = self.require_broker(self._names.tasks_stream)
        subject = self._names.task(lane.queue, dispatch_id, lane.band)
        await broker.remove(self._names.tasks_stream, subject)
        if not worker:
            found = await broker.last(
                self._names.results_stream, self._names.result(lane.queue, dispatch_id)
            )
            report = self.mailbox.read(found) if found else None
            worker = report.worker if report and not report.state.is_final else ""
        if worker:
            with contextlib.suppress(NoResponders):  # a worker that is gone runs nothing
                subject = self._names.control(worker, Verb.STOP)
                await broker.request(subject, dispatch_id.encode(), timeout=RETRY_SECONDS)

    async def _carry_out(self, name: str, action: Callable[[], Awaitable[None]]) -> None:
        """Do it now, or as soon as the broker is there."""
        self._pending[name] = action
        try:
            await action()
        except BrokerError as exc:
            is_connected = self._broker is not None and self._broker.is_connected
            if is_connected and not self.trouble and not isinstance(exc, BrokerUnavailable):
                log.error("cannot %s: %s; next: leaving it undone", name, exc)  # noqa: TRY400 - the text says it all
                self._pending.pop(name, None)
                return
            if not self._is_behind:
                log.warning("cannot %s: %s; next: trying again until it is done", name, exc)
            self._is_behind = True
        except Exception:
            log.exception("cannot %s; next: leaving it undone", name)
            self._pending.pop(name, None)
        else:
            self._pending.pop(name, None)

    async def _carry_out_pending(self) -> None:
        """Repeat what failed while the broker was away."""
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            await asyncio.gather(*(self._carry_out(*item) for item in self._pending.items()))
            self._is_behind = bool(self._pending)

    # Reports

    async def _follow(self, broker: Broker) -> None:
        """Collect reports from now on; those of before are looked up at adoption, by their ids."""
        await self._streams.followable()
        after = self._streams.read_after or 0
        said = Once()
        while True:
            try:
                stream = self._names.results_stream
                async for message in broker.follow(stream, after=after, largest=REPORT_BYTES):
                    after = message.sequence
                    await self.mailbox.room()
                    self.mailbox.take(message)
            except BrokerError as exc:  # denied: the rest goes on, and the sweep finds reports
                if said.is_new(str(exc)):
                    log.error("cannot follow results: %s; next: trying again", exc)  # noqa: TRY400 - the text says it all
            await asyncio.sleep(RETRY_SECONDS)

    def require_broker(self, *streams: str) -> Broker:
        """Return the connection; raises why these streams, or those of all work, cannot be used."""
        names = self._names
        needed = streams or (names.tasks_stream, names.results_stream, names.workers_stream)
        if self._broker is None:
            raise BrokerUnavailable("not connected yet")
        if trouble := self._streams.trouble_with(*needed):
            raise type(trouble)(str(trouble))
        return self._broker

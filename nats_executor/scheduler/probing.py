"""Sends a probe through a queue for `airflow nats ping`, and times its steps.

A probe is a workload without a body: no Dag, no row of the database and no token is in it. The
ledger does not know it, so neither sweeps nor metrics of tasks see it. Everything here runs in the
bridge's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from nats_executor.fleet.workers import seen_workers, serving
from nats_executor.scheduler.probe_silence import UnendedProbe, in_probe_words, nothing_known
from nats_executor.wire.fitting import fitted_report
from nats_executor.wire.messages import Kind, Report, State, Workload, encode
from nats_executor.wire.names import Lane, probe_id
from nats_executor.wire.queue_names import require_servable
from nats_executor.wire.scheduler_answers import ProbeResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats_executor.broker.port import Broker
    from nats_executor.scheduler.reports import Mailbox
    from nats_executor.settings import Settings
    from nats_executor.wire.scheduler_answers import ProbeOrder

    Publish = Callable[[Lane, str, bytes], Awaitable[None]]

__all__ = ["Probes"]

PROBE_VERSION = version("airflow-nats-executor")
# Of a report: claim, start, run; each in microseconds, and no longer than a day.
HOPS, MICRO, LONGEST_HOP = 3, 1e6, 86_400_000_000
# The server lets an executor answer for a minute.
LONGEST_PROBE_SECONDS = 45.0


class Heard:
    """The reports of one probe, with the time of each by this machine's clock."""

    def __init__(self) -> None:
        self.claimed_at: float | None = None
        self.last: Report | None = None
        self.ended = asyncio.Event()
        self.ended_at = 0.0

    def hear(self, report: Report) -> None:
        """Note a report; the opening one, which is this executor's own, tells nothing."""
        if report.state is State.DROPPED or self.ended.is_set():
            return
        self.last = report
        if report.state is State.CLAIMED:
            self.claimed_at = self.claimed_at or time.monotonic()
        elif report.state.is_final:
            self.ended_at = time.monotonic()
            self.ended.set()


class Probes:
    """Sends one probe on behalf of an executor."""

    def __init__(
        self, settings: Settings, sender: str, require: Callable[..., Broker], mailbox: Mailbox
    ) -> None:
        self._settings = settings
        self._names = settings.names
        self._sender = sender
        self._require = require
        self._mailbox = mailbox

    async def send(self, order: ProbeOrder, publish: Publish) -> ProbeResult:
        """Send a probe, and return what became of it.

        Raises:
            BrokerError: NATS does not answer, or refuses.
        """
        began = time.monotonic()
        if refusal := await self._refusal(order.queue):
            return ProbeResult(refusal=refusal)
        # The most urgent lane, as callbacks have it: a backlog of tasks is not in front of it.
        lane, id_ = self._settings.lane(order.queue, priority=None), probe_id(uuid.uuid4().hex)
        heard = Heard()
        self._mailbox.listeners[id_] = heard.hear
        seconds = max(0.0, min(order.seconds, LONGEST_PROBE_SECONDS))
        try:
            await self._open(lane, id_)
            sent = time.monotonic()
            await publish(lane, id_, encode(self._workload(lane, id_)))
            stored = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await heard.ended.wait()
            if heard.ended.is_set():
                return result_of(heard, began=began, sent=sent, stored=stored)
            return ProbeResult(refusal=await self._why_silent(lane, id_, heard, seconds))
        finally:
            del self._mailbox.listeners[id_]

    async def _refusal(self, queue: str) -> str:
        """Say why a probe cannot be sent at all, '' if it can: a typing error makes no queue."""
        try:
            require_servable(queue)
        except ValueError as exc:
            return str(exc)
        broker = self._require()
        infos = await broker.consumer_infos(self._names.tasks_stream)
        if any(info.queue == queue for info in infos):
            return ""
        workers = await seen_workers(broker, self._settings, [queue])
        if serving(workers, Lane(queue), self._settings):
            return ""
        known = sorted({info.queue for info in infos})
        return nothing_known(queue, known)

    async def _open(self, lane: Lane, id_: str) -> None:
        """Report the probe dropped, before it is sent.

        A worker of the release before knows no probes, and would make a dead letter of it. Such a
        worker acks what is over by its last report. A worker of this release expects that report.
        """
        opening = Report(
            dispatch_id=id_,
            queue=lane.queue,
            state=State.DROPPED,
            kind=Kind.PROBE,
            key=[],
            worker=self._sender,
            worker_name=self._sender,
            sender=self._sender,
            at=time.time(),
        )
        broker = self._require()
        subject = self._names.result(lane.queue, id_)
        await broker.publish(subject, fitted_report(opening), expected_last=0)

    def _workload(self, lane: Lane, id_: str) -> Workload:
        return Workload(
            dispatch_id=id_,
            queue=lane.queue,
            kind=Kind.PROBE,
            body={},
            key=[],
            sender=self._sender,
            sent_at=time.time(),
        )

    async def _why_silent(self, lane: Lane, id_: str, heard: Heard, seconds: float) -> str:
        """Take the probe back, and say why no worker has ended it."""
        broker, names = self._require(), self._names
        subject = names.task(lane.queue, id_, lane.band)
        was_there = await broker.remove(names.tasks_stream, subject)
        infos = await broker.consumer_infos(names.tasks_stream)
        workers = await seen_workers(broker, self._settings, [lane.queue])
        silence = UnendedProbe(
            lane=lane,
            seconds=seconds,
            claimant=heard.last.worker_name if heard.last else "",
            was_there=was_there,
            paused_until=max(
                (i.paused_until for i in infos if (i.queue, i.band) == (lane.queue, lane.band)),
                default=0.0,
            ),
            workers=[s for s in workers if lane.queue in s.presence.queues],
            version=PROBE_VERSION,
        )
        return in_probe_words(silence, self._settings)


def result_of(heard: Heard, *, began: float, sent: float, stored: float) -> ProbeResult:
    """Return the times of a probe that has ended."""
    now, last = time.monotonic(), heard.last
    worker = last.worker_name if last else ""
    if last is None or last.state is not State.SUCCESS:
        why = last.info if last else "no report"
        return ProbeResult(worker=worker, refusal=f"worker {worker} could not run it: {why}")
    hops = [hop for hop in last.hops if type(hop) is int and 0 <= hop <= LONGEST_HOP]
    start, run = hops[1:3] if len(hops) == HOPS else (None, None)
    times = {"publish": stored - sent, "whole": now - began}
    if start is not None and run is not None:
        times |= {"start": start / MICRO, "run": run / MICRO}
        if heard.claimed_at is not None:
            times["wait"] = heard.claimed_at - stored
            times["report"] = heard.ended_at - heard.claimed_at - times["start"] - times["run"]
    # Two clocks, and a claim may be heard before the answer to what was sent.
    milliseconds: dict[str, Any] = {n: 1000 * max(0.0, t) for n, t in times.items()}
    return ProbeResult(worker=worker, **milliseconds)

"""Carries the delivery of a probe, which shows how long each step to a process takes.

A probe is claimed like a workload, so that every step is real. It is worth one attempt: where
anything came between, nothing waits for its end any more, so it is acked and forgotten. It never
becomes a dead letter.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from typing import TYPE_CHECKING

from nats_executor.retrying import persist
from nats_executor.wire.descriptions import Phase
from nats_executor.wire.messages import State
from nats_worker.delivery.errand import Errand

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_worker.delivery.leases import Lease
    from nats_worker.processes.run import Run

__all__ = ["ProbeErrand"]

log = logging.getLogger(__name__)

# A fork server that takes longer is about to be given up anyway.
PROCESS_SECONDS = 30.0
# A follower that was asked may not have the opening report yet; another look will find it.
LOOKS = 3


class ProbeErrand(Errand):
    """One delivery of a probe."""

    async def carry(self, on_exit: Callable[[], None]) -> None:
        """See the probe through; calls `on_exit` once its process is gone."""
        began = time.monotonic()
        leases = self.shared.leases
        if self.dispatch_id in leases:
            leases.replace(self.dispatch_id, self.delivery)
            return
        lease = leases.hold(self.dispatch_id, self.delivery)
        try:
            await self.probe(began, lease, on_exit)
        finally:
            leases.drop(lease)

    async def probe(self, began: float, lease: Lease, on_exit: Callable[[], None]) -> None:
        if self.defect:
            log.warning("probe %s: %s; next: dropping it", self.dispatch_id, self.defect)
            await persist(lease.ack)
            return
        last = await self.record.last_report()
        if last is None and self.delivery.num_delivered < LOOKS:
            await lease.nak(self.soon)
            return
        # The executor opens a probe with a final report. So a worker of the release before, which
        # knows no probes, takes it for one that is over.
        is_open = last is not None and last.state is State.DROPPED
        if is_open and await self.record.try_claim(lambda: self.is_handed_back):
            claimed = time.monotonic()
            self.record.hops = [microseconds(claimed - began)]
            await self.run_process(claimed, on_exit)
        await persist(lease.ack)

    async def run_process(self, claimed: float, on_exit: Callable[[], None]) -> None:
        """Start a process that does nothing, and report how long that took."""
        self.record.enter(Phase.STARTING)
        run = self.record.run = await self.shared.pool.start_probe(self.dispatch_id)
        try:
            async with asyncio.timeout(PROCESS_SECONDS):
                info = await self.follow_process(run, claimed)
        except TimeoutError:
            info = f"its process has not ended within {PROCESS_SECONDS:g} s"
            run.signal(signal.SIGKILL)
        on_exit()
        await self.record.report(State.FAILED if info else State.SUCCESS, info)

    async def follow_process(self, run: Run, claimed: float) -> str:
        """Note when the process started and ended; returns why it has not, '' if it has."""
        exited = asyncio.create_task(run.exited(), name="probe's end")
        started = asyncio.create_task(run.started(), name="probe's start")
        try:
            await asyncio.wait({exited, started}, return_when=asyncio.FIRST_COMPLETED)
            began = time.monotonic()
            self.record.enter(Phase.RUNNING)
            report = await exited
        finally:
            exited.cancel()
            started.cancel()
        if not report.started:
            return report.info or f"no process: {report.ending}"
        ended = time.monotonic()
        self.record.hops += [microseconds(began - claimed), microseconds(ended - began)]
        return ""


def microseconds(seconds: float) -> int:
    return max(0, round(1e6 * seconds))

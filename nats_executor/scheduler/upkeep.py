"""Repairs from time to time what messages alone leave open, in the scheduler's thread.

It asks the inspector to look, without waiting, and acts on what was found: sends again what the
broker lost, tells again what Airflow missed, and ends what a dead scheduler left or no worker has.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from nats_executor.scheduler import compat, database
from nats_executor.scheduler.confirmations import Confirmations
from nats_executor.text import number_of
from nats_executor.wire.messages import Kind, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats_executor.broker.bridge import Bridge
    from nats_executor.scheduler.events import Events
    from nats_executor.scheduler.inspector import Finding, Inspector
    from nats_executor.scheduler.ledger import Dispatch, Ended
    from nats_executor.settings import Settings
    from nats_executor.wire.messages import Report

__all__ = ["Upkeep"]

log = logging.getLogger(__name__)


class Upkeep:
    """The executor's periodic duties; `tick` is called in every loop of the scheduler."""

    def __init__(
        self,
        owner: database.Owner,
        mint: compat.Mint,
        events: Events,
        settings: Settings,
        bridge: Bridge,
        inspector: Inspector,
    ) -> None:
        self._owner = owner
        self._mint = mint
        self._events = events
        self._settings = settings
        self._bridge = bridge
        self._inspector = inspector
        self._sweep_seconds = settings.sweep_seconds
        self._watch_seconds = settings.heartbeat_seconds
        self._next_sweep = 0.0
        self._next_watch = 0.0
        self._confirmations = Confirmations()
        # Dispatches that run by the database, or ran by their last report, and have left no trace
        # in NATS.
        self._silent: dict[str, Dispatch] = {}

    def tick(self) -> None:
        """Do what is due; costs next to nothing when nothing is."""
        now = time.monotonic()
        if self._inspector.findings:
            self._act()
        if now >= self._next_watch and (self._events.ledger.held or self._silent):
            self._next_watch = now + self._watch_seconds
            self._watch()
        if now >= self._next_sweep or self._inspector.is_renewed:
            self._next_sweep = now + self._sweep_seconds
            self._sweep()
        if len(self._confirmations):
            self._confirm(now)

    # Looking

    def _watch(self) -> None:
        ledger = self._events.ledger
        if held := ledger.held:
            self._bridge.post(self._inspector.watch(held))
        ended = [d for d in self._silent.values() if d.kind == Kind.TASK and d not in ledger]
        for dispatch in ended:
            del self._silent[dispatch.id]
        if self._silent:
            self._bridge.post(self._inspector.search(list(self._silent.values())))

    def _sweep(self) -> None:
        ledger = self._events.ledger
        if len(ledger) or self._inspector.is_renewed:
            self._inspector.is_renewed = False
            self._bridge.post(self._inspector.sweep(list(ledger)))
        orphans = [
            d
            for d in database.unfinished(self._owner, self._settings) or ()
            if not ledger.knows(d.id)
        ]
        if orphans:
            self._bridge.post(self._inspector.examine_orphans(orphans))

    # Acting

    def _act(self) -> None:
        """Follow up the findings; a report of a workload of ours has come by its own way."""
        findings, ledger = self._inspector.findings, self._events.ledger
        lost: dict[str, Finding] = {}
        while findings:
            finding = findings.popleft()
            dispatch, evidence, loss = finding
            is_ours = dispatch in ledger
            if not evidence.is_lost:
                self._silent.pop(dispatch.id, None)
            if evidence.is_over and not is_ours and dispatch.kind == Kind.CALLBACK:
                self._end_callback(dispatch, evidence.last_report)
            elif evidence.is_lost and is_ours and dispatch.is_held and not loss:
                self._silent[dispatch.id] = dispatch  # it may run, and its worker say so again
            elif (evidence.is_lost or loss) and (is_ours or dispatch.kind != Kind.TASK):
                lost[dispatch.id] = finding
        if lost:
            self._send_again(lost)

    def _end_callback(self, dispatch: Dispatch, report: Report | None) -> None:
        """Tell of the end of a callback whose row does not know it.

        Its scheduler did not live to hear of it, or it was dropped: Airflow times none out, so it
        would stay as it is for ever.
        """
        if report is None:
            return
        if report.state is State.DROPPED and not database.standing([dispatch], self._owner.job_id):
            return  # it has an end by now, which is not to be written over
        succeeded = report.state is State.SUCCESS
        self._events.end_callback(dispatch.key, succeeded=succeeded, info=report.info)

    def _send_again(self, lost: Mapping[str, Finding]) -> None:
        """Queue workloads again that NATS has lost; the next heartbeat sends them."""
        job_id = self._owner.job_id
        dispatches = [finding.dispatch for finding in lost.values()]
        states = database.standing(dispatches, job_id)
        workloads = database.workloads_again(dispatches, job_id, self._mint)
        if states is None or workloads is None:
            return  # the next sweep finds them again
        for workload in workloads:
            self._events.send_again(workload)
        if workloads:
            number = number_of(len(workloads), "workload")
            log.warning("NATS has no more of %s; next: sending again", number)
        for finding in lost.values():
            self._judge(finding, states.get(finding.dispatch.id))

    def _judge(self, finding: Finding, state: str | None) -> None:
        """End what is not queued and has no worker; have the workers asked where that is open."""
        dispatch, _, loss = finding
        if state in {None, database.WAITING}:
            self._silent.pop(dispatch.id, None)
            # None: queued again, or ended without us.
            if state is None and dispatch in self._events.ledger:
                self._events.forget(dispatch.key)
        else:
            self._silent[dispatch.id] = dispatch  # until its end is told
            if loss:
                self._bridge.post(self._inspector.bury(finding))

    # Making sure

    def expect(self, ended: Ended) -> None:
        """Look after an event that alone tells Airflow what became of a task."""
        if self._owner.job_id is not None:
            self._confirmations.expect(ended, time.monotonic())

    def _confirm(self, now: float) -> None:
        """Tell again what has had no effect on its row."""
        due = self._confirmations.due(now)
        ends = [confirmation.ended for confirmation in due]
        states = database.standing([e.dispatch for e in ends], self._owner.job_id) if due else {}
        if states is None:
            return
        for confirmation in due:
            ended = confirmation.ended
            is_here = self._events.is_here(ended.dispatch.key)
            if ended.dispatch.id in states and not is_here:
                name = ended.dispatch.name
                log.warning("%s: the scheduler missed its end; next: telling it again", name)
                self._events.tell(ended)
            else:
                self._confirmations.settle(confirmation)

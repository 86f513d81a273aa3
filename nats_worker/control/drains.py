"""Keeps a worker from new workloads for as long as an operator says, across its restarts."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from nats_executor.errors import AccessDenied
from nats_executor.fleet.drains import (
    LONGEST_PERSON,
    LONGEST_REMARK,
    in_drained_words,
    note_in,
)

if TYPE_CHECKING:
    from nats_executor.broker.port import Broker
    from nats_executor.wire.messages import Drain
    from nats_worker.crew import Crew
    from nats_worker.state import WorkerState

__all__ = ["Drains"]

log = logging.getLogger(__name__)

# The reason of the slots' pause.
DRAINED = "drained"


class Drains:
    """Begins and ends the drain of a worker that stays; what runs goes on."""

    def __init__(self, state: WorkerState, crew: Crew) -> None:
        self._state = state
        self._crew = crew
        self._was_ordered = False

    def begin(self, drain: Drain) -> bool:
        """Take nothing more, by an order; returns False if an order has said so before."""
        self._was_ordered = True
        return self._hold_back(drain)

    def end(self) -> bool:
        """Take workloads again, by an order; returns False if no drain kept it from that."""
        self._was_ordered = True
        was_drained = self._state.drained is not None
        self._state.drained = None
        self._state.slots.resume(DRAINED)
        return was_drained

    def _hold_back(self, drain: Drain) -> bool:
        before = self._state.drained
        self._state.drained = replace(
            drain,
            # A worker without a name for that person would not look drained.
            by=drain.by[:LONGEST_PERSON] or "unknown",
            reason=drain.reason[:LONGEST_REMARK],
        )
        self._state.slots.pause(DRAINED)
        self._crew.hand_back()  # what has not started may start elsewhere
        self._state.recall()
        return before is None

    async def look_up(self, broker: Broker) -> bool:
        """Find out whether this worker is drained since before its start, and obey.

        The worker has to be seen by then: whoever drains it now reads its record after the note.

        Raises:
            BrokerError: nobody knows yet, so it may take nothing.
        """
        try:
            found = await self._noted(broker)
        except AccessDenied as exc:
            # The login was made for the release before. To take nothing would stop all workers.
            log.warning("nobody can say whether this worker is drained: %s; next: it works", exc)
            return False
        # An order that came meanwhile is later than the note.
        if found is None or self._was_ordered:
            return False
        self._hold_back(found)
        log.warning("%s; next: taking no workloads", in_drained_words(found.by, found.reason))
        return True

    async def _noted(self, broker: Broker) -> Drain | None:
        """Return the drain of a note for one of the worker's queues."""
        names = self._state.settings.names
        if await broker.stream_info(names.holds_stream) is None:
            return None  # nobody has run `airflow nats setup` of this release, so nobody drains
        for queue in list(self._state.queues):
            subject = names.worker_hold(queue, self._state.plan.name)
            message = await broker.last(names.holds_stream, subject)
            if message and (note := note_in(message)):
                return note.drain
        return None

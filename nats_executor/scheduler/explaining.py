"""Writes into Airflow's audit log what a task waits for, once it has waited for long.

Each reason is written once for each dispatch. A backlog that moves is no trouble, and what is ahead
changes with every look: of a lane in which many wait for their turn, none of them is written about.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from nats_executor.errors import AccessDenied, BrokerError
from nats_executor.fleet.queues import until_in_words
from nats_executor.fleet.workers import seen_workers
from nats_executor.operations.facts import InHand, Instance, Pause, Sender, Situation
from nats_executor.operations.reasons import conclude
from nats_executor.operations.situations import pause_of, workers_of
from nats_executor.scheduler import compat
from nats_executor.wire.messages import Kind, State
from nats_executor.wire.names import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from nats_executor.broker.bridge import Bridge
    from nats_executor.broker.port import Broker, ConsumerInfo
    from nats_executor.fleet.presences import Seen
    from nats_executor.operations.reasons import Reason
    from nats_executor.retrying import Outage
    from nats_executor.scheduler.events import Events
    from nats_executor.scheduler.ledger import Dispatch
    from nats_executor.settings import Settings

__all__ = ["Explainer"]

log = logging.getLogger(__name__)

# Events of one look: each is a row that the scheduler's loop writes.
MOST_TOLD = 100
# Where more than these wait for their turn in a lane, it is a backlog.
MOST_TURNS = 20
# Between two looks; a fourth of the option, if that is less.
EXPLAIN_SECONDS = 15.0


class QueueView(NamedTuple):
    """What NATS said of some queues."""

    consumers: Sequence[ConsumerInfo]
    workers: Sequence[Seen]
    pauses: Mapping[Lane, Pause]


class Judged(NamedTuple):
    """Dispatches that wait for the same reason: of one lane, in the same state."""

    reason: Reason
    dispatches: Sequence[Dispatch]


class Told(NamedTuple):
    """An event to write."""

    key: Any
    coordinates: Any
    waits: float
    reason: Reason


class Explainer:
    """Explains what one executor's tasks wait for; `tick` is called in every loop of the scheduler.

    Args:
        require: returns the connection, or raises why it cannot be used.
    """

    def __init__(
        self,
        events: Events,
        settings: Settings,
        bridge: Bridge,
        outage: Outage,
        require: Callable[[], Broker],
    ) -> None:
        self._events = events
        self._settings = settings
        self._bridge = bridge
        self._outage = outage
        self._require = require
        self._after = settings.explain_after_seconds
        self._next_look = 0.0
        self._views: list[QueueView] = []  # the bridge's thread appends
        # Since when a workload has waited in the executor, and the cause that was written last.
        self._unsent: dict[Any, tuple[float, str]] = {}

    def tick(self) -> None:
        """Do what is due; costs next to nothing when nothing is."""
        if not self._after:
            return
        now = time.monotonic()
        if self._views:
            view = self._views.pop()
            self._views.clear()
            self._explain_sent(view, now)
        if now >= self._next_look:
            self._next_look = now + min(EXPLAIN_SECONDS, self._after / 4)
            self._explain_unsent(now)
            if queues := {dispatch.queue for dispatch in self._due(now)}:
                self._bridge.post(self._look(queues))

    async def _look(self, queues: Collection[str]) -> None:
        """Ask NATS about queues, in the bridge's thread."""
        try:
            broker = self._require()
            consumers = await broker.consumer_infos(self._settings.names.tasks_stream)
            workers = await seen_workers(broker, self._settings, queues)
            pauses = {
                Lane(info.queue, info.band): await self._pause(broker, info)
                for info in consumers
                if info.paused_until and info.queue in queues
            }
            self._views.append(QueueView(consumers, workers, pauses))
        except BrokerError as exc:  # the next look finds it again
            log.debug("no explanation of what waits: %s", exc)

    async def _pause(self, broker: Broker, band: ConsumerInfo) -> Pause:
        try:
            return await pause_of(broker, self._settings.names, band)
        except AccessDenied:  # this user was made for the release before
            return Pause(until_in_words(band.paused_until))

    def _due(self, now: float) -> list[Dispatch]:
        """Return the dispatches that have waited for long."""
        return [
            dispatch
            for dispatch in self._events.ledger
            if now - dispatch.since >= self._after
            and dispatch.state is not State.RUNNING
            and dispatch.kind == Kind.TASK
        ]

    def _explain_sent(self, view: QueueView, now: float) -> None:
        # A hundred thousand may wait: what is alike is concluded once.
        alike: defaultdict[Any, list[Dispatch]] = defaultdict(list)
        for dispatch in self._due(now):
            alike[dispatch.queue, dispatch.band, dispatch.state, dispatch.worker].append(dispatch)
        judged = [
            Judged(conclude(self._situation(view, some[0], now)), some) for some in alike.values()
        ]
        for dispatch, reason in first_of_all(judged):
            dispatch.explained = reason.cause
            waits = now - dispatch.since
            self._tell(Told(dispatch.key, dispatch.coordinates, waits, reason))

    def _explain_unsent(self, now: float) -> None:
        """Explain what waits in the executor itself."""
        reason = self._reason_unsent(now)
        known, self._unsent = self._unsent, {}
        left = MOST_TOLD
        for key, workload in self._events.waiting():
            if compat.kind_of(workload) != Kind.TASK:
                continue
            since, last = known.get(key, (now, ""))
            if reason and now - since >= self._after and last != reason.cause and left:
                left, last = left - 1, reason.cause
                self._tell(Told(key, workload.key, now - since, reason))
            self._unsent[key] = since, last

    def _reason_unsent(self, now: float) -> Reason | None:
        _, taken, slots = self._events.figures()
        began, why = self._outage.trouble or (now, "")
        sender = Sender(
            answers=True, taken=taken, slots=slots, trouble=str(why), trouble_seconds=now - began
        )
        reason = conclude(Situation(instance=queued_in(""), now=now, sender=sender))
        return reason if why or (slots and taken >= slots) else None

    def _situation(self, view: QueueView, dispatch: Dispatch, now: float) -> Situation:
        """Return what is known of a dispatch that was sent; nothing of its place in the queue."""
        lane = dispatch.lane
        infos = [info for info in view.consumers if (info.queue, info.band) == lane]
        held = InHand(dispatch.worker_name, "claimed", now - dispatch.held_since)
        return Situation(
            instance=queued_in(lane.queue),
            now=now,
            band=lane.band,
            is_in_stream=True,
            pending=sum(info.pending for info in infos),
            in_flight=sum(info.in_flight for info in infos),
            limit=self._settings.limit(lane.queue),
            pause=view.pauses.get(lane),
            servers=workers_of(view.workers, self._settings, lane.queue),
            holdings=(held,) if dispatch.is_held else (),
            sender=Sender(state=str(dispatch.state or "")),
        )

    def _tell(self, told: Told) -> None:
        next_step = f" Next: {told.reason.remedy}." if told.reason.remedy else ""
        text = f"queued for {told.waits:.0f} s: {told.reason.sentence}{next_step}"
        self._events.tell_waiting(told.key, told.coordinates, text)


def queued_in(queue: str) -> Instance:
    return Instance(
        dag="", run="", task="", map_index=None, try_number=1, state="queued", queue=queue
    )


def first_of_all(judged: Sequence[Judged]) -> list[tuple[Dispatch, Reason]]:
    """Choose what to write in one look: first what a person has to act on."""
    turns: Counter[Lane] = Counter()
    for reason, dispatches in judged:
        turns[dispatches[0].lane] += reason.cause.is_turn * len(dispatches)
    first = sorted(judged, key=lambda one: not one.reason.cause.needs_person)
    found = (
        (dispatch, reason)
        for reason, dispatches in first
        if not reason.cause.is_turn or turns[dispatches[0].lane] <= MOST_TURNS
        for dispatch in dispatches
        if dispatch.explained != reason.cause
    )
    return list(islice(found, MOST_TOLD))

"""Finds out what one task instance waits for: asks the database, the broker and the workers.

No task message and no report is read, because tokens are in them: that they are there is enough.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, NamedTuple

from nats_executor.errors import AccessDenied
from nats_executor.fleet.drains import in_drained_words
from nats_executor.fleet.holds import hold_in, hold_of
from nats_executor.fleet.letters import letter_of
from nats_executor.fleet.queues import until_in_words
from nats_executor.fleet.workers import seen_workers, worker_state
from nats_executor.operations.facts import Ahead, Instance, Pause, QueueWorker, Sender, Situation
from nats_executor.operations.holdings import holders_of
from nats_executor.operations.instances import Crowd, crowd_around, instance_of, sender_of
from nats_executor.operations.reasons import conclude
from nats_executor.operations.schedulers import state_of_executor
from nats_executor.wire.sizes import HOLD_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nats_executor.broker.port import Broker, ConsumerInfo
    from nats_executor.fleet.letters import Letter
    from nats_executor.fleet.presences import Seen
    from nats_executor.operations.instances import WhichTask
    from nats_executor.operations.reasons import Reason
    from nats_executor.settings import Settings
    from nats_executor.wire.names import Names
    from nats_executor.wire.scheduler_answers import ExecutorState

__all__ = ["Explanation", "explain", "pause_of", "workers_of"]

QUEUED = "queued"


class Explanation(NamedTuple):
    """What a task instance waits for, and from what that was concluded."""

    situation: Situation
    reason: Reason


class Traces(NamedTuple):
    """What NATS has of one dispatch.

    Attributes:
        lanes: the tokens of those in which its message is: one, or none.
    """

    lanes: tuple[str, ...] = ()
    is_reported: bool = False
    letter: Letter | None = None


async def explain(broker: Broker, settings: Settings, wanted: WhichTask) -> Explanation:
    """Find out what a task instance waits for.

    Raises:
        NotFound: there is no such task instance, or a stream is missing.
        DatabaseAway: Airflow's database gives no answer.
    """
    instance = await asyncio.to_thread(instance_of, wanted)
    situation, crowd = await asyncio.gather(
        look_in_nats(broker, settings, instance), crowd_of(instance, settings)
    )
    if crowd:
        ahead = at_most(crowd.ahead, situation.before)
        situation = dataclasses.replace(
            situation, ahead=ahead, started=crowd.started, runs=crowd.runs
        )
    if instance.state == QUEUED and not situation.is_in_stream and not situation.sender.answers:
        sender = await asyncio.to_thread(sender_of, instance.sender_job)
        situation = dataclasses.replace(situation, sender=sender)
    return Explanation(situation, conclude(situation))


async def crowd_of(instance: Instance, settings: Settings) -> Crowd | None:
    """Return what is known of the other tasks of its queue, if it waits."""
    if instance.state != QUEUED or instance.queued_at is None:
        return None
    return await asyncio.to_thread(crowd_around, instance, settings)


async def look_in_nats(broker: Broker, settings: Settings, instance: Instance) -> Situation:
    """Ask NATS about a task instance.

    Raises:
        NotFound: a stream is missing.
    """
    traces, consumers, seen = await asyncio.gather(
        traces_of(broker, settings.names, instance),
        broker.consumer_infos(settings.names.tasks_stream),
        seen_workers(broker, settings, [instance.queue]),
    )
    bands = [info for info in consumers if info.queue == instance.queue]
    situation = situation_of(settings, instance, traces, bands, seen)
    if instance.state == QUEUED:
        return await with_details(broker, settings, situation, bands, seen)
    return situation


async def traces_of(broker: Broker, names: Names, instance: Instance) -> Traces:
    """Look for a dispatch by its subjects."""
    dispatch_id, queue = instance.dispatch_id, instance.queue
    if not dispatch_id:
        return Traces()
    letter = names.dead_letter(queue, dispatch_id)
    tasks, results, letters = await asyncio.gather(
        broker.subjects(names.tasks_stream, names.task_anywhere(dispatch_id)),
        broker.subjects(names.results_stream, names.result(queue, dispatch_id)),
        # Without the body: its reason is in a header.
        broker.last_of_each(names.dead_letters_stream, [letter], largest=0),
    )
    lanes = tuple(names.place(subject).queue for subject in tasks.messages)
    found = letter_of(letters[0], names) if letters else None
    return Traces(lanes, bool(results.messages), found)


def situation_of(
    settings: Settings,
    instance: Instance,
    traces: Traces,
    bands: list[ConsumerInfo],
    seen: list[Seen],
) -> Situation:
    """Put together what was found; costs no I/O."""
    lane = settings.lane(instance.queue, instance.priority)
    # The scheduler may have other bands than this machine: where its message is counts.
    band = next((info.band for info in bands if info.name in traces.lanes), lane.band)
    is_in_stream, letter = bool(traces.lanes), traces.letter
    is_ours = instance.is_ours or is_in_stream or traces.is_reported or letter is not None
    of_band = [info for info in bands if info.band == band]
    before = sum(info.pending for info in bands if info.band >= band) - is_in_stream
    return Situation(
        instance=dataclasses.replace(instance, is_ours=is_ours),
        now=time.time(),
        band=band,
        is_in_stream=is_in_stream,
        is_reported=traces.is_reported,
        letter=letter.reason if letter else None,
        letter_sequence=letter.sequence if letter else None,
        pending=sum(info.pending for info in of_band),
        before=max(0, before),
        in_flight=sum(info.in_flight for info in of_band),
        servers=workers_of(seen, settings, instance.queue),
        weighs=settings.pool_slots_as_weight,
    )


def at_most(ahead: Ahead, pending: int) -> Ahead:
    """Bound what the database says by what NATS has: the rest is with workers already."""
    return Ahead(min(ahead.least, pending), min(ahead.most, pending), ahead.by_dag)


def workers_of(seen: Iterable[Seen], settings: Settings, queue: str) -> tuple[QueueWorker, ...]:
    """Return the workers of a queue."""
    return tuple(
        QueueWorker(
            name=one.presence.name,
            state=worker_state(one, settings),
            taken=one.presence.running,
            slots=one.presence.concurrency,
            bands=one.presence.bands,
            why=why_idle(one),
            age=one.age,
        )
        for one in sorted(seen, key=lambda s: s.presence.name)
        if queue in one.presence.queues
    )


def why_idle(seen: Seen) -> str:
    presence = seen.presence
    if presence.drained_by:
        return in_drained_words(presence.drained_by, presence.drain_reason)
    return "it stops" if presence.draining else presence.paused


async def with_details(
    broker: Broker,
    settings: Settings,
    situation: Situation,
    bands: list[ConsumerInfo],
    seen: list[Seen],
) -> Situation:
    """Ask what only some situations need."""
    instance = situation.instance
    of_band = next((info for info in bands if info.band == situation.band), None)
    if of_band is not None and of_band.paused_until:
        pause = await pause_of(broker, settings.names, of_band)
        situation = dataclasses.replace(situation, pause=pause)
    if of_band is not None and of_band.in_flight:
        limit = await limit_of(broker, settings.names, of_band)
        situation = dataclasses.replace(situation, limit=limit)
    if instance.dispatch_id and (situation.in_flight or not situation.is_in_stream):
        holdings = await holders_of(broker, settings, seen, instance.dispatch_id)
        situation = dataclasses.replace(situation, holdings=holdings)
    # One that waits, and on which no worker has reported, has nothing to do with its executor.
    if instance.sender_job is not None and (situation.is_reported or not situation.is_in_stream):
        sender = await executor_of(broker, settings.names, instance)
        is_ours = instance.is_ours or sender.knows or bool(situation.holdings)
        instance = dataclasses.replace(instance, is_ours=is_ours)
        situation = dataclasses.replace(situation, sender=sender, instance=instance)
    return situation


async def executor_of(broker: Broker, names: Names, instance: Instance) -> Sender:
    """Ask the executor that has queued it; nothing is known of one that does not answer."""
    job = str(instance.sender_job)
    try:
        asked = await state_of_executor(broker, names, job, instance.dispatch_id)
    except AccessDenied:  # this user was made for the release before
        return Sender()
    return Sender() if asked.state is None else sender_in(asked.state, names, instance.queue)


def sender_in(state: ExecutorState, names: Names, queue: str) -> Sender:
    """Read an executor's answer."""
    lanes = (queue, names.consumer(queue))
    refused = (text for text in state.refused if any(lane in text for lane in lanes))
    since = state.at - state.trouble_since if state.trouble_since else 0.0
    return Sender(
        taken=state.running,
        slots=state.parallelism,
        answers=True,
        knows=state.is_tracked,
        trouble=state.trouble or next(refused, ""),
        trouble_seconds=max(0.0, since),
        state=state.dispatch_state,
        worker=state.dispatch_worker,
        returned_for=state.returned_for,
    )


async def pause_of(broker: Broker, names: Names, band: ConsumerInfo) -> Pause:
    """Return until when a band is paused, and what was said about that."""
    subject = names.queue_hold(band.queue)
    found = await broker.last_of_each(names.holds_stream, [subject], largest=HOLD_BYTES)
    holds = [hold for message in found if (hold := hold_in(message, names))]
    hold = hold_of(band.queue, [band], holds)
    until = until_in_words(band.paused_until)
    return Pause(until, hold.by, hold.reason) if hold else Pause(until)


async def limit_of(broker: Broker, names: Names, band: ConsumerInfo) -> int | None:
    """Return how many of a band may be with workers at a time, as the server has it."""
    config = await broker.consumer_config(names.tasks_stream, band.name)
    limit = config.get("max_ack_pending") if config else None
    return limit if isinstance(limit, int) and limit > 0 else None

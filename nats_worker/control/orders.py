"""Answers orders and pings to a worker while it runs; anyone may send them."""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
from typing import TYPE_CHECKING, TypeVar

from nats_executor.errors import DecodeError, NatsExecutorError
from nats_executor.fleet.drains import in_drained_words
from nats_executor.text import presentable, shown
from nats_executor.wire.fitting import fitted_presence
from nats_executor.wire.messages import Drain, Obeyed, ShutDown, decode, encode
from nats_executor.wire.names import ORDERS, Order, Verb
from nats_executor.wire.queue_names import as_text
from nats_executor.wire.sizes import QUESTION_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from nats_executor.broker.port import Broker
    from nats_worker.control.drains import Drains
    from nats_worker.control.presence import Announcer
    from nats_worker.crew import Crew
    from nats_worker.delivery.errand import Errand
    from nats_worker.state import WorkerState

__all__ = ["dispatches_in", "serve_changes", "serve_pings", "serve_stops"]

log = logging.getLogger(__name__)

# Far above what one machine can run; a pull must not ask for any number.
MOST_SLOTS = 10_000
# Each one has pulls of its own.
MOST_QUEUES = 200
# As much as Airflow's database takes.
LONGEST_QUEUE = 256


Ordered = TypeVar("Ordered")


class OrderRefused(Exception):
    """An order that makes no sense, or not here; its text tells the sender why."""


async def serve_pings(broker: Broker, state: WorkerState, errands: Collection[Errand]) -> None:
    """Say that the worker is there, what it is, and which dispatches are not in its hands.

    Args:
        errands: what is in its hands: from the delivery until its end was reported.
    """

    async def ping(question: bytes) -> bytes:
        here = {errand.dispatch_id for errand in errands}
        lacks = [asked for asked in dispatches_in(question) if asked not in here]
        return fitted_presence(dataclasses.replace(state.presence(), lacks=lacks))

    names = state.settings.names
    await broker.serve(names.control(state.id, Verb.PING), ping)
    await broker.serve(names.peer(state.id), ping)


async def serve_stops(broker: Broker, state: WorkerState, crew: Crew) -> None:
    """Stop workloads that a scheduler takes back, for as long as the connection lives."""

    async def stop(body: bytes) -> bytes:
        is_here = crew.revoke(body.decode(errors="replace"))
        return b"stopping" if is_here else b"unknown"

    await broker.serve(state.settings.names.control(state.id, Verb.STOP), stop)


async def serve_changes(
    broker: Broker,
    state: WorkerState,
    crew: Crew,
    announcer: Announcer,
    drains: Drains,
    shut_down: Callable[[ShutDown], bool],
) -> None:
    """Obey orders that change the worker, for as long as the connection lives.

    Args:
        shut_down: begins the end of the worker, or hastens it; False if it does so already.
    """
    changes = Changes(state, crew, announcer, drains, shut_down)
    for order in ORDERS:
        subject = state.settings.names.control(state.id, order)
        await broker.serve(subject, functools.partial(changes.obey, order))


def dispatches_in(question: bytes) -> list[str]:
    """Read the dispatch ids that a question names; most name none."""
    return question.decode(errors="replace").split() if len(question) <= QUESTION_BYTES else []


class Changes:
    """Carries out the orders that change a worker, whose running workloads go on."""

    def __init__(
        self,
        state: WorkerState,
        crew: Crew,
        announcer: Announcer,
        drains: Drains,
        shut_down: Callable[[ShutDown], bool],
    ) -> None:
        self._state = state
        self._crew = crew
        self._announcer = announcer
        self._drains = drains
        self._shut_down = shut_down

    async def obey(self, order: Order, body: bytes) -> bytes:
        """Carry an order out and return the encoded `Obeyed`."""
        is_changed, refusal = False, ""
        try:
            is_changed = await self.change(order, body)
        except OrderRefused as exc:
            refusal = str(exc)
            log.warning("an order to %s is refused: %s", order, refusal)
        seen = self._state.presence()
        if is_changed:
            log.info(
                "%s: concurrency is %d, queues are %s%s",
                order,
                seen.concurrency,
                as_text(map(presentable, seen.queues)),
                f", {in_drained_words(seen.drained_by, seen.drain_reason)}"
                if seen.drained_by
                else "",
            )
            await self._announcer.beat()
        obeyed = Obeyed(
            queues=seen.queues,
            concurrency=seen.concurrency,
            running=seen.running,
            is_changed=is_changed,
            refusal=refusal,
        )
        return encode(obeyed)

    async def change(self, order: Order, body: bytes) -> bool:
        """Change the worker; returns False if it is so already."""
        if self._state.is_draining and order not in {Verb.DRAIN, Verb.SHUT_DOWN}:
            raise OrderRefused("it stops")
        match order:
            case Verb.SET_CONCURRENCY:
                return self.set_concurrency(concurrency_in(body))
            case Verb.ADD_QUEUE:
                return await self.add_queue(queue_in(body))
            case Verb.REMOVE_QUEUE:
                return self.remove_queue(queue_in(body))
            case Verb.DRAIN:
                return self._drains.begin(message_in(Drain, body))
            case Verb.UNDRAIN:
                return self._drains.end()
            case Verb.SHUT_DOWN:
                return self._shut_down(message_in(ShutDown, body))

    def set_concurrency(self, concurrency: int) -> bool:
        is_change = concurrency != self._state.slots.concurrency
        self._state.slots.resize(concurrency)
        self._state.recall()
        return is_change

    async def add_queue(self, queue: str) -> bool:
        if queue in self._state.queues:
            return False
        if len(self._state.queues) >= MOST_QUEUES:
            raise OrderRefused(f"it serves {len(self._state.queues)} queues and takes no more")
        try:
            await self._announcer.claim_in(queue)
        except NatsExecutorError as exc:  # the name is taken there, or it may not write there
            raise OrderRefused(str(exc)) from exc
        if queue in self._state.queues:  # another order was faster
            return False
        self._state.queues.append(queue)
        if self._state.intake:
            self._state.intake.add(queue)
        return True

    def remove_queue(self, queue: str) -> bool:
        if queue not in self._state.queues:
            return False
        if len(self._state.queues) == 1:
            raise OrderRefused(f"{shown(queue)} is its last queue; to take nothing, stop it")
        self._state.queues.remove(queue)
        if self._state.intake:
            self._state.intake.remove(queue)
        self._crew.hand_back_kept(queue)
        return True


def concurrency_in(body: bytes) -> int:
    """Read a number of slots."""
    if not re.fullmatch(rb"[0-9]{1,5}", body) or not 1 <= int(body) <= MOST_SLOTS:
        raise OrderRefused(f"{shown_body(body)} is no number from 1 to {MOST_SLOTS}")
    return int(body)


def message_in(kind: type[Ordered], body: bytes) -> Ordered:
    """Read who orders something, and why."""
    try:
        return decode(kind, body)
    except DecodeError as exc:
        raise OrderRefused(f"the order cannot be read: {exc}") from exc


def queue_in(body: bytes) -> str:
    """Read the name of a queue."""
    try:
        queue = body.decode()
    except UnicodeDecodeError:
        queue = ""
    # An order may come from anyone and ends up in logs; `-q` takes names of any characters.
    if not queue.isprintable() or not 0 < len(queue) <= LONGEST_QUEUE:
        raise OrderRefused(f"{shown_body(body)} is no name of a queue")
    return queue


def shown_body(body: bytes) -> str:
    return shown(body.decode(errors="replace"))

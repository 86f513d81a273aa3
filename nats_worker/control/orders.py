"""Answers orders and questions to a worker while it runs; anyone may send them."""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
from typing import TYPE_CHECKING

from nats_executor.errors import NatsExecutorError
from nats_executor.text import presentable, shown
from nats_executor.wire.fitting import fitted_presence
from nats_executor.wire.messages import Order, Outcome, encode
from nats_executor.wire.queue_names import as_text
from nats_executor.wire.sizes import QUESTION_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from nats_executor.broker.port import Broker
    from nats_worker.control.presence import Announcer
    from nats_worker.delivery.errand import Errand
    from nats_worker.state import WorkerState

__all__ = ["OrderRefused", "Orders", "serve_questions"]

log = logging.getLogger(__name__)

# Far above what one machine can run; a pull must not ask for any number.
MOST_SLOTS = 10_000
# Each one has pulls of its own.
MOST_QUEUES = 200
# As much as Airflow's database takes.
LONGEST_QUEUE = 256


class OrderRefused(Exception):
    """An order that makes no sense, or not here; the text says why."""


class Orders:
    """Obeys orders to one worker, whose running workloads go on.

    Args:
        hand_back_kept: leaves the workload of a queue that waits here for slots to other workers.
        announcer: shows a change in the worker's records, and takes its name in one more queue.
    """

    def __init__(
        self, state: WorkerState, hand_back_kept: Callable[[str], None], announcer: Announcer
    ) -> None:
        self._state = state
        self._hand_back_kept = hand_back_kept
        self._announcer = announcer

    async def serve(self, broker: Broker) -> None:
        """Obey for as long as the connection lives."""
        for order in Order:
            subject = self._state.settings.names.control(self._state.id, order)
            await broker.serve(subject, functools.partial(self.obey, order))

    async def obey(self, order: Order, body: bytes) -> bytes:
        """Carry an order out and return the encoded `Outcome`."""
        is_changed, refusal = False, ""
        try:
            is_changed = await self.change(order, body)
        except OrderRefused as exc:
            refusal = str(exc)
            log.warning("an order to %s is refused: %s", order, refusal)
        seen = self._state.presence()
        if is_changed:
            queues = as_text(map(presentable, seen.queues))
            log.info("%s: concurrency is %d, queues are %s", order, seen.concurrency, queues)
            await self._announcer.beat()
        outcome = Outcome(
            queues=seen.queues,
            concurrency=seen.concurrency,
            running=seen.running,
            is_changed=is_changed,
            refusal=refusal,
        )
        return encode(outcome)

    async def change(self, order: Order, body: bytes) -> bool:
        """Change the worker; returns False if it is so already.

        Raises:
            OrderRefused: the order makes no sense, or not here.
        """
        if self._state.is_draining:
            raise OrderRefused("it stops")
        match order:
            case Order.SET_CONCURRENCY:
                return self._set_concurrency(concurrency_in(body))
            case Order.ADD_QUEUE:
                return await self._add_queue(queue_in(body))
            case Order.REMOVE_QUEUE:
                return self._remove_queue(queue_in(body))

    def _set_concurrency(self, concurrency: int) -> bool:
        is_change = concurrency != self._state.slots.concurrency
        self._state.slots.resize(concurrency)
        if self._state.intake:
            self._state.intake.recall()
        return is_change

    async def _add_queue(self, queue: str) -> bool:
        queues = self._state.queues
        if queue in queues:
            return False
        if len(queues) >= MOST_QUEUES:
            raise OrderRefused(f"it serves {len(queues)} queues and takes no more")
        try:
            await self._announcer.claim_in(queue)
        except NatsExecutorError as exc:  # the name is taken there, or it may not write there
            raise OrderRefused(str(exc)) from exc
        if queue in queues:  # another order was faster
            return False
        queues.append(queue)
        if self._state.intake:
            self._state.intake.add(queue)
        return True

    def _remove_queue(self, queue: str) -> bool:
        queues = self._state.queues
        if queue not in queues:
            return False
        if len(queues) == 1:
            raise OrderRefused(f"{shown(queue)} is its last queue; to take nothing, stop it")
        queues.remove(queue)
        if self._state.intake:
            self._state.intake.remove(queue)
        self._hand_back_kept(queue)
        return True


async def serve_questions(
    broker: Broker,
    state: WorkerState,
    errands: Collection[Errand],
    revoke: Callable[[str], bool],
) -> None:
    """Answer pings and take workloads back, for as long as the connection lives.

    Args:
        errands: what is in the worker's hands: from the delivery until its end was reported.
        revoke: stops one workload because the scheduler took it back; False if it is not here.
    """
    names = state.settings.names

    async def ping(question: bytes) -> bytes:
        here = {errand.dispatch_id for errand in errands}
        lacks = [asked for asked in dispatches_in(question) if asked not in here]
        return fitted_presence(dataclasses.replace(state.presence(), lacks=lacks))

    async def stop(body: bytes) -> bytes:
        return b"stopping" if revoke(body.decode(errors="replace")) else b"unknown"

    await broker.serve(names.control(state.id, "ping"), ping)
    await broker.serve(names.peer(state.id), ping)
    await broker.serve(names.control(state.id, "stop"), stop)


def dispatches_in(question: bytes) -> list[str]:
    """Read the dispatch ids that a ping asks about; most ask about none."""
    return question.decode(errors="replace").split() if len(question) <= QUESTION_BYTES else []


def concurrency_in(body: bytes) -> int:
    """Read a number of slots."""
    if not re.fullmatch(rb"[0-9]{1,5}", body) or not 1 <= int(body) <= MOST_SLOTS:
        raise OrderRefused(f"{shown_body(body)} is no number from 1 to {MOST_SLOTS}")
    return int(body)


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

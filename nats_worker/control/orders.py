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
    from collections.abc import Collection

    from nats_executor.broker.port import Broker
    from nats_executor.wire.names import Names
    from nats_worker.delivery.errand import Errand
    from nats_worker.worker import Worker

__all__ = ["Refused", "serve_changes", "serve_pings"]

log = logging.getLogger(__name__)

# Far above what one machine can run; a pull must not ask for any number.
MOST_SLOTS = 10_000
# Each one has pulls of its own.
MOST_QUEUES = 200
# As much as Airflow's database takes.
LONGEST_QUEUE = 256


class Refused(Exception):
    """An order that makes no sense, or not here; says why, for whoever gave it."""


async def serve_changes(broker: Broker, names: Names, worker: Worker) -> None:
    """Obey orders to a worker for as long as the connection lives."""
    for order in Order:
        subject = names.control(worker.id, order)
        await broker.serve(subject, functools.partial(obey, worker, order))


async def serve_pings(
    broker: Broker, names: Names, worker: Worker, errands: Collection[Errand]
) -> None:
    """Say that the worker is there, what it is, and which dispatches are not in its hands.

    Args:
        errands: what is in its hands: from the delivery until its end was reported.
    """

    async def ping(question: bytes) -> bytes:
        here = {errand.dispatch_id for errand in errands}
        lacks = [asked for asked in dispatches_in(question) if asked not in here]
        return fitted_presence(dataclasses.replace(worker.describe(), lacks=lacks))

    await broker.serve(names.control(worker.id, "ping"), ping)
    await broker.serve(names.peer(worker.id), ping)


def dispatches_in(question: bytes) -> list[str]:
    """Read the dispatch ids that a ping asks about; most ask about none."""
    return question.decode(errors="replace").split() if len(question) <= QUESTION_BYTES else []


async def obey(worker: Worker, order: Order, body: bytes) -> bytes:
    """Carry an order out and return the encoded `Outcome`."""
    is_changed, refusal = False, ""
    try:
        is_changed = await carry_out(worker, order, body)
    except Refused as exc:
        refusal = str(exc)
        log.warning("an order to %s is refused: %s", order, refusal)
    seen = worker.describe()
    if is_changed:
        log.info(
            "%s: concurrency is %d, queues are %s",
            order,
            seen.concurrency,
            as_text(map(presentable, seen.queues)),
        )
        await worker.beat()
    outcome = Outcome(
        queues=seen.queues,
        concurrency=seen.concurrency,
        running=seen.running,
        is_changed=is_changed,
        refusal=refusal,
    )
    return encode(outcome)


async def carry_out(worker: Worker, order: Order, body: bytes) -> bool:
    """Change the worker, whose running workloads go on; returns False if it is so already."""
    if worker.is_draining:
        raise Refused("it stops")
    match order:
        case Order.SET_CONCURRENCY:
            return set_concurrency(worker, concurrency_in(body))
        case Order.ADD_QUEUE:
            return await add_queue(worker, queue_in(body))
        case Order.REMOVE_QUEUE:
            return remove_queue(worker, queue_in(body))


def set_concurrency(worker: Worker, concurrency: int) -> bool:
    is_change = concurrency != worker.slots.concurrency
    worker.slots.resize(concurrency)
    if worker.intake:
        worker.intake.recall()
    return is_change


async def add_queue(worker: Worker, queue: str) -> bool:
    if queue in worker.queues:
        return False
    if len(worker.queues) >= MOST_QUEUES:
        raise Refused(f"it serves {len(worker.queues)} queues and takes no more")
    try:
        await worker.take_name_in(queue)
    except NatsExecutorError as exc:  # the name is taken there, or it may not write there
        raise Refused(str(exc)) from exc
    if queue in worker.queues:  # another order was faster
        return False
    worker.queues.append(queue)
    if worker.intake:
        worker.intake.add(queue)
    return True


def remove_queue(worker: Worker, queue: str) -> bool:
    if queue not in worker.queues:
        return False
    if len(worker.queues) == 1:
        raise Refused(f"{shown(queue)} is its last queue; to take nothing, stop it")
    worker.queues.remove(queue)
    if worker.intake:
        worker.intake.remove(queue)
    worker.crew.hand_back_kept(queue)
    return True


def concurrency_in(body: bytes) -> int:
    """Read a number of slots."""
    if not re.fullmatch(rb"[0-9]{1,5}", body) or not 1 <= int(body) <= MOST_SLOTS:
        raise Refused(f"{shown_body(body)} is no number from 1 to {MOST_SLOTS}")
    return int(body)


def queue_in(body: bytes) -> str:
    """Read the name of a queue."""
    try:
        queue = body.decode()
    except UnicodeDecodeError:
        queue = ""
    # An order may come from anyone and ends up in logs; `-q` takes names of any characters.
    if not queue.isprintable() or not 0 < len(queue) <= LONGEST_QUEUE:
        raise Refused(f"{shown_body(body)} is no name of a queue")
    return queue


def shown_body(body: bytes) -> str:
    return shown(body.decode(errors="replace"))

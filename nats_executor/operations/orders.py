"""Sends orders to running workers, and says what came of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nats_executor.errors import BrokerUnavailable, DecodeError, NoResponders
from nats_executor.fleet.workers import seen_workers, worker_state
from nats_executor.text import presentable
from nats_executor.wire.messages import Obeyed, decode
from nats_executor.wire.names import Order, Verb
from nats_executor.wire.queue_names import as_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.broker.port import Broker
    from nats_executor.fleet.presences import Seen
    from nats_executor.settings import Settings

__all__ = ["OrderResult", "give_orders", "named", "send_order"]

# A worker renews its record before it answers, and that takes up to five seconds.
ORDER_SECONDS = 8.0


class OrderResult(NamedTuple):
    """The result of an order to one worker, in one line."""

    is_obeyed: bool
    text: str


async def give_orders(
    broker: Broker,
    settings: Settings,
    names: Sequence[str],
    order: Order,
    value: str,
    *,
    serving: str | None = None,
) -> list[OrderResult]:
    """Tell each of these workers, by the names that people know, one after another.

    Args:
        serving: looks among the workers of this queue only.
    """
    workers = await seen_workers(broker, settings)
    if serving is not None:
        workers = [seen for seen in workers if serving in seen.presence.queues]
    answers = []
    if not names:
        names = [""]  # that of no worker, so the answer lists those that there are
    for name in names:
        found = named(name, workers, settings)
        if isinstance(found, OrderResult):
            answers.append(found)
        else:
            answers.append(await give_order(broker, settings, found, order, value))
    return answers


def named(name: str, workers: Sequence[Seen], settings: Settings) -> Seen | OrderResult:
    """Return the worker of a name; two may have it, or say so, if they serve different queues."""
    of_name = [seen for seen in workers if seen.presence.name == name]
    living = [seen for seen in of_name if worker_state(seen, settings) != "lost"]
    found = living or of_name
    if len({seen.presence.worker for seen in found}) == 1:
        return found[0]
    if not found:
        known = ", ".join(sorted({presentable(seen.presence.name) for seen in workers})) or "none"
        return OrderResult(False, f"no worker is named {name!r}; there are: {known}")
    of_each = "; ".join(
        f"{presentable(seen.presence.host)} (process {seen.presence.pid}) for "
        f"{as_text(map(presentable, seen.presence.queues)) or 'no queue'}"
        for seen in found
    )
    text = f"several workers are named {name!r}: {of_each}; say which one with --serving QUEUE"
    return OrderResult(False, text)


async def give_order(
    broker: Broker, settings: Settings, seen: Seen, order: Order, value: str
) -> OrderResult:
    """Tell one worker to change, and return what came of it."""
    body = value.encode(errors="surrogateescape")
    lacks = "cannot change while it runs"
    obeyed = await send_order(broker, settings, seen, order, body, lacks=lacks)
    if isinstance(obeyed, OrderResult):
        return obeyed
    # A name that was mistyped must not look done.
    is_obeyed = obeyed.is_changed or order is not Verb.REMOVE_QUEUE
    text = changed_line(presentable(seen.presence.name), obeyed, order, value)
    return OrderResult(is_obeyed, text)


async def send_order(
    broker: Broker, settings: Settings, seen: Seen, order: Order, body: bytes, *, lacks: str
) -> Obeyed | OrderResult:
    """Tell one worker, and return its answer, or why it has not obeyed.

    Args:
        lacks: what a release cannot do that does not know the order.

    Raises:
        BrokerUnavailable: it is NATS that does not answer.
    """
    worker, name = seen.presence, presentable(seen.presence.name)
    subject = settings.names.control(worker.worker, order)
    try:
        obeyed = decode(Obeyed, await broker.request(subject, body, timeout=ORDER_SECONDS))
    except NoResponders:
        remedy = f"it is gone, or its release {presentable(worker.version)} {lacks}"
        return OrderResult(
            False, f"worker {name} does not answer, last seen {seen.age:.0f} s ago: {remedy}"
        )
    except BrokerUnavailable:
        if not broker.is_connected:
            raise
        return OrderResult(False, f"worker {name} did not answer within {ORDER_SECONDS:g} s")
    except DecodeError as exc:
        return OrderResult(False, f"worker {name} gave an answer that cannot be read: {exc}")
    if obeyed.refusal:
        return OrderResult(False, f"worker {name} refuses: {presentable(obeyed.refusal)}")
    return obeyed


def changed_line(name: str, obeyed: Obeyed, order: Order, value: str) -> str:
    """Return what an order has changed at a worker, or that it changed nothing."""
    queues = as_text(map(presentable, obeyed.queues))
    state = f"concurrency {obeyed.concurrency}, queues {queues}"
    if obeyed.is_changed:
        return f"worker {name} now has {state}; until it restarts"
    found = {
        Verb.SET_CONCURRENCY: f"has concurrency {value} already",
        Verb.ADD_QUEUE: f"serves queue {value!r} already",
        Verb.REMOVE_QUEUE: f"does not serve queue {value!r}",
    }
    return f"worker {name} {found[order]}; nothing changed: {state}"

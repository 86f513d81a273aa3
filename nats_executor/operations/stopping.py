"""Has workers drain and end, as a signal on their machine would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats_executor.fleet.drains import LONGEST_PERSON, LONGEST_REMARK
from nats_executor.fleet.workers import seen_workers, worker_state
from nats_executor.operations.choosing import current, meant
from nats_executor.operations.orders import OrderResult, send_order
from nats_executor.text import presentable
from nats_executor.wire.messages import ShutDown, encode
from nats_executor.wire.names import Verb

if TYPE_CHECKING:
    from nats_executor.broker.port import Broker
    from nats_executor.fleet.presences import Seen
    from nats_executor.operations.choosing import Which
    from nats_executor.settings import Settings

__all__ = ["stop_workers", "stoppable"]

NO_STOP = "cannot be stopped from here; send it SIGTERM on its machine"


async def stoppable(
    broker: Broker, settings: Settings, which: Which, *, are_all: bool = False
) -> list[Seen]:
    """Return the workers that are meant, in the order of their names.

    Args:
        are_all: leaves out those that are lost.

    Raises:
        NotFound: one of the names or patterns is that of no worker.
    """
    found = current(await seen_workers(broker, settings), settings, which.queue)
    if are_all:
        found = {
            name: living
            for name, ones in found.items()
            if (living := [seen for seen in ones if worker_state(seen, settings) != "lost"])
        }
    return [seen for name in meant(which, found) for seen in found[name]]


async def stop_workers(
    broker: Broker, settings: Settings, workers: list[Seen], order: ShutDown
) -> list[OrderResult]:
    """Tell each of them to stop, and return what came of it."""
    cut = ShutDown(
        by=order.by[:LONGEST_PERSON], reason=order.reason[:LONGEST_REMARK], is_now=order.is_now
    )
    return [await stop_worker(broker, settings, seen, cut) for seen in workers]


async def stop_worker(
    broker: Broker, settings: Settings, seen: Seen, order: ShutDown
) -> OrderResult:
    body = encode(order)
    result = await send_order(broker, settings, seen, Verb.SHUT_DOWN, body, lacks=NO_STOP)
    if isinstance(result, OrderResult):
        return result
    what = "stops" if result.is_changed else "stops already"
    if order.is_now:
        rest = f"ends its tasks: {result.running} running"
    else:
        rest = f"{result.running} running may end first"
    return OrderResult(True, f"worker {presentable(seen.presence.name)} {what}; {rest}")

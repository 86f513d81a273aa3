"""Finds how fast workloads come into queues and go out to workers, from two looks. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.broker.port import ConsumerInfo

__all__ = ["Counters", "Rate", "rates_between"]


class Rate(NamedTuple):
    """How many workloads a second came into a queue, and how many workers were given."""

    sent: float
    taken: float


@dataclass(frozen=True, slots=True)
class Counters:
    """The consumers of the tasks stream at one moment.

    Attributes:
        at: epoch seconds, by the server's clock.
    """

    at: float
    consumers: Sequence[ConsumerInfo]


def rates_between(before: Counters | None, now: Counters | None) -> dict[str, Rate]:
    """Return the rates of the queues that both looks know all consumers of.

    A workload that is given to a worker again counts as taken again, and as sent again. Workloads
    that were removed meanwhile count as not sent.
    """
    if before is None or now is None or now.at <= before.at:
        return {}
    earlier = {consumer.name: consumer for consumer in before.consumers}
    pairs = [(earlier.get(consumer.name), consumer) for consumer in now.consumers]
    # One that has been given less than before is another one of the same name.
    new = {last.queue for first, last in pairs if not first or last.delivered < first.delivered}
    taken, sent = Counter[str](), Counter[str]()
    for first, last in pairs:
        if first is not None and last.queue not in new:
            given = last.delivered - first.delivered
            taken[last.queue] += given
            sent[last.queue] += given + last.pending - first.pending
    seconds = now.at - before.at
    return {
        queue: Rate(round(max(0, sent[queue]) / seconds, 1), round(given / seconds, 1))
        for queue, given in taken.items()
    }

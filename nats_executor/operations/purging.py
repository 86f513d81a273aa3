"""Empties a stream for an operator, and tells before what that means.

The stream of tasks is never emptied: the scheduler that sent a task takes it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from nats_executor.errors import BrokerUnavailable, ConfigError, NotFound
from nats_executor.text import number_of
from nats_executor.topology.storage import megabytes

if TYPE_CHECKING:
    from nats_executor.broker.port import Broker
    from nats_executor.fleet.queues import Row
    from nats_executor.wire.names import Names

__all__ = ["Store", "carry_out", "look", "purge_of"]


class Store(StrEnum):
    """The things that can be emptied, by their words on the command line."""

    RESULTS = "results"
    DEAD_LETTERS = "dead-letters"
    WORKERS = "workers"
    LOGS = "logs"


CONSEQUENCES = {
    Store.RESULTS: "What runs goes on, and its end is reported. If a workload has ended and no "
    "scheduler has read that yet, the scheduler reports it failed unless Airflow knows its state: "
    "a task that ended by itself is not run again, a callback is marked failed. Attempts to start "
    "a workload are counted from the first one again",
    Store.DEAD_LETTERS: "Only people read them: nothing is run again, and nothing waits",
    Store.WORKERS: "Every worker writes its record again with its next heartbeat; until then it is "
    "not listed, and orders do not find it",
    Store.LOGS: "Logs of ended tasks that are stored there cannot be read any more",
}


@dataclass(frozen=True, slots=True)
class Purge:
    """The messages of a stream that are to go, by their subject.

    Attributes:
        queue: of which queue, '' for all.
    """

    store: Store
    stream: str
    subject: str
    queue: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """The numbers of messages that are there.

    Attributes:
        messages: of those that are to go; there may be more if `is_whole` is False. None where
            NATS does not count them: the subjects are so long that they do not fit in one answer.
        all_messages: in the stream, which has `bytes`.
    """

    messages: int | None
    is_whole: bool
    all_messages: int
    bytes: int

    def describe(self, purge: Purge) -> str:
        """Return what goes, and what follows from that."""
        counted = "an unknown number" if self.messages is None else str(self.messages)
        number = f"{'' if self.is_whole else 'more than '}{counted}"
        of_queue = f" of queue {purge.queue!r}" if purge.queue else ""
        return (
            f"To remove{of_queue}: {number} of {number_of(self.all_messages, 'message')} in stream "
            f"{purge.stream}, which has {megabytes(self.bytes)}. {CONSEQUENCES[purge.store]}."
        )


def purge_of(names: Names, store: Store, queue: str | None) -> Purge:
    """Return what a purge removes.

    Raises:
        ConfigError: the queue has no name, as that of an empty variable in a script.
    """
    if queue is not None and not queue.strip():
        raise ConfigError(f"--queue {queue!r}: name a queue, or leave --queue out for all of them")
    match store:
        case Store.RESULTS:
            stream, subject = names.results_stream, names.results(queue)
        case Store.DEAD_LETTERS:
            stream, subject = names.dead_letters_stream, names.dead_letters(queue)
        case Store.LOGS:
            stream, subject = names.logs_stream, names.log_chunks(queue) if queue else ">"
        case Store.WORKERS:
            stream, subject = names.workers_stream, names.presences(queue)
    return Purge(store, stream, subject, queue or "")


async def look(broker: Broker, purge: Purge) -> Contents:
    """Return what a purge would remove.

    Raises:
        NotFound: there is no such stream.
    """
    info = await broker.stream_info(purge.stream)
    if info is None:
        raise NotFound(f"stream {purge.stream} does not exist: there is nothing to purge")
    if not purge.queue:
        return Contents(info.messages, True, info.messages, info.bytes)
    try:
        found = await broker.subjects(purge.stream, purge.subject)
    except BrokerUnavailable:
        return Contents(None, True, info.messages, info.bytes)
    return Contents(sum(found.messages.values()), found.is_whole, info.messages, info.bytes)


async def carry_out(broker: Broker, purge: Purge) -> Row:
    """Remove it, and return a row about that; messages stored meanwhile count as not freed."""
    before = await broker.stream_info(purge.stream)
    removed = await broker.purge(purge.stream, purge.subject)
    after = await broker.stream_info(purge.stream)
    left = after.bytes if after else 0
    return {
        "stream": purge.stream,
        "queue": purge.queue or "-",
        "removed_messages": removed,
        "freed_bytes": max(0, before.bytes - left) if before else 0,
        "left_messages": after.messages if after else 0,
        "left_bytes": left,
    }

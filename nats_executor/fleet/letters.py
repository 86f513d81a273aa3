"""Reads dead letters: which workload each one was, and why no worker could handle it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from nats_executor.errors import DecodeError
from nats_executor.text import presentable
from nats_executor.wire.coordinates import LONGEST_COORDINATE, coordinates_in
from nats_executor.wire.messages import Workload, decode
from nats_executor.wire.names import token

if TYPE_CHECKING:
    from nats_executor.broker.port import Stored
    from nats_executor.fleet.queues import Row
    from nats_executor.wire.names import Names

__all__ = ["Letter", "Wanted", "details_row", "letter_of", "letter_row"]


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter without its body; None is what cannot be read.

    Attributes:
        queue: its name, or its token in subjects where the name cannot be read.
        kind: '' if the workload cannot be read at all.
        instance: the id of the task instance, which Airflow changes with each try.
        size: of the body in bytes.
    """

    sequence: int
    subject: str
    at: float
    reason: str
    size: int
    queue: str
    dispatch_id: str
    kind: str = ""
    dag: str | None = None
    run: str | None = None
    task: str | None = None
    map_index: int | None = None
    try_number: int | None = None
    instance: str | None = None

    @property
    def queue_token(self) -> str:
        """The queue's token in the subject, which a worker's login cannot choose freely."""
        return self.subject.split(".")[-2]


class Wanted(NamedTuple):
    """The letters that a command is about.

    Attributes:
        older_than: their least age in seconds.
    """

    queue: str | None = None
    dag: str | None = None
    older_than: float = 0.0

    def takes(self, letter: Letter, now: float) -> bool:
        """Whether a letter is one of them."""
        return (
            (self.queue is None or letter.queue_token == token(self.queue))
            and (self.dag is None or letter.dag == self.dag)
            and (not self.older_than or now - letter.at >= self.older_than)
        )


def letter_of(message: Stored, names: Names) -> Letter:
    """Read a letter, as far as it can be read: anyone may have written it."""
    place = names.place(message.subject)
    known: dict[str, Any] = {
        "sequence": message.sequence,
        "subject": message.subject,
        "at": message.at,
        "reason": presentable(message.headers.get("Airflow-Reason", "")),
        "size": len(message.body),
        "queue": place.queue,
        "dispatch_id": place.dispatch_id,
    }
    try:
        workload = decode(Workload, message.body)
    except DecodeError:
        return Letter(**known)
    if (
        token(workload.dispatch_id) != place.dispatch_id
        or len(workload.dispatch_id) > LONGEST_COORDINATE
    ):
        return Letter(**known)
    known |= {"dispatch_id": workload.dispatch_id, "kind": workload.kind[:LONGEST_COORDINATE]}
    if token(workload.queue) == place.queue and len(workload.queue) <= LONGEST_COORDINATE:
        known["queue"] = workload.queue
    return Letter(**known, **coordinates_in(workload)._asdict())


def letter_row(letter: Letter, now: float) -> Row:
    """Return a row of a list."""
    return {
        "sequence": letter.sequence,
        "age_seconds": max(0, int(now - letter.at)),
        "queue": letter.queue,
        "dag": letter.dag,
        "run": letter.run,
        "task": letter.task,
        "map_index": letter.map_index,
        "try": letter.try_number,
        "reason": letter.reason,
    }


def details_row(letter: Letter, now: float) -> Row:
    """Return all that is known of a letter, but not its body."""
    return letter_row(letter, now) | {
        "kind": letter.kind or None,
        "dispatch_id": letter.dispatch_id,
        "task_instance_id": letter.instance,
        "buried_at": datetime.fromtimestamp(letter.at, UTC).isoformat(timespec="seconds"),
        "bytes": letter.size,
    }

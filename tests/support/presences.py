"""The records of workers, as tests write and read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats_executor.fleet.liveness import readable
from nats_executor.fleet.presences import merged, record_for
from nats_executor.wire.messages import Presence, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nats_executor.broker.port import Stored
    from nats_executor.wire.names import Names

__all__ = ["presence_in", "presence_of", "records_of"]


def presence_of(
    name: str, *queues: str, worker: str = "", running: int = 1, draining: bool = False
) -> Presence:
    """What a worker is that runs nowhere."""
    return Presence(
        worker=worker or f"{name}.1", name=name, host="host-7", pid=7,
        queues=list(queues or ("default",)), concurrency=4, running=running, draining=draining,
        started_at=0.0, at=0.0, version="1",
    )  # fmt: skip


def records_of(names: Names, presence: Presence) -> Iterator[tuple[str, bytes]]:
    """Yield the subjects and bodies of what a worker writes."""
    for queue in presence.queues:
        yield names.presence(queue, presence.name), encode(record_for(presence, queue))


def presence_in(messages: Iterable[Stored], name: str) -> Presence | None:
    """Return what the records say of the only worker of a name, None without a record."""
    records = [record for record in map(readable, messages) if record]
    seen = merged(records, now=0.0, lost_after_seconds=float("inf"))
    found = [one.presence for one in seen if one.presence.name == name]
    assert len(found) <= 1, found
    return found[0] if found else None

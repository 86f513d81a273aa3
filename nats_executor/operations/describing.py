"""Asks workers what they run at this moment."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from nats_executor.errors import BrokerUnavailable, DecodeError, NoResponders
from nats_executor.text import presentable
from nats_executor.wire.descriptions import decode_description
from nats_executor.wire.names import Verb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nats_executor.broker.port import Broker
    from nats_executor.fleet.presences import Seen
    from nats_executor.fleet.queues import Row
    from nats_executor.installation import Releases
    from nats_executor.settings import Settings
    from nats_executor.wire.descriptions import Description

__all__ = ["Untold", "carried_rows", "description_of", "worker_details"]

# A worker looks at its memory first, for two seconds at most.
DESCRIBE_SECONDS = 4.0


class Untold(NamedTuple):
    """Why a worker does not tell what it runs, in words."""

    text: str


async def description_of(
    broker: Broker, settings: Settings, seen: Seen, dispatches: Iterable[str] = ()
) -> Description | Untold:
    """Ask one worker what it runs.

    Args:
        dispatches: asks about these alone; without any about all that it has in hand.

    Raises:
        BrokerUnavailable: it is NATS that does not answer.
    """
    worker = seen.presence
    subject = settings.names.control(worker.worker, Verb.DESCRIBE)
    question = " ".join(dispatches).encode(errors="replace")
    try:
        answer = await broker.request(subject, question, timeout=DESCRIBE_SECONDS)
        return decode_description(answer)
    except NoResponders:
        release = presentable(worker.version)
        return Untold(f"it is gone, or its release {release} does not tell what it runs")
    except BrokerUnavailable:
        if not broker.is_connected:
            raise
        return Untold(f"it did not answer within {DESCRIBE_SECONDS:g} s")
    except DecodeError as exc:
        return Untold(f"its answer cannot be read: {exc}")


def worker_details(row: Row, description: Description | Untold, ours: Releases) -> Row:
    """Return all that is known of one worker, but not what it runs.

    Args:
        row: that of the list of workers.
        ours: the releases of this machine, which `differs` compares.
    """
    here = {f"{name}_here": release for name, release in ours._asdict().items()}
    if isinstance(description, Untold):
        told = dict.fromkeys(ASKED_COLUMNS)
    else:
        told = {
            "uptime_seconds": whole_seconds(description.started_at, description.at),
            "connected_seconds": whole_seconds(description.connected_at, description.at),
            "memory_bytes": description.memory_bytes or None,
            "memory_used_bytes": description.memory_used_bytes or None,
            "memory_limit_bytes": description.memory_limit_bytes or None,
            "memory_of": presentable(description.memory_of) or None,
            "workloads": len(description.carried) + description.left_out,
        }
    return row | here | told


ASKED_COLUMNS = (
    "uptime_seconds",
    "connected_seconds",
    "memory_bytes",
    "memory_used_bytes",
    "memory_limit_bytes",
    "memory_of",
    "workloads",
)


def carried_rows(description: Description) -> list[Row]:
    """Return a row for each workload that a worker has in hand, first what is so for longest."""
    return [
        {
            "dag": one.dag,
            "run": one.run,
            "task": one.task,
            "map_index": one.map_index,
            "try": one.try_number,
            "phase": one.phase,
            "since": when_in_words(one.since),
            "seconds": whole_seconds(one.since, description.at),
            "pid": one.pid or None,
            "attempt": one.attempt,
            "queue": one.queue,
            "kind": one.kind or None,
            "id": one.id,
            "dispatch_id": one.dispatch_id,
        }
        for one in description.carried
    ]


def whole_seconds(begin: float, end: float) -> int | None:
    """Return whole seconds by one clock; None where a worker says what no clock shows."""
    seconds = end - begin
    return max(0, int(seconds)) if math.isfinite(seconds) else None


def when_in_words(at: float) -> str | None:
    """Return a time as text; None for what no calendar has."""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None

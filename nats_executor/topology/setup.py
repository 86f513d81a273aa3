"""Looks at streams and consumers, creates and updates them, through the port; deletes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats_executor.errors import AccessDenied, BrokerUnavailable
from nats_executor.topology.drift import (
    Drift,
    bearable,
    compare,
    require_changeable,
    require_no_loss,
    with_additions,
    with_state,
)
from nats_executor.topology.room import require_room
from nats_executor.topology.several import for_several
from nats_executor.topology.wanted import consumer_config, stream_configs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nats_executor.broker.port import Broker, Config
    from nats_executor.settings import Settings
    from nats_executor.wire.names import Lane

__all__ = [
    "Drift",
    "apply",
    "inspect",
    "known_queues",
    "open_queue",
    "open_stream",
]


# Each one waits for an answer as long as any request.
COPY_ATTEMPTS = 6


async def compare_stream(broker: Broker, wanted: Config) -> list[Drift]:
    name = wanted["name"]
    remedy = (
        f"stop the workers, delete it (`nats stream rm {name}`, perhaps after a `nats stream "
        "backup`) while schedulers run, run `airflow nats setup`, and start the workers; what was "
        "queued is sent again. Or choose another [nats_executor] subject_prefix"
    )
    existing = await broker.stream_config(name)
    found = compare(f"stream {name}", existing, wanted, remedy)
    info = await broker.stream_info(name) if found else None
    return [with_state(drift, info, wanted) for drift in found] if info else found


async def compare_consumer(broker: Broker, settings: Settings, lane: Lane) -> list[Drift]:
    wanted = consumer_config(settings, lane)
    stream, name = settings.names.tasks_stream, wanted["durable_name"]
    remedy = (
        f"delete it (`nats consumer rm {stream} {name}`) and run `airflow nats setup`; its "
        "messages stay in the stream, and what runs goes on and is offered again"
    )
    existing = await broker.consumer_config(stream, name)
    return compare(f"consumer of {lane}", existing, wanted, remedy)


async def inspect(broker: Broker, settings: Settings, queues: Iterable[str]) -> list[Drift]:
    """Return what `apply` would change, and change nothing."""
    found: list[Drift] = []
    for wanted in stream_configs(settings):
        found += await compare_stream(broker, wanted)

    async def compare_queue(queue: str) -> list[Drift]:
        lanes = settings.lanes(queue)
        return [drift for lane in lanes for drift in await compare_consumer(broker, settings, lane)]

    of_queues = await for_several(queues, compare_queue)
    return found + [drift for drifts in of_queues.required() for drift in drifts]


async def apply(
    broker: Broker, settings: Settings, queues: Iterable[str], *, may_drop: bool = False
) -> list[Drift]:
    """Create what is missing, update what differs, and return what was changed.

    The streams come one after the other, then the queues, several at a time. A queue that the
    server refuses holds up no other one.

    Args:
        may_drop: also make changes after which NATS removes messages.

    Raises:
        TopologyMismatch: a stream or consumer differs in what cannot be changed in place, or only
            with a loss of messages; nothing was changed then.
        LimitReached: the server has no room for a queue; where that is foreseen, nothing was
            changed.
    """
    queues = list(queues)
    found = await inspect(broker, settings, queues)
    require_changeable(found)
    if not may_drop:
        require_no_loss(found)
    await require_limits(broker, settings, found)
    for wanted in stream_configs(settings):
        await ensure_stream(broker, wanted)
    changed = await for_several(queues, lambda queue: ensure_queue(broker, settings, queue))
    changed.required()
    # Last of all, because a stream whose copies move may answer nothing for seconds (2.11).
    for wanted in stream_configs(settings):
        await ensure_copies(broker, wanted)
    return found


async def require_limits(broker: Broker, settings: Settings, found: Iterable[Drift]) -> None:
    """Raise `LimitReached` for a limit of the account that leaves no room for what is missing."""
    missing = [drift for drift in found if drift.setting == "existence"]
    if not missing:
        return
    try:
        usage = await broker.usage()
    except AccessDenied:  # users of the release before may not ask
        return
    stream = settings.names.tasks_stream
    there = await broker.consumer_infos(stream) if await broker.stream_info(stream) else []
    require_room(usage, len(there), missing)


async def ensure_stream(broker: Broker, wanted: Config) -> None:
    """Create or update a stream; what its operator added stays, and the number of copies."""
    existing = await broker.stream_config(wanted["name"])
    if existing is None:
        await broker.create_stream(wanted)
        return
    config = with_additions(existing, wanted) | {"num_replicas": existing["num_replicas"]}
    if config != existing:
        await broker.update_stream(config)


async def ensure_copies(broker: Broker, wanted: Config) -> None:
    """Have as many copies of a stream as it should have.

    A server may do so and not answer in time, so it is asked what came of it.
    """
    silence: BrokerUnavailable | None = None
    for _ in range(COPY_ATTEMPTS):
        try:
            existing = await broker.stream_config(wanted["name"])
            if existing is None or existing["num_replicas"] == wanted["num_replicas"]:
                return
            await broker.update_stream(existing | {"num_replicas": wanted["num_replicas"]})
        except BrokerUnavailable as exc:
            silence = exc
        else:
            return
    raise silence or BrokerUnavailable(f"stream {wanted['name']} does not answer")


async def known_queues(broker: Broker, settings: Settings) -> list[str]:
    """Return the queues that have a consumer, each once."""
    stream = settings.names.tasks_stream
    if await broker.stream_info(stream) is None:
        return []
    return list(dict.fromkeys(info.queue for info in await broker.consumer_infos(stream)))


async def open_stream(broker: Broker, wanted: Config) -> list[Drift]:
    """Create a missing stream, as an executor does; return how an existing one differs.

    Differences are left to `airflow nats setup`: during an upgrade two releases may disagree.

    Raises:
        TopologyMismatch: a difference that this release cannot work with.
    """
    found = await compare_stream(broker, wanted)
    if any(drift.setting == "existence" for drift in found):
        await broker.create_stream(wanted)
    return bearable(found)


async def open_queue(broker: Broker, settings: Settings, queue: str) -> list[Drift]:
    """Create a queue's missing consumers, as an executor does; return how existing ones differ.

    Raises:
        TopologyMismatch: a difference that this release cannot work with.
    """
    found: list[Drift] = []
    for lane in settings.lanes(queue):
        differences = await compare_consumer(broker, settings, lane)
        if any(drift.setting == "existence" for drift in differences):
            await create_consumer(broker, settings, lane)
        found += differences
    return bearable(found)


async def create_consumer(broker: Broker, settings: Settings, lane: Lane) -> None:
    """Create a missing consumer; a band that is new in a paused queue is paused as well."""
    stream, wanted = settings.names.tasks_stream, consumer_config(settings, lane)
    if lane.band:
        lowest = await broker.consumer_config(stream, settings.names.consumer(lane.queue))
        if lowest and (until := lowest.get("pause_until")):
            wanted["pause_until"] = until
    await broker.create_consumer(stream, wanted)


async def ensure_queue(broker: Broker, settings: Settings, queue: str) -> list[Drift]:
    """Create or update a queue's consumers."""
    changed: list[Drift] = []
    for lane in settings.lanes(queue):
        changed += await ensure_consumer(broker, settings, lane)
    return changed


async def ensure_consumer(broker: Broker, settings: Settings, lane: Lane) -> list[Drift]:
    """Create or update one consumer; looks first, as creating is what servers got wrong."""
    wanted = consumer_config(settings, lane)
    stream = settings.names.tasks_stream
    differences = await compare_consumer(broker, settings, lane)
    require_changeable(differences)
    existing = await broker.consumer_config(stream, wanted["durable_name"])
    if existing is None:
        await create_consumer(broker, settings, lane)
    elif differences:
        await broker.update_consumer(stream, with_additions(existing, wanted))
    return differences

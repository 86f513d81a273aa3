"""The streams, the buckets and the consumers that the project needs, and how existing ones differ.

Everything here is plain data in the words of NATS's JSON API (durations in nanoseconds);
`apply` is the only function that talks to a broker, and it never deletes anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats_executor.broker.replies import BAND, QUEUE
from nats_executor.errors import BrokerUnavailable
from nats_executor.topology.drift import (
    Drift,
    bearable,
    compare,
    judged,
    merged,
    require_changeable,
    require_no_loss,
)
from nats_executor.wire.log_parts import CHUNK_BYTES
from nats_executor.wire.sizes import (
    AVERAGE_BYTES,
    HEADERS_BYTES,
    LETTER_BYTES,
    PRESENCE_BYTES,
    REPORT_BYTES,
    WORKERS_BUCKET_BYTES,
    WORKLOAD_BYTES,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nats_executor.broker.port import Broker, Config
    from nats_executor.settings import Settings
    from nats_executor.wire.names import Lane, Names

__all__ = [
    "Drift",
    "apply",
    "consumer",
    "ensure_consumer",
    "ensure_queue",
    "inspect",
    "known_queues",
    "open_queue",
    "open_stream",
    "streams",
]

SECOND = 1_000_000_000

# A server's own default. It must not be longer than `max_age`, not even when that becomes shorter.
DUPLICATE_SECONDS = 120
# Each one waits for an answer as long as any request.
COPY_ATTEMPTS = 6


def streams(settings: Settings) -> list[Config]:
    """Every stream, the buckets' included, as it should be."""
    names = settings.names
    common: Config = {
        "storage": settings.storage,
        "num_replicas": settings.replicas,
        "allow_direct": True,
    }
    logs = [logs_stream(settings, names)] if settings.stores_logs else []
    return [
        common | tasks_stream(settings, names),
        common | results_stream(settings, names),
        common | dead_letters_stream(settings, names),
        common | workers_stream(names),
        *(common | stream for stream in logs),
    ]


def tasks_stream(settings: Settings, names: Names) -> Config:
    return {
        "name": names.tasks_stream,
        "description": "Airflow: workloads waiting for a worker or running on one",
        "subjects": [names.tasks()],
        "retention": "workqueue",
        # One message for each dispatch: publishing it twice is refused for as long as it is here.
        "max_msgs_per_subject": 1,
        "discard": "new",
        "discard_new_per_subject": True,
        "max_bytes": settings.max_stream_bytes,
        "max_msg_size": WORKLOAD_BYTES,
        "duplicate_window": DUPLICATE_SECONDS * SECOND,
    }


def results_stream(settings: Settings, names: Names) -> Config:
    return {
        "name": names.results_stream,
        "description": "Airflow: the last report of each workload",
        "subjects": [names.results()],
        "retention": "limits",
        "max_msgs_per_subject": 1,
        # Full, it drops the oldest reports: those of workloads that ended long ago, as a rule. A
        # stream that refused new ones would stop every queue.
        **bounded(settings.max_results_bytes, REPORT_BYTES),
        **kept_for(settings.result_retention_seconds),
    }


def dead_letters_stream(settings: Settings, names: Names) -> Config:
    return {
        "name": names.dead_letters_stream,
        "description": "Airflow: messages that no worker could handle",
        "subjects": [names.dead_letters()],
        "retention": "limits",
        **bounded(settings.max_dead_letters_bytes, LETTER_BYTES),
        **kept_for(settings.dead_letter_retention_seconds),
    }


def bounded(stream_bytes: int, message_bytes: int) -> Config:
    """What one login may fill, as the server sets so much aside; the oldest messages make room."""
    return {
        "max_bytes": stream_bytes,
        "max_msgs": stream_bytes // AVERAGE_BYTES,
        "max_msg_size": message_bytes,
        "discard": "old",
    }


def kept_for(seconds: int) -> Config:
    window = min(seconds, DUPLICATE_SECONDS)
    return {"max_age": seconds * SECOND, "duplicate_window": window * SECOND}


def workers_stream(names: Names) -> Config:
    return {
        "name": names.workers_stream,
        "description": "Airflow: presence of workers (a key-value bucket)",
        "subjects": [names.presences()],
        "retention": "limits",
        "max_msgs_per_subject": 1,
        # Of a bucket, as NATS's own tools make it; but one message with a rollup header would
        # empty it, and whoever has a worker's login could send that.
        "deny_delete": True,
        "allow_rollup_hdrs": False,
        **bounded(WORKERS_BUCKET_BYTES, PRESENCE_BYTES),
        # Long enough to see in `workers list` what died an hour ago.
        "max_age": 3600 * SECOND,
        # In memory, a restart of the server would make every worker look lost.
        "storage": "file",
    }


def logs_stream(settings: Settings, names: Names) -> Config:
    return {
        "name": names.logs_stream,
        "description": "Airflow: logs of ended tasks (an object store)",
        "subjects": [names.log_chunks(), names.log_names()],
        "retention": "limits",
        # A chunk of a later upload takes the place of the one before. Object stores use rollups
        # for that; with one of those a worker could remove all that is in the bucket.
        "max_msgs_per_subject": 1,
        "max_age": settings.log_retention_seconds * SECOND,
        **bounded(settings.max_log_bucket_bytes, CHUNK_BYTES + HEADERS_BYTES),
        # No message here has an id, and a window has to be shorter than `max_age`.
        "duplicate_window": SECOND,
    }


def consumer(settings: Settings, lane: Lane) -> Config:
    """The durable consumer of a queue's band."""
    names = settings.names
    return {
        "durable_name": names.consumer(*lane),
        "name": names.consumer(*lane),
        "filter_subject": names.tasks(lane),
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "ack_wait": int(settings.ack_wait_seconds * SECOND),
        # The server gives nothing up by itself: a worker does after `max_attempts`, and says so.
        "max_deliver": -1,
        # NATS's default would stop a queue at 1000 running workloads.
        "max_ack_pending": settings.limit(lane.queue) or -1,
        "max_waiting": 10000,
        "metadata": {QUEUE: lane.queue, BAND: str(lane.band)},
    }


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
    return [judged(drift, info, wanted) for drift in found] if info else found


async def compare_consumer(broker: Broker, settings: Settings, lane: Lane) -> list[Drift]:
    wanted = consumer(settings, lane)
    stream, name = settings.names.tasks_stream, wanted["durable_name"]
    remedy = (
        f"delete it (`nats consumer rm {stream} {name}`) and run `airflow nats setup`; its "
        "messages stay in the stream, and what runs goes on and is offered again"
    )
    existing = await broker.consumer_config(stream, name)
    return compare(described(lane), existing, wanted, remedy)


async def inspect(broker: Broker, settings: Settings, queues: Iterable[str]) -> list[Drift]:
    """Return what `apply` would change, and change nothing."""
    found: list[Drift] = []
    for wanted in streams(settings):
        found += await compare_stream(broker, wanted)
    for queue in queues:
        for lane in settings.lanes(queue):
            found += await compare_consumer(broker, settings, lane)
    return found


async def apply(
    broker: Broker, settings: Settings, queues: Iterable[str], *, may_drop: bool = False
) -> list[Drift]:
    """Create what is missing, update what differs, and return what was changed.

    Args:
        may_drop: also change what makes NATS remove messages.

    Raises:
        TopologyMismatch: a stream or consumer differs in what cannot be changed in place, or only
            with a loss of messages; nothing was changed then.
    """
    queues = list(queues)
    found = await inspect(broker, settings, queues)
    require_changeable(found)
    if not may_drop:
        require_no_loss(found)
    for wanted in streams(settings):
        await ensure_stream(broker, wanted)
    for queue in queues:
        await ensure_queue(broker, settings, queue)
    # Last of all, because a stream whose copies move may answer nothing for seconds (2.11).
    for wanted in streams(settings):
        await ensure_copies(broker, wanted)
    return found


async def ensure_stream(broker: Broker, wanted: Config) -> None:
    """Create or update a stream; what its operator added stays, and the number of copies."""
    existing = await broker.stream_config(wanted["name"])
    if existing is None:
        await broker.create_stream(wanted)
        return
    config = merged(existing, wanted) | {"num_replicas": existing["num_replicas"]}
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
    """The queues that have a consumer, each once."""
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
            await broker.create_consumer(settings.names.tasks_stream, consumer(settings, lane))
        found += differences
    return bearable(found)


async def ensure_queue(broker: Broker, settings: Settings, queue: str) -> list[Drift]:
    """Create or update a queue's consumers."""
    changed: list[Drift] = []
    for lane in settings.lanes(queue):
        changed += await ensure_consumer(broker, settings, lane)
    return changed


def described(lane: Lane) -> str:
    band = f", priority band {lane.band}" if lane.band else ""
    return f"consumer of queue {lane.queue!r}{band}"


async def ensure_consumer(broker: Broker, settings: Settings, lane: Lane) -> list[Drift]:
    """Create or update one consumer; looks first, as creating is what servers got wrong."""
    wanted = consumer(settings, lane)
    stream = settings.names.tasks_stream
    differences = await compare_consumer(broker, settings, lane)
    require_changeable(differences)
    existing = await broker.consumer_config(stream, wanted["durable_name"])
    if existing is None:
        await broker.create_consumer(stream, wanted)
    elif differences:
        await broker.update_consumer(stream, merged(existing, wanted))
    return differences

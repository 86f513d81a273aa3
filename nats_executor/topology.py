"""The streams, the buckets and the consumers that the project needs, and how existing ones differ.

Everything here is plain data in the words of NATS's JSON API (durations in nanoseconds);
`apply` is the only function that talks to a broker, and it never deletes anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nats_executor.errors import TopologyMismatch
from nats_executor.log_parts import CHUNK_BYTES
from nats_executor.replies import BAND, QUEUE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nats_executor.names import Lane, Names
    from nats_executor.ports import Broker, Config
    from nats_executor.settings import Settings

__all__ = [
    "Drift",
    "apply",
    "consumer",
    "ensure_consumer",
    "ensure_queue",
    "inspect",
    "known_queues",
    "prepare",
    "streams",
]

SECOND = 1_000_000_000

# What NATS never changes in an existing stream or consumer.
FIXED = frozenset(
    {"retention", "storage", "ack_policy", "deliver_policy", "filter_subject", "subjects"}
)


@dataclass(frozen=True, slots=True)
class Drift:
    """One setting that is not as it should be."""

    where: str
    setting: str
    found: Any
    wanted: Any

    def __str__(self) -> str:
        return f"{self.where}: {self.setting} is {self.found!r}, should be {self.wanted!r}"


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
        "duplicate_window": 120 * SECOND,
    }


def results_stream(settings: Settings, names: Names) -> Config:
    return {
        "name": names.results_stream,
        "description": "Airflow: the last report of each workload",
        "subjects": [names.results()],
        "retention": "limits",
        "max_msgs_per_subject": 1,
        "max_age": settings.result_retention_seconds * SECOND,
    }


def dead_letters_stream(settings: Settings, names: Names) -> Config:
    return {
        "name": names.dead_letters_stream,
        "description": "Airflow: messages that no worker could handle",
        "subjects": [names.dead_letters()],
        "retention": "limits",
        "max_age": settings.dead_letter_retention_seconds * SECOND,
    }


def workers_stream(names: Names) -> Config:
    return {
        "name": names.workers_stream,
        "description": "Airflow: presence of workers (a key-value bucket)",
        "subjects": [names.presences()],
        "retention": "limits",
        "max_msgs_per_subject": 1,
        # These two make it a bucket for NATS's own tools.
        "allow_rollup_hdrs": True,
        "deny_delete": True,
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
        "max_msg_size": CHUNK_BYTES,
        "max_age": settings.log_retention_seconds * SECOND,
        # The server sets so much aside: logs neither take the room of workloads nor run out of it.
        "max_bytes": settings.max_log_bucket_bytes,
        "discard": "old",
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


def drifts(where: str, found: Config, wanted: Config) -> list[Drift]:
    """Every setting of `wanted` that `found` does not have; what NATS adds does not count."""
    return [
        Drift(where, setting, found.get(setting), value)
        for setting, value in wanted.items()
        if not matches(found.get(setting), value)
    ]


def matches(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):  # NATS adds metadata of its own
        return isinstance(found, dict) and wanted.items() <= found.items()
    # NATS leaves out what is false.
    return bool(found == wanted or (found is None and wanted is False))


def compare(where: str, existing: Config | None, wanted: Config) -> list[Drift]:
    if existing is None:
        return [Drift(where, "existence", None, "exists")]
    return drifts(where, existing, wanted)


async def inspect(broker: Broker, settings: Settings, queues: Iterable[str]) -> list[Drift]:
    """Return what `apply` would change, and change nothing."""
    found: list[Drift] = []
    for wanted in streams(settings):
        existing = await broker.stream_config(wanted["name"])
        found += compare(f"stream {wanted['name']}", existing, wanted)
    for queue in queues:
        for lane in settings.lanes(queue):
            wanted = consumer(settings, lane)
            name = wanted["durable_name"]
            existing = await broker.consumer_config(settings.names.tasks_stream, name)
            found += compare(described(lane), existing, wanted)
    return found


async def apply(broker: Broker, settings: Settings, queues: Iterable[str]) -> list[Drift]:
    """Create what is missing, update what differs, and return what was changed.

    Raises:
        TopologyMismatch: a stream or consumer differs in what NATS cannot change in place;
            nothing was changed then.
    """
    queues = list(queues)
    require_changeable(await inspect(broker, settings, queues))
    changed: list[Drift] = []
    for wanted in streams(settings):
        changed += await ensure_stream(broker, wanted)
    for queue in queues:
        changed += await ensure_queue(broker, settings, queue)
    return changed


async def ensure_stream(broker: Broker, wanted: Config) -> list[Drift]:
    """Create or update a stream; what its operator added stays."""
    existing = await broker.stream_config(wanted["name"])
    differences = compare(f"stream {wanted['name']}", existing, wanted)
    if existing is None:
        await broker.create_stream(wanted)
    elif differences:
        require_changeable(differences)
        await broker.update_stream(existing | wanted)
    return differences


async def known_queues(broker: Broker, settings: Settings) -> list[str]:
    """The queues that have a consumer, each once."""
    stream = settings.names.tasks_stream
    if await broker.stream_info(stream) is None:
        return []
    return list(dict.fromkeys(info.queue for info in await broker.consumer_infos(stream)))


async def prepare(broker: Broker, settings: Settings) -> list[Drift]:
    """Create missing streams, as an executor does at its start; return how existing ones differ.

    Differences are left to `airflow nats setup`: during an upgrade two releases may disagree.

    Raises:
        TopologyMismatch: a difference that this release cannot work with.
    """
    found = await inspect(broker, settings, [])
    for wanted in streams(settings):
        if any(drift.setting == "existence" and wanted["name"] in drift.where for drift in found):
            await broker.create_stream(wanted)
    differences = [drift for drift in found if drift.setting != "existence"]
    require_changeable(differences)
    return differences


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
    existing = await broker.consumer_config(stream, wanted["durable_name"])
    differences = compare(described(lane), existing, wanted)
    if existing is None:
        await broker.create_consumer(stream, wanted)
    elif differences:
        require_changeable(differences)
        await broker.update_consumer(stream, existing | wanted)
    return differences


def require_changeable(differences: Iterable[Drift]) -> None:
    for drift in differences:
        if drift.setting in FIXED:
            raise TopologyMismatch(
                f"{drift}; NATS cannot change that in place: drain the workers, back up and "
                "delete it (`nats stream rm`, `nats consumer rm`), run `airflow nats setup`, or "
                "choose another [nats_executor] subject_prefix"
            )

"""Computes streams and consumers as they should be, in the words of NATS's JSON API. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats_executor.wire.log_parts import CHUNK_BYTES
from nats_executor.wire.names import BAND, QUEUE
from nats_executor.wire.sizes import (
    AVERAGE_BYTES,
    HEADERS_BYTES,
    HOLD_BYTES,
    HOLDS_BUCKET_BYTES,
    LETTER_BYTES,
    PRESENCE_BYTES,
    REPORT_BYTES,
    WORKERS_BUCKET_BYTES,
    WORKLOAD_BYTES,
)

if TYPE_CHECKING:
    from nats_executor.broker.port import Config
    from nats_executor.settings import Settings
    from nats_executor.wire.names import Lane, Names

__all__ = [
    "SECOND",
    "consumer_config",
    "stream_configs",
]

# NATS's JSON API counts durations in nanoseconds.
SECOND = 1_000_000_000
# A server's own default. It must not be longer than `max_age`, not even when that becomes shorter.
DUPLICATE_SECONDS = 120


def stream_configs(settings: Settings) -> list[Config]:
    """Return every stream, the buckets' included, as it should be."""
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
        common | holds_stream(names),
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
    """Return the limits of a stream that any login may fill; its oldest messages make room."""
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
        # As NATS's own tools make a bucket, but without rollups: a message with such a header would
        # empty it, and a worker's login would do to send that.
        "deny_delete": True,
        "allow_rollup_hdrs": False,
        **bounded(WORKERS_BUCKET_BYTES, PRESENCE_BYTES),
        # Long enough to see in `workers list` what died an hour ago.
        "max_age": 3600 * SECOND,
        # In memory, a restart of the server would make every worker look lost.
        "storage": "file",
    }


def holds_stream(names: Names) -> Config:
    return {
        "name": names.holds_stream,
        "description": "Airflow: queues that operators have paused (a key-value bucket)",
        "subjects": [names.holds()],
        "retention": "limits",
        "max_msgs_per_subject": 1,
        "deny_delete": True,
        "allow_rollup_hdrs": False,
        **bounded(HOLDS_BUCKET_BYTES, HOLD_BYTES),
        # A pause outlives a restart of the server, and so does its reason.
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


def consumer_config(settings: Settings, lane: Lane) -> Config:
    """Return the durable consumer of a queue's band."""
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

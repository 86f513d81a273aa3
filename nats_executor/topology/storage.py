"""Finds the stream, and the queue in it, that fills the storage. Pure."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from nats_executor.text import number_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nats_executor.broker.port import StreamInfo, Usage
    from nats_executor.wire.names import Names

__all__ = [
    "CROWDED",
    "account_findings",
    "busiest_queue",
    "is_crowded",
    "megabytes",
    "stream_finding",
]

CheckRow = dict[str, Any]

# From this share on a stream is worth a look: it is not full yet, and there is time to act.
CROWDED = 0.8
BAND_SUFFIX = re.compile(r"--b[0-9]+")


def is_crowded(info: StreamInfo, names: Names) -> bool:
    """Whether a stream is almost full; the bucket of logs is meant to be, and drops the oldest."""
    is_limited = info.max_bytes > 0 and info.name != names.logs_stream
    return is_limited and info.bytes > CROWDED * info.max_bytes


def busiest_queue(messages: Mapping[str, int], queues: Iterable[str], names: Names) -> str:
    """Say which queue most of some messages are of, '' if they are of none."""
    tokens: Counter[str] = Counter()
    for subject, number in messages.items():
        _, _, lane, *_ = [*subject.split("."), "", "", ""]
        tokens[BAND_SUFFIX.sub("", lane)] += number
    if not tokens:
        return ""
    (found, number), *_ = tokens.most_common(1)
    known = {names.consumer(queue): queue for queue in queues}
    queue = known.get(found, found)
    return f"queue {queue} has {number} of {number_of(tokens.total(), 'message')}"


def stream_finding(info: StreamInfo, busiest: str, names: Names) -> CheckRow:
    """Return the row of a stream that is almost full."""
    share = f"{info.bytes / info.max_bytes:.0%}"
    size = f"{megabytes(info.bytes)} of {megabytes(info.max_bytes)} are used ({share})"
    details = "; ".join(filter(None, [size, busiest, remedies(names)[info.name]]))
    return {"check": f"stream {info.name}", "status": "full", "details": details}


def remedies(names: Names) -> dict[str, str]:
    return {
        names.tasks_stream: "full, it takes no more workloads, which wait in the scheduler: start "
        "more workers, or raise [nats_executor] max_stream_bytes and run `airflow nats setup`",
        names.results_stream: "full, it drops its oldest reports: shorten [nats_executor] "
        "result_retention_seconds or raise max_results_bytes and run `airflow nats setup`, or run "
        "`airflow nats purge results`",
        names.dead_letters_stream: "full, it drops its oldest letters: look at them, then run "
        "`airflow nats purge dead-letters`",
        names.workers_stream: "full, it drops records of workers: find out who writes so many, "
        "change that login, and run `airflow nats purge workers`",
        names.holds_stream: "full, it drops the reasons of older pauses and the notes of older "
        "drains: run `airflow nats queues resume` for queues that need no pause, and `airflow nats "
        "workers undrain` for workers that are gone",
    }


def account_findings(usage: Usage | None, streams: Iterable[StreamInfo]) -> list[CheckRow]:
    """Return the row of an account that is almost full, with its largest stream."""
    if usage is None or usage.limit <= 0 or usage.used <= CROWDED * usage.limit:
        return []
    largest = max(streams, key=lambda info: info.bytes * info.replicas, default=None)
    of_it = (
        f"; {megabytes(largest.bytes * largest.replicas)} of that is stream {largest.name}"
        if largest
        else ""
    )
    details = (
        f"{megabytes(usage.used)} of {megabytes(usage.limit)} are used "
        f"({usage.used / usage.limit:.0%}), every replica counted{of_it}; full, it stops all "
        "queues: run `airflow nats purge`, or raise max_file of the account in the servers' "
        "configuration"
    )
    return [{"check": "account", "status": "full", "details": details}]


def megabytes(number: int) -> str:
    return f"{number / 1e6:.1f} MB"

"""A presence record counts for the worker and the queue of its key only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_executor.broker.port import Stored
from nats_executor.errors import DecodeError
from nats_executor.fleet.presences import (
    NO_QUEUE,
    Record,
    Seen,
    may_hold,
    merged,
    record_for,
    record_in,
)
from nats_executor.wire.messages import encode
from nats_executor.wire.names import Names, token
from tests.support.presences import presence_of

if TYPE_CHECKING:
    from nats_executor.wire.messages import Presence

NAMES = Names()
BOTH = presence_of("w", "a", "b")


def stored(subject: str, presence: Presence) -> Stored:
    return Stored(subject, 1, encode(presence), 5.0)


def written(presence: Presence, queue: str, at: float = 100.0) -> Record:
    return Record(record_for(presence, queue), token(queue), at)


def seen(*records: Record) -> list[Seen]:
    return merged(records, now=103.0, lost_after_seconds=10.0)


@given(st.text(), st.text())
def test_what_a_worker_writes_is_read_under_its_key_and_no_other(name: str, queue: str) -> None:
    record = record_for(presence_of(name, queue, "another"), queue)

    found = record_in(stored(NAMES.presence(queue, name), record))

    assert found == Record(record, token(queue), 5.0)
    assert found.presence.queues == [queue]
    for key in (
        NAMES.presence(queue, f"{name}-2"),
        NAMES.presence(f"{queue}-2", name),
        f"{NAMES.presence(queue, name)}.more",
    ):
        with pytest.raises(DecodeError, match="it is about"):
            record_in(stored(key, record))


def test_a_queue_that_is_served_no_more_leaves_a_record_that_claims_nothing() -> None:
    record = record_for(BOTH, "gone")

    assert record.queues == []
    assert record_in(stored(NAMES.presence("gone", "w"), record)) == Record(record, "gone", 5.0)


def test_a_deleted_record_is_none() -> None:
    assert record_in(Stored(NAMES.presence("a", "w"), 1, b"")) is None


def test_a_record_of_the_release_before_has_a_key_without_a_queue() -> None:
    found = record_in(stored(NAMES.older_presence("w"), BOTH))

    assert found == Record(BOTH, NO_QUEUE, 5.0)
    with pytest.raises(DecodeError, match="it is about worker"):
        record_in(stored(NAMES.older_presence("x"), BOTH))


def test_records_that_agree_are_one_worker() -> None:
    later = replace(BOTH, running=3, at=7.0)

    (worker,) = seen(written(BOTH, "a"), written(later, "b", 102.0), written(BOTH, "gone"))

    assert worker == Seen(replace(later, queues=["a", "b"]), 1.0, frozenset({"a", "b", "gone"}))


@pytest.mark.parametrize(
    "changes",
    [
        {"worker": "w.2"}, {"name": "v"}, {"host": "other"}, {"pid": 8}, {"started_at": 1.0},
        {"concurrency": 5}, {"draining": True}, {"paused": "memory"}, {"bands": 2},
        {"version": "2"}, {"drained_by": "eve"}, {"drain_reason": "none"},
        {"airflow": "2"}, {"python": "2"},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_that_differs_changes_nothing_of_the_others(changes: dict[str, Any]) -> None:
    """A user that may write for queue a must not make a worker of b look paused, say."""
    forged = replace(BOTH, **changes)

    workers = seen(written(BOTH, "b"), written(forged, "a", 102.0))

    assert [(w.presence, w.age) for w in workers] == [
        (replace(BOTH, queues=["b"]), 3.0), (replace(forged, queues=["a"]), 1.0)
    ]  # fmt: skip


def test_a_fresh_record_of_one_queue_does_not_revive_a_worker_in_another() -> None:
    workers = seen(written(BOTH, "b", 50.0), written(BOTH, "a"))

    assert [(w.presence.queues, w.age) for w in workers] == [(["b"], 53.0), (["a"], 3.0)]


def test_who_may_hold_a_workload_of_a_queue() -> None:
    assert may_hold(frozenset({"a", "b"}), "b")
    assert not may_hold(frozenset({"a"}), "b")
    assert may_hold(frozenset({NO_QUEUE}), "b")

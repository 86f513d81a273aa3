"""A record under any key but its own is refused, and age is judged by one bound."""

from __future__ import annotations

import pytest

from nats_executor.broker.port import Stored
from nats_executor.errors import DecodeError
from nats_executor.fleet.presences import NO_QUEUE, Record, merged, record_in
from nats_executor.wire.messages import Presence, encode

PRESENCE = Presence(
    worker="w.1",
    name="w",
    host="h",
    pid=1,
    queues=["a"],
    concurrency=1,
    running=0,
    draining=False,
    started_at=0.0,
    at=0.0,
    version="1",
)


def stored(subject: str) -> Stored:
    return Stored(subject=subject, sequence=1, body=encode(PRESENCE), at=5.0)


@pytest.mark.parametrize(
    ("subject", "queue"),
    [("$KV.airflow_workers.a.w", "a"), ("$KV.airflow_workers.w", NO_QUEUE)],
)
def test_a_record_is_read_under_its_key(subject: str, queue: str) -> None:
    assert record_in(stored(subject)) == Record(PRESENCE, queue, 5.0)


@pytest.mark.parametrize(
    "key", ["a.v", "v", "b.w", "a.a.w", "a.b.w", "b.a.w", "a.b.c.w", "a.b.a.w"]
)
def test_under_any_other_key_it_is_refused(key: str) -> None:
    with pytest.raises(DecodeError):
        record_in(stored(f"$KV.airflow_workers.{key}"))


@pytest.mark.parametrize(("ages", "rows"), [((0, 10), 1), ((0, 11), 2), ((11, 12), 1)])
def test_a_record_that_is_older_than_the_bound_is_a_row_of_its_own(
    ages: tuple[float, float], rows: int
) -> None:
    records = [Record(PRESENCE, "a", 100.0 - age) for age in ages]

    assert len(merged(records, now=100.0, lost_after_seconds=10.0)) == rows

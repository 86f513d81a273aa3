"""Every bound, literally: one that moves is another contract with the release before."""

from __future__ import annotations

from nats_executor.wire import sizes

BOUNDS = {
    "ANSWER_BYTES": 327_680,
    "AVERAGE_BYTES": 256,
    "CUT_LETTER_BYTES": 65_536,
    "HEADERS_BYTES": 4_096,
    "HISTORY_BYTES": 4_096,
    "HOLDS_BUCKET_BYTES": 4_194_304,
    "HOLD_BYTES": 16_384,
    "LETTER_BYTES": 8_392_704,
    "LOG_ENTRY_BYTES": 16_384,
    "MOST_NAMES": 100_000,
    "MOST_RECORDS": 10_000,
    "MOST_RECORD_BYTES": 8_388_608,
    "PRESENCE_BYTES": 65_536,
    "QUESTION_BYTES": 262_144,
    "REPORT_BYTES": 65_536,
    "WAITING_BYTES": 8_388_608,
    "WAITING_REPORTS": 20_000,
    "WORKERS_BUCKET_BYTES": 16_777_216,
    "WORKLOAD_BYTES": 8_388_608,
}


def test_the_bounds_are_these() -> None:
    assert {name: getattr(sizes, name) for name in sizes.__all__} == BOUNDS

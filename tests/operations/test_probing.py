"""The times of probes as rows."""

from __future__ import annotations

from nats_executor.operations.probing import Probed, hop_rows
from nats_executor.wire.scheduler_answers import ProbeResult

QUICK = ProbeResult(worker="w", publish=1.004, wait=2.0, start=3.0, run=4.0, report=5.0, whole=15.0)
SLOW = ProbeResult(worker="w", publish=10.0, whole=80.0)


def test_each_step_has_its_least_median_and_longest_time() -> None:
    rows = hop_rows([Probed("7", QUICK, 17.0), Probed("7", SLOW, 81.0), Probed("7", QUICK, 18.0)])

    assert [tuple(row.values()) for row in rows] == [
        ("command to scheduler and back", 1.0, 2.0, 3.0),
        ("publish to ack", 1.0, 1.0, 10.0),
        ("queue wait", 2.0, 2.0, 2.0),
        ("claim to process", 3.0, 3.0, 3.0),
        ("process to report", 4.0, 4.0, 4.0),
        ("report to scheduler", 5.0, 5.0, 5.0),
        ("whole", 17.0, 18.0, 81.0),
    ]
    assert list(rows[0]) == ["hop", "least_ms", "median_ms", "most_ms"]


def test_a_step_that_was_not_seen_has_no_time() -> None:
    [row] = [row for row in hop_rows([Probed("7", SLOW, 81.0)]) if row["hop"] == "queue wait"]

    assert tuple(row.values()) == ("queue wait", None, None, None)

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from nats_executor.errors import BrokerUnavailable
from nats_executor.retrying import OUTAGE_SECONDS, Outage

if TYPE_CHECKING:
    import pytest


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_says_once_what_happens_next_and_once_that_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    outage = Outage(clock)

    with caplog.at_level(logging.INFO):
        for _ in range(5):
            outage.note(BrokerUnavailable("connection refused"), "workloads stay queued")
        clock.now += 7
        outage.over()
        outage.over()

    assert [record.getMessage() for record in caplog.records] == [
        "NATS is away: connection refused; next: workloads stay queued",
        "NATS is back after 7 s",
    ]


def test_the_pauses_double_up_to_a_limit() -> None:
    clock = Clock()
    outage = Outage(clock)
    pauses = []
    for _ in range(8):
        outage.note(BrokerUnavailable("gone"), "waiting")
        start = clock.now
        while outage.is_waiting():
            clock.now += OUTAGE_SECONDS[0] / 4
        pauses.append(clock.now - start)

    assert pauses == [0.5, 1, 2, 4, 8, 15, 15, 15]
    assert max(pauses) == OUTAGE_SECONDS[1]


def test_a_recovery_ends_the_pause_and_only_one_since_the_step_that_failed() -> None:
    outage = Outage(Clock())
    for _ in range(8):
        outage.note(BrokerUnavailable("gone"), "waiting", recoveries=3)
    assert outage.is_waiting(3)

    assert not outage.is_waiting(4)

    outage.note(BrokerUnavailable("gone again"), "waiting", recoveries=4)
    assert outage.is_waiting(4)


def test_nothing_waits_without_an_outage() -> None:
    clock = Clock()
    outage = Outage(clock)
    assert not outage.is_waiting()

    outage.note(BrokerUnavailable("gone"), "waiting")
    outage.over()

    assert not outage.is_waiting()

"""When pulls end, and how long they may be silent."""

from __future__ import annotations

import pytest

from nats_executor.broker.pull_times import (
    CALM_HEARTBEAT_SECONDS,
    HEARTBEAT_SECONDS,
    PULL_SECONDS,
    PULL_TICK_SECONDS,
    pull_heartbeat_seconds,
    pull_seconds,
    silence_seconds,
)
from nats_worker.health.health import QUIET_SECONDS

START = 1_700_000_000.0


@pytest.mark.parametrize("late", [0.0, 0.001, 0.5, 1.0, 1.9375])
def test_pulls_of_one_tick_end_together(late: float) -> None:
    asked = START + late

    assert asked + pull_seconds(asked) == START + PULL_SECONDS
    assert PULL_SECONDS - PULL_TICK_SECONDS < pull_seconds(asked) <= PULL_SECONDS


@pytest.mark.parametrize(
    ("is_witnessed", "is_limited", "seconds"),
    [(True, False, 5.0), (True, True, 1.0), (False, False, 1.0), (False, True, 1.0)],
)
def test_only_a_pull_that_ends_with_its_connection_is_spoken_to_rarely(
    is_witnessed: bool, is_limited: bool, seconds: float
) -> None:
    assert pull_heartbeat_seconds(is_witnessed=is_witnessed, is_limited=is_limited) == seconds


def test_a_machine_that_is_lost_is_given_nothing_after_half_a_minute() -> None:
    assert PULL_SECONDS == 30.0


def test_a_pull_counts_as_lost_after_several_heartbeats() -> None:
    assert silence_seconds(HEARTBEAT_SECONDS) == 4.5
    assert silence_seconds(CALM_HEARTBEAT_SECONDS) == 10.5


def test_a_worker_whose_pulls_are_spoken_to_is_not_quiet() -> None:
    assert QUIET_SECONDS >= 2 * CALM_HEARTBEAT_SECONDS

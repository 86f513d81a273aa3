"""A stream's leader tells of the other servers that keep it."""

from __future__ import annotations

from typing import Any

import pytest

from nats_executor.broker.quorum import AWAY_SECONDS, Replication, replication

SINCE, AT = "2026-01-01T00:00:00Z", "2026-01-01T00:00:20Z"


def found(*others: dict[str, Any], leader: str = "n1") -> Replication:
    cluster = {"name": "c", "leader": leader, "leader_since": SINCE, "replicas": list(others)}
    return replication({"cluster": cluster, "ts": AT})


@pytest.mark.parametrize(
    ("entry", "seconds"),
    [
        ({"current": True, "active": 250_000_000}, 0.25),
        ({"current": False, "active": 7_000_000_000}, 7.0),
        ({"current": True}, 0.0),
        ({"current": True, "active": 0}, 0.0),
        ({"current": False}, 20.0),  # the leader has never heard from it
        ({}, 20.0),
    ],
)
def test_how_long_a_server_is_silent(entry: dict[str, Any], seconds: float) -> None:
    (peer,) = found({"name": "n2"} | entry).peers

    assert peer.silent_seconds == seconds
    assert peer.is_away is (seconds > AWAY_SECONDS)


def test_a_server_that_gives_no_times_counts_as_heard() -> None:
    cluster = {"leader": "n1", "replicas": [{"name": "n2", "current": False}]}

    (peer,) = replication({"cluster": cluster}).peers

    assert peer.silent_seconds == 0.0


@pytest.mark.parametrize(
    ("away", "leader", "has_quorum"),
    [(0, "n1", True), (1, "n1", True), (2, "n1", False), (0, "", False)],
)
def test_more_than_half_make_a_quorum(away: int, leader: str, *, has_quorum: bool) -> None:
    others = [{"name": f"n{n + 2}", "current": True, "offline": n < away} for n in range(2)]

    assert found(*others, leader=leader).has_quorum is has_quorum


def test_a_single_server_has_a_quorum() -> None:
    alone = replication({})

    assert alone.has_quorum
    assert not alone.is_clustered
    assert alone.missing == []

"""STREAM.INFO tells of a stream's servers, and thereby when they can store something."""

from __future__ import annotations

from typing import Any

import pytest

from nats_executor.broker.quorum import Peer, Replication, no_quorum, replication, too_few_servers

AWAY, OK = Peer("away", is_offline=True), Peer("ok")


@pytest.mark.parametrize(
    ("peer", "is_away"),
    [
        (Peer("a"), False),
        (Peer("a", is_offline=True), True),
        (Peer("a", silent_seconds=2.9), False),
        (Peer("a", silent_seconds=3.0), False),
        (Peer("a", silent_seconds=3.1), True),
        (Peer("a", is_current=False), False),
    ],
)
def test_a_server_is_away_when_it_is_offline_or_silent_for_three_seconds(
    peer: Peer, is_away: bool
) -> None:
    assert peer.is_away is is_away


def test_a_server_is_named_with_what_it_lacks() -> None:
    assert str(AWAY) == "away is offline"
    assert str(Peer("slow", is_current=False, lag=7)) == "slow is catching up (7 messages)"
    assert str(Peer("near", is_current=False, lag=1)) == "near is catching up (1 message)"
    assert str(Peer("new", is_current=False)) == "new is catching up (0 messages)"


@pytest.mark.parametrize(
    ("leader", "peers", "has_quorum"),
    [
        ("l", (), True),
        ("", (), False),
        ("l", (OK, OK), True),
        ("l", (OK, AWAY), True),
        ("l", (AWAY, AWAY), False),
        ("", (OK, OK), False),
        ("l", (AWAY,), False),
        ("l", (OK, OK, AWAY, AWAY), True),
        ("l", (OK, AWAY, AWAY, AWAY), False),
        ("l", (OK, OK, OK), True),
        ("l", (AWAY, OK, OK), True),
        ("l", (AWAY, AWAY, OK), False),
    ],
)
def test_more_than_half_have_to_be_in_touch(
    leader: str, peers: tuple[Peer, ...], has_quorum: bool
) -> None:
    assert Replication(leader, peers).has_quorum is has_quorum


def test_a_copy_that_is_behind_or_away_is_missing() -> None:
    behind = Peer("behind", is_current=False)

    assert Replication("l", (OK, behind, AWAY)).missing == [behind, AWAY]
    assert Replication("l", (OK, AWAY)).servers == ("away", "l", "ok")
    assert Replication("", (OK,)).servers == ("ok",)


def info(**cluster: Any) -> dict[str, Any]:
    return {"ts": "2026-01-01T00:00:10Z", "cluster": cluster}


@pytest.mark.parametrize("response", [{}, {"cluster": None}, {"cluster": {}}])
def test_a_server_without_a_cluster_leads_by_itself(response: dict[str, Any]) -> None:
    found = replication(response)

    assert found == Replication("this server", (), is_clustered=False, is_changing=False)
    assert found.has_quorum


def test_the_answer_of_a_cluster_is_read() -> None:
    response = info(
        name="c",
        leader="a",
        leader_since="2026-01-01T00:00:04Z",
        replicas=[
            {"name": "b", "current": True, "active": 1_500_000_000, "lag": 3},
            {"name": "c", "current": False, "offline": True},
            {"name": "d", "current": True},
            {},
        ],
    )

    assert replication(response) == Replication(
        "a",
        (
            Peer("b", is_current=True, silent_seconds=1.5, lag=3),
            # It has never been heard of by this leader, which leads for six seconds.
            Peer("c", is_current=False, is_offline=True, silent_seconds=6.0),
            Peer("d", is_current=True),
            Peer("", is_current=False, silent_seconds=6.0),
        ),
        is_clustered=True,
    )


@pytest.mark.parametrize("since", [{}, {"leader_since": None}, {"leader_since": ""}])
def test_without_a_time_nobody_has_been_silent(since: dict[str, Any]) -> None:
    found = replication(info(leader="a", replicas=[{"name": "b"}], **since))

    assert found.peers[0].silent_seconds == 0.0
    assert not found.is_clustered


def test_without_the_servers_clock_nobody_has_been_silent() -> None:
    cluster = {"leader": "a", "leader_since": "2026-01-01T00:00:04Z", "replicas": [{"name": "b"}]}

    assert replication({"cluster": cluster}).peers[0].silent_seconds == 0.0


def test_a_change_of_the_servers_is_told() -> None:
    assert replication(info(name="c", desired={})).is_changing
    assert not replication(info(name="c", replicas=None)).is_changing


@pytest.mark.parametrize(
    ("servers", "text"),
    [
        ((), "NATS has no quorum: more than half of its servers have to be up"),
        (("a",), "NATS has no quorum: a, the only server with this stream, is down"),
        (("a", "b"), "more than half of its servers (a, b) have to be up"),
    ],
)
def test_what_is_missing_for_a_quorum_is_told(servers: tuple[str, ...], text: str) -> None:
    assert text in str(no_quorum(servers))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (10074, "but NATS is a single server (why, NATS error 10074)"),
        (10005, "but NATS has fewer than 3 servers for it (why, NATS error 10005)"),
        (10075, "but NATS has fewer than 3 servers for it"),
        (10073, "but NATS has fewer than 3 servers for it"),
    ],
)
def test_too_few_servers_are_told_from_a_single_one(code: int, text: str) -> None:
    assert text in str(too_few_servers(3, {"err_code": code, "description": "why"}))

"""Addresses have an order in which they are tried, and a failure of all is explained."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from nats_executor.broker.servers import REMEMBERED_SECONDS, Servers, advertised_by
from nats_executor.errors import AccessDenied, BrokerError, BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

A, B, C = (f"nats://{name}:4222" for name in "abc")
INSIDE = ("nats://10.0.0.1:4222", "nats://10.0.0.2:4222", "nats://10.0.0.3:4222")
TIMEOUT = 5.0


def as_given(_: list[str]) -> None:
    """Leave the order to the test."""


def backwards(servers: list[str]) -> None:
    servers.reverse()


def away(server: str) -> BrokerError:
    return BrokerUnavailable(f"cannot reach NATS at {server}: refused; check the servers")


def refused(server: str) -> BrokerError:
    return AccessDenied(f"NATS at {server} refuses user w; check the password")


def fail(servers: Servers, server: str, *, at: float = 0.0, seconds: float = 0.0) -> None:
    servers.failed(server, away(server), began=at - seconds, now=at)


def behind_a_balancer() -> Servers:
    """One address from here; the cluster behind it advertises three that lead nowhere."""
    servers = Servers([A])
    servers.connected(A)
    servers.lost(A, INSIDE, now=0.0)
    return servers


# Which to try


@pytest.mark.parametrize(("shuffle", "order"), [(as_given, [A, B, C]), (backwards, [C, B, A])])
def test_configured_servers_are_tried_in_any_order(
    shuffle: Callable[[list[str]], None], order: list[str]
) -> None:
    assert Servers([A, B, C]).round(0.0, shuffle) == order


def test_a_dead_server_is_tried_last_for_a_minute() -> None:
    servers = Servers([A, B, C])
    fail(servers, A, at=100.0)

    assert servers.round(100.0, as_given) == [B, C, A]
    assert servers.round(99.0 + REMEMBERED_SECONDS, as_given) == [B, C, A]
    assert servers.round(100.0 + REMEMBERED_SECONDS, as_given) == [A, B, C]


def test_a_connection_that_was_lost_is_tried_after_the_others() -> None:
    """It may be a server that is stopping, or one that hangs, which costs the whole timeout."""
    servers = Servers([A, B])
    servers.connected(A)
    servers.lost(A, [], now=100.0)

    assert servers.round(100.0, as_given) == [B, A]
    servers.connected(A)
    assert servers.round(100.0, as_given) == [A, B]


def test_configured_servers_come_before_advertised_ones() -> None:
    servers = behind_a_balancer()

    assert servers.round(0.0, backwards)[0] == A


def test_one_address_that_never_answered_is_tried_in_a_round() -> None:
    """A balancer that is back after some seconds is found after one timeout, not after three."""
    servers = behind_a_balancer()
    tried = []
    for number in range(3):
        configured, *others = servers.round(number * TIMEOUT, as_given)
        assert configured == A
        tried += others
        fail(servers, others[0], at=(number + 1) * TIMEOUT, seconds=TIMEOUT)

    assert sorted(tried) == sorted(INSIDE)


def test_an_address_that_leads_nowhere_is_left_out_for_a_minute() -> None:
    servers = behind_a_balancer()
    for address in INSIDE:
        fail(servers, address, at=100.0, seconds=TIMEOUT)

    assert servers.round(101.0, as_given) == [A]
    assert servers.round(100.0 + REMEMBERED_SECONDS, as_given) == [A, INSIDE[0]]


def test_an_address_that_refuses_at_once_is_tried_in_its_turn() -> None:
    """The whole cluster is down: which of its servers is up first is not known."""
    servers = behind_a_balancer()
    turns = []
    for now in (1.0, 2.0, 3.0, 4.0):
        [_, address] = servers.round(now, as_given)
        fail(servers, address, at=now)
        turns.append(address)

    assert turns == [*INSIDE, INSIDE[0]]


def test_an_advertised_server_that_has_answered_is_one_like_the_others() -> None:
    servers = behind_a_balancer()
    servers.answered(INSIDE[1])
    fail(servers, A, at=1.0)

    assert servers.round(1.0, as_given)[:2] == [INSIDE[1], A]
    fail(servers, INSIDE[1], at=2.0, seconds=TIMEOUT)
    assert servers.round(2.0, as_given)[:2] == [A, INSIDE[1]]


def test_what_is_not_advertised_any_more_is_not_tried() -> None:
    servers = behind_a_balancer()
    servers.lost(A, INSIDE[:1], now=1.0)

    assert servers.round(1.0, as_given) == [A, INSIDE[0]]


def test_pauses_between_rounds_double_and_begin_again_with_a_connection() -> None:
    servers = Servers([A])

    def longest(_: float, limit: float) -> float:
        return limit

    assert [servers.pause(60.0, longest) for _ in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert servers.pause(1.0, longest) == 1.0
    servers.connected(A)
    assert servers.pause(60.0, longest) == 0.1


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("nats://a:4222", "nats://10.0.0.1:4222"),
        ("tls://a:4222", "tls://10.0.0.1:4222"),
        ("wss://a/nats", "wss://10.0.0.1:4222"),
        ("nats://user:secret@a:4222", "nats://user:secret@10.0.0.1:4222"),
    ],
)
def test_an_advertised_address_is_reached_as_its_server_was(server: str, expected: str) -> None:
    assert advertised_by(server, [urlsplit("nats://10.0.0.1:4222")]) == [expected]


# What is said


def test_the_first_configured_server_is_named_and_the_others_after_it() -> None:
    servers = Servers([A, B, C])
    for server in (C, B, A):
        fail(servers, server)

    assert str(servers.reason) == f"{away(A)}; tried in vain as well: {B}, {C}"


def test_a_refusal_tells_more_than_a_server_that_is_away() -> None:
    servers = Servers([A, B])
    fail(servers, A)
    servers.failed(B, refused(B), began=0.0, now=0.0)

    assert isinstance(servers.reason, AccessDenied)
    assert str(servers.reason) == f"{refused(B)}; tried in vain as well: {A}"


def test_an_address_that_nobody_configured_is_named_with_the_option_that_keeps_it_away() -> None:
    servers = behind_a_balancer()
    servers.failed(INSIDE[0], refused(INSIDE[0]), began=0.0, now=0.0)
    fail(servers, A)

    assert str(servers.reason) == (
        f"{away(A)}; and {INSIDE[0]}, which the servers advertise: set no_advertise: true in their "
        "cluster block if it cannot be reached from here"
    )


def test_a_password_in_an_address_is_not_told() -> None:
    servers = Servers([A, "nats://user:secret@b:4222"])
    fail(servers, A)
    fail(servers, "nats://user:secret@b:4222")

    assert str(servers.reason).endswith(f"tried in vain as well: {B}")


def test_an_outage_is_news_once_and_each_refusal_by_itself() -> None:
    servers = Servers([A])
    told = []
    for reason in (away(A), BrokerUnavailable("reset"), refused(A), away(A), refused(A)):
        servers.failed(A, reason, began=0.0, now=0.0)
        told.append(servers.is_news())

    assert told == [True, False, True, False, False]
    servers.connected(A)
    fail(servers, A)
    assert servers.is_news()

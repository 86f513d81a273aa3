"""The order in which addresses are tried: dead ones last, and which advertised ones at all."""

from __future__ import annotations

import pytest

from nats_executor.broker.servers import Servers
from nats_executor.errors import BrokerUnavailable

GONE = BrokerUnavailable("gone")


def as_they_are(_: list[str]) -> None:
    """Shuffle nothing."""


@pytest.mark.parametrize(
    ("now", "order"),
    [(0.0, ["b", "a"]), (59.9, ["b", "a"]), (60.0, ["a", "b"]), (61.0, ["a", "b"])],
)
def test_a_dead_address_is_tried_last_for_a_minute(now: float, order: list[str]) -> None:
    servers = Servers(["a", "b"])
    servers.failed("a", GONE, began=0.0, now=0.0)

    assert servers.round(now, as_they_are) == order


@pytest.mark.parametrize(
    ("seconds", "is_tried"), [(0.0, True), (0.49, True), (0.5, False), (2.0, False)]
)
def test_an_advertised_address_that_costs_half_a_second_is_left_out(
    seconds: float, is_tried: bool
) -> None:
    servers = Servers(["a"])
    servers.lost("a", ["b"], now=0.0)
    servers.failed("b", GONE, began=10.0 - seconds, now=10.0)

    assert ("b" in servers.round(11.0, as_they_are)) is is_tried


def test_an_advertised_address_that_was_lost_is_tried_again() -> None:
    servers = Servers(["a"])
    servers.lost("b", ["b"], now=0.0)

    assert servers.round(1.0, as_they_are) == ["a", "b"]


def test_a_pause_is_between_its_half_and_its_whole() -> None:
    servers, asked = Servers(["a"]), []

    def between(least: float, most: float) -> float:
        asked.append((least, most))
        return most

    for _ in range(7):
        servers.pause(1.5, between)

    limits = [0.1, 0.2, 0.4, 0.8, 1.5, 1.5, 1.5]
    assert asked == [(limit / 2, limit) for limit in limits]

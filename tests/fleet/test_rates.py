"""How fast workloads come and go, from two looks at the consumers."""

from __future__ import annotations

import pytest

from nats_executor.broker.port import ConsumerInfo
from nats_executor.fleet.rates import Counters, Rate, rates_between


def band(name: str, delivered: int, pending: int, queue: str = "q") -> ConsumerInfo:
    return ConsumerInfo(name, queue, 0, pending, 0, 0, 0, delivered=delivered)


EMPTY = Counters(10.0, [])


@pytest.mark.parametrize(
    ("before", "now", "rates"),
    [
        # Nothing but what workers took, nothing but what came, and both.
        ([band("a", 5, 9)], [band("a", 9, 5)], {"q": Rate(0.0, 2.0)}),
        ([band("a", 5, 5)], [band("a", 5, 9)], {"q": Rate(2.0, 0.0)}),
        ([band("a", 5, 5)], [band("a", 10, 2)], {"q": Rate(1.0, 2.5)}),
        ([band("a", 5, 5)], [band("a", 5, 5)], {"q": Rate(0.0, 0.0)}),
        # A purge takes more away than what came.
        ([band("a", 5, 50)], [band("a", 9, 0)], {"q": Rate(0.0, 2.0)}),
        # The bands of a queue, together.
        (
            [band("a", 1, 1), band("b", 7, 0), band("c", 0, 0, "other")],
            [band("a", 2, 1), band("b", 8, 2), band("c", 1, 0, "other")],
            {"q": Rate(2.0, 1.0), "other": Rate(0.5, 0.5)},
        ),
        # A band that is new, or another one of the same name: nothing is known of its queue.
        ([band("a", 1, 1)], [band("a", 2, 1), band("b", 0, 0)], {}),
        ([band("a", 3, 1)], [band("a", 2, 1)], {}),
        ([band("a", 3, 1), band("b", 0, 0, "p")], [band("b", 3, 0, "p")], {"p": Rate(1.5, 1.5)}),
        ([], [], {}),
    ],
)
def test_the_rates_of_two_seconds(
    before: list[ConsumerInfo], now: list[ConsumerInfo], rates: dict[str, Rate]
) -> None:
    assert rates_between(Counters(10.0, before), Counters(12.0, now)) == rates


@pytest.mark.parametrize(
    ("before", "now"),
    [(None, EMPTY), (EMPTY, None)]
    + [(Counters(10.0, [band("a", 1, 1)]), Counters(at, [band("a", 1, 1)])) for at in (10.0, 9.0)],
)
def test_one_look_has_no_rates(before: Counters | None, now: Counters | None) -> None:
    """And no more do two of the same moment, or of clocks that differ."""
    assert rates_between(before, now) == {}


def test_rates_have_one_decimal() -> None:
    first, last = Counters(10.0, [band("a", 0, 1)]), Counters(13.0, [band("a", 1, 1)])

    assert rates_between(first, last) == {"q": Rate(0.3, 0.3)}

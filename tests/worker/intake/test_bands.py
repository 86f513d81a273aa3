"""In which order slots ask a queue's priority bands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_worker.intake.bands import YIELD_EVERY, Ask, asks, first


@pytest.mark.parametrize(
    ("bands", "turn", "slots", "expected"),
    [
        (1, 0, 3, [Ask(0, 3)]),
        (1, YIELD_EVERY - 1, 1, [Ask(0, 1)]),
        (3, 0, 1, [Ask(2, 1), Ask(1, 1), Ask(0, 1)]),
        (3, 7, 1, [Ask(0, 1), Ask(2, 1), Ask(1, 1), Ask(0, 1)]),
        (3, 15, 1, [Ask(1, 1), Ask(2, 1), Ask(1, 1), Ask(0, 1)]),
        (3, 0, 16, [Ask(0, 1), Ask(1, 1), Ask(2, 16), Ask(1, 16), Ask(0, 16)]),
    ],
)
def test_slots_ask_the_highest_band_first_and_in_turn_a_lower_one(
    bands: int, turn: int, slots: int, expected: list[Ask]
) -> None:
    assert asks(bands, turn, slots) == expected


@given(st.integers(2, 10), st.integers(0, 10**6))
def test_no_band_starves_and_the_highest_gets_most(bands: int, start: int) -> None:
    turns = range(start, start + YIELD_EVERY * (bands - 1))

    firsts = [first(bands, turn) for turn in turns]

    assert sorted(set(firsts)) == list(range(bands))
    assert firsts.count(bands - 1) == len(turns) - (bands - 1)


@given(st.integers(1, 10), st.integers(0, 10**6), st.integers(1, 64))
def test_every_band_is_asked_for_all_that_is_left(bands: int, turn: int, slots: int) -> None:
    plan = asks(bands, turn, slots)

    assert plan[-bands:] == [Ask(b, slots) for b in reversed(range(bands))]
    assert sum(ask.most for ask in plan[:-bands]) <= slots

"""Each slot asks one band first."""

from __future__ import annotations

import pytest

from nats_worker.intake.bands import Ask, asks


@pytest.mark.parametrize(
    ("turn", "slots", "firsts"),
    [
        (0, 7, []),
        (0, 8, [Ask(0, 1)]),
        (6, 1, []),
        (6, 2, [Ask(0, 1)]),
        (7, 1, [Ask(0, 1)]),
        (8, 7, []),
        (15, 1, [Ask(1, 1)]),
        (15, 2, [Ask(1, 1)]),
        (14, 2, [Ask(1, 1)]),
        (0, 16, [Ask(0, 1), Ask(1, 1)]),
        (0, 24, [Ask(0, 2), Ask(1, 1)]),
    ],
)
def test_every_eighth_slot_asks_a_lower_band_first(
    turn: int, slots: int, firsts: list[Ask]
) -> None:
    rest = [Ask(2, slots), Ask(1, slots), Ask(0, slots)]

    assert asks(3, turn, slots) == firsts + rest


@pytest.mark.parametrize("turn", range(9))
def test_one_band_alone_is_asked_once(turn: int) -> None:
    assert asks(1, turn, 4) == [Ask(0, 4)]

"""The weight of a task, and which band each slot asks first."""

from __future__ import annotations

from typing import Any

import pytest

from nats_worker.intake.bands import Ask, asks
from nats_worker.intake.slots import weight_of


@pytest.mark.parametrize(
    ("slots", "weight"),
    [(1, 1), (2, 2), (3, 3), (0, 1), (-1, 1), (True, 1), (2.0, 1), ("2", 1), (None, 1)],
)
def test_a_task_weighs_its_pool_slots(slots: Any, weight: int) -> None:
    assert weight_of({"ti": {"pool_slots": slots}}) == weight


@pytest.mark.parametrize("body", [{}, {"ti": None}, {"ti": []}, {"ti": {}}])
def test_what_has_no_slots_weighs_one(body: dict[str, Any]) -> None:
    assert weight_of(body) == 1


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

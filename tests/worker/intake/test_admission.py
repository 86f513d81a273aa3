"""Starts at a time: as many as processors, more while these are idle, and never none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_worker.intake.admission import BUSY_SHARE, Admission
from nats_worker.intake.slots import Slots

IDLE, BUSY = 0.0, 1.0


def admitted(admission: Admission, waited: float | None) -> int:
    """Start all that may start after a look at the processors, and return how many those are."""
    admission.note_pressure(waited)
    count = admission.openings
    for _ in range(count):
        admission.begin()
    return count


@pytest.mark.parametrize(
    ("most", "processors", "starting", "openings"),
    [
        (None, 2, 0, 2),
        (None, 2, 1, 1),
        (None, 2, 2, 0),
        (None, 2, 3, 0),
        (None, 0, 0, 1),
        (5, 2, 0, 5),
        (5, 2, 4, 1),
        (5, 2, 5, 0),
        (1, 64, 0, 1),
    ],
)
def test_as_many_start_as_there_are_processors_or_as_the_setting_says(
    most: int | None, processors: int, starting: int, openings: int
) -> None:
    admission = Admission(most, processors)
    for _ in range(starting):
        admission.begin()

    assert admission.openings == openings


@pytest.mark.parametrize(
    ("looks", "admissions"),
    [
        ([IDLE, IDLE, IDLE], [2, 2, 2]),
        ([BUSY, BUSY], [0, 0]),
        ([None, IDLE], [0, 2]),
        ([BUSY_SHARE, BUSY_SHARE - 0.01], [0, 2]),
        ([IDLE, BUSY, IDLE, IDLE], [2, 0, 2, 2]),
    ],
)
def test_idle_processors_get_more_starts_look_by_look(
    looks: list[float | None], admissions: list[int]
) -> None:
    """A start that waits for a far API server uses no processor, so others may begin."""
    admission = Admission(None, 2)
    admission.begin()
    admission.begin()

    assert [admitted(admission, waited) for waited in looks] == admissions


def test_the_room_of_an_idle_moment_goes_with_the_starts_that_it_let_in() -> None:
    """The next burst begins with one for each processor again."""
    admission = Admission(None, 2)
    for waited in (None, IDLE, IDLE):
        admitted(admission, waited)

    for _ in range(6):
        admission.end()

    assert (admission.starting, admission.openings) == (0, 2)


STEPS = st.one_of(
    st.sampled_from(["begin", "end"]),
    st.one_of(st.none(), st.floats(0, 1)),
)


@given(st.one_of(st.none(), st.integers(1, 9)), st.integers(0, 9), st.lists(STEPS, max_size=60))
def test_something_may_start_whenever_nothing_does(
    most: int | None, processors: int, steps: list[str | float | None]
) -> None:
    admission = Admission(most, processors)
    for step in steps:
        if step == "begin":
            if admission.openings:
                admission.begin()
        elif step == "end":
            if admission.starting:
                admission.end()
        else:
            assert not isinstance(step, str)
            admission.note_pressure(step)

        assert admission.openings >= 0
        assert admission.starting or admission.openings
        if most is not None:
            assert admission.starting <= most
            assert admission.openings == most - admission.starting


def test_a_slot_counts_as_free_only_while_another_may_start() -> None:
    slots = Slots(4, Admission(2))
    holdings = [slots.take(), slots.take()]

    free = [slots.free]
    slots.end_start(holdings[0])
    slots.end_start(holdings[0])
    free.append(slots.free)
    slots.give(holdings[1])
    slots.end_start(holdings[1])
    free.append(slots.free)

    assert free == [0, 1, 2]
    assert slots.used == 1


def test_a_heavy_workload_that_waits_for_slots_is_not_in_its_start() -> None:
    slots = Slots(2, Admission(1))
    light = slots.take()
    slots.end_start(light)
    heavy = slots.take(2)

    starting = [slots.admission.starting]
    slots.give(light)
    starting.append(slots.admission.starting)
    slots.give(heavy)

    assert [*starting, slots.admission.starting] == [0, 1, 0]

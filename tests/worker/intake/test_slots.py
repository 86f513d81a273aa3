"""Slots: never more than there are, and a heavy workload gets its own in the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_worker.intake.admission import Admission
from nats_worker.intake.slots import Holding, Slots

MEMORY, STARTS = "memory", "starts"


def test_a_workload_takes_its_weight_and_gives_it_back_once() -> None:
    slots = Slots(4)

    holding = slots.take(3)
    assert (holding.held, slots.used, slots.free) == (3, 3, 1)

    slots.give(holding)
    slots.give(holding)
    assert (slots.used, slots.free) == (0, 4)


def test_a_weight_above_the_concurrency_takes_all() -> None:
    slots = Slots(4)

    assert slots.take(10**30).held == 4
    assert slots.free == 0


def test_what_does_not_fit_takes_all_that_is_free_until_it_fits() -> None:
    slots = Slots(4)
    light = [slots.take() for _ in range(3)]

    heavy = slots.take(3)
    assert (heavy.held, heavy.settled.is_set(), slots.free) == (0, False, 0)
    slots.give(light[0])
    assert (heavy.held, slots.free) == (0, 0)
    slots.give(light[1])

    assert (heavy.held, heavy.settled.is_set()) == (3, True)
    assert (slots.used, slots.kept) == (4, None)


def test_nothing_is_taken_while_no_slot_is_free() -> None:
    slots = Slots(2)
    slots.take()
    slots.take(2)

    with pytest.raises(ValueError, match="no slot is free"):
        slots.take()


def test_what_is_kept_may_give_up() -> None:
    slots = Slots(2)
    slots.take()
    kept = slots.take(2)

    slots.give(kept)

    assert (kept.held, kept.settled.is_set(), slots.free) == (0, True, 1)


def test_fewer_slots_take_nothing_from_anybody() -> None:
    slots = Slots(4)
    holdings = [slots.take() for _ in range(4)]

    slots.resize(2)
    for free in (0, 0, 1):
        slots.give(holdings.pop())
        assert slots.free == free


def test_what_is_kept_fits_when_the_worker_shrinks_below_its_weight() -> None:
    """It would wait for ever if it still asked for the four slots of before."""
    slots = Slots(4)
    light = slots.take()
    kept = slots.take(4)

    slots.resize(2)
    held = [kept.held]
    slots.give(light)

    assert [*held, kept.held] == [0, 2]


def test_more_slots_seat_what_is_kept() -> None:
    slots = Slots(4)
    slots.take(2)
    kept = slots.take(3)

    slots.resize(5)

    assert (kept.held, slots.free) == (3, 0)


def test_a_pause_frees_nothing_and_ends() -> None:
    slots = Slots(2)
    holding = slots.take()

    slots.pause(MEMORY)
    free = [slots.free]
    slots.give(holding)
    free.append(slots.free)
    slots.resume(MEMORY)

    assert [*free, slots.free] == [0, 0, 2]


def test_a_pause_does_not_seat_what_is_kept_either() -> None:
    slots = Slots(2)
    light = slots.take()
    kept = slots.take(2)

    slots.pause(MEMORY)
    slots.give(light)
    held = [kept.held]
    slots.resume(MEMORY)

    assert [*held, kept.held] == [0, 2]


def test_a_pause_for_two_reasons_ends_with_the_second() -> None:
    slots = Slots(2)

    free = []
    for change in (slots.pause, slots.resume):
        for why in (MEMORY, STARTS, STARTS):
            change(why)
            free.append(slots.free)

    assert free == [0, 0, 0, 0, 2, 2]


def test_on_trial_is_one_workload_until_all_is_known_about_it() -> None:
    slots = Slots(4)
    earlier = slots.take()

    slots.limit(is_on_trial=True)
    free = [slots.free]
    trial = slots.take()
    free.append(slots.free)
    slots.conclude(earlier)
    slots.give(trial)
    free.append(slots.free)
    slots.conclude(trial)

    assert [*free, slots.free] == [1, 0, 0, 1]


def test_a_trial_that_is_over_lets_all_in_beside_it() -> None:
    slots = Slots(4)
    slots.limit(is_on_trial=True)
    slots.take()

    slots.limit(is_on_trial=False)

    assert slots.free == 3


def test_the_next_trial_does_not_wait_for_the_one_before() -> None:
    """A workload that runs for days showed that workloads can start, as long as it was the last."""
    slots = Slots(4)
    for is_on_trial in (True, False, True):
        slots.limit(is_on_trial=is_on_trial)
        free = slots.free
        slots.take()

    assert free == 1
    assert slots.free == 0


def test_no_slot_is_free_for_a_trial_on_a_full_worker() -> None:
    slots = Slots(1)
    holding = slots.take()
    slots.limit(is_on_trial=True)

    free = [slots.free]
    slots.conclude(holding)

    assert [*free, slots.free] == [0, 1]


@pytest.mark.anyio
@pytest.mark.parametrize("change", ["give", "resize", "resume"])
async def test_whoever_waits_for_a_free_slot_wakes_up(change: str) -> None:
    slots = Slots(1)
    holding = slots.take()
    if change == "resume":
        slots.give(holding)
        slots.pause(MEMORY)
    waiting = asyncio.create_task(slots.one_free())
    await asyncio.sleep(0)
    assert not waiting.done()

    {
        "give": lambda: slots.give(holding),
        "resize": lambda: slots.resize(2),
        "resume": lambda: slots.resume(MEMORY),
    }[change]()

    await asyncio.wait_for(waiting, 5)


@dataclass
class Crowd:
    """A worker's workloads, in any order of events; `holdings` in the order of their arrival."""

    slots: Slots
    holdings: list[Holding] = field(default_factory=list)

    def arrive(self, weight: int) -> None:
        if self.slots.free:
            self.holdings.append(self.slots.take(weight))

    def begin(self, number: int) -> None:
        if self.holdings:
            self.slots.end_start(self.holdings[number % len(self.holdings)])

    def end(self, number: int) -> None:
        running = [holding for holding in self.holdings if holding.held]
        if running:
            holding = running[number % len(running)]
            self.holdings.remove(holding)
            self.slots.conclude(holding)

    def check(self, was_used: int) -> None:
        slots = self.slots
        assert slots.used == sum(holding.held for holding in self.holdings)
        assert slots.used <= max(slots.concurrency, was_used)
        starting = [holding for holding in self.holdings if holding.is_starting]
        assert slots.admission.starting == len(starting)
        assert all(holding.held for holding in starting)
        waiting = [holding for holding in self.holdings if not holding.held]
        assert waiting == ([slots.kept] if slots.kept else [])
        if waiting and not slots.pauses:
            vacant = slots.concurrency - slots.used
            assert vacant < min(waiting[0].weight, slots.concurrency), "it fits and waits"
            assert slots.free == 0, "another one could overtake it"
        if slots.is_on_trial:
            assert slots.free <= (slots.trial is None)


STEPS = st.one_of(
    st.tuples(st.just("arrive"), st.integers(1, 12)),
    st.tuples(st.just("begin"), st.integers(0, 20)),
    st.tuples(st.just("end"), st.integers(0, 20)),
    st.tuples(st.just("resize"), st.integers(1, 8)),
    st.tuples(st.sampled_from(["pause", "resume"]), st.sampled_from([MEMORY, STARTS])),
    st.tuples(st.just("limit"), st.booleans()),
)


ADMISSIONS = st.one_of(
    st.none(), st.builds(Admission, st.one_of(st.none(), st.integers(1, 4)), st.integers(1, 4))
)


@given(st.integers(1, 8), ADMISSIONS, st.lists(STEPS, max_size=60))
def test_no_order_of_events_overfills_a_worker_or_keeps_anybody_out(
    concurrency: int, admission: Admission | None, steps: list[tuple[str, Any]]
) -> None:
    """And once everything that runs has ended, no workload waits and every slot may be taken."""
    slots = Slots(concurrency, admission)
    crowd = Crowd(slots)
    for step, value in steps:
        was_used = slots.used
        if step in {"arrive", "begin", "end"}:
            getattr(crowd, step)(value)
        elif step == "limit":
            slots.limit(is_on_trial=value)
        else:
            getattr(slots, step)(value)
        crowd.check(was_used)

    for why in (MEMORY, STARTS):
        slots.resume(why)
    for _ in range(len(crowd.holdings)):
        assert any(holding.held for holding in crowd.holdings), "they wait for each other"
        crowd.end(0)
    slots.limit(is_on_trial=False)
    assert (slots.used, slots.kept, slots.admission.starting) == (0, None, 0)
    assert slots.free == min(slots.concurrency, slots.admission.openings)


@given(st.integers(2, 8), st.data())
def test_a_heavy_workload_waits_only_for_those_that_ran_before_it(
    concurrency: int, data: st.DataObject
) -> None:
    """Light ones that arrive all the time do not overtake it."""
    crowd = Crowd(Slots(concurrency))
    for _ in range(data.draw(st.integers(1, concurrency - 1))):
        crowd.arrive(1)
    before = len(crowd.holdings)
    crowd.arrive(concurrency)
    heavy = crowd.holdings[-1]

    for ended in range(1, before + 1):
        assert not heavy.held
        crowd.end(data.draw(st.integers(0, 20)))
        for _ in range(concurrency):
            crowd.arrive(1)
        assert len(crowd.holdings) == before - ended + 1

    assert heavy.held == concurrency

"""A claim keeps the earlier claimants, and a report may have nothing to add to the last one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from nats_executor.wire.messages import Report, State
from nats_worker.delivery.claims import Claim, Exhausted, decide, is_void

if TYPE_CHECKING:
    from collections.abc import Sequence

OURS, OTHERS, ANOTHER = "me.1", "other.1", "a.1"


def said(
    state: State, worker: str = OTHERS, attempt: int = 1, predecessors: list[str] | None = None
) -> Report:
    return Report(
        dispatch_id="d1",
        queue="default",
        state=state,
        kind="k",
        key=[],
        worker=worker,
        worker_name=worker.partition(".")[0],
        attempt=attempt,
        predecessors=predecessors or [],
    )


def decided(last: Report, most: int = 99) -> object:
    return decide(last, 9, worker=OURS, is_alive=False, max_attempts=most)


def test_the_last_ten_claimants_are_kept() -> None:
    names = [f"w{number}" for number in range(12)]
    kept = decided(said(State.RELEASED, "w12.1", predecessors=names))

    assert isinstance(kept, Claim)
    assert kept.predecessors == tuple(f"w{number}" for number in range(3, 13))
    assert kept.predecessor == "w12"


def test_the_first_claim_has_no_predecessor() -> None:
    assert Claim(0, 1).predecessor == ""
    assert Claim(0, 1) == Claim(0, 1, (), "", 0)


@pytest.mark.parametrize("names", [["a"], ["z"], ["a", "z", "a"], []])
def test_a_claimant_of_any_name_is_kept_beside_others(names: list[str]) -> None:
    kept = decided(said(State.CLAIMED, "m.1", predecessors=names))

    assert isinstance(kept, Claim)
    assert kept.predecessors == (*names, "m")


@pytest.mark.parametrize(("attempt", "is_last"), [(2, False), (3, True), (4, True)])
def test_the_number_of_claims_is_bounded(attempt: int, is_last: bool) -> None:
    result = decided(said(State.CLAIMED, attempt=attempt), most=3)

    assert isinstance(result, Exhausted if is_last else Claim)


FINAL = [state for state in State if state.is_final]
PASSING = [state for state in State if not state.is_final]


def verdicts(worker: str, lasts: Sequence[State]) -> set[tuple[State, State]]:
    """Return which pairs (report, last one) have nothing to add for a claimant."""
    return {
        (state, last)
        for state, last in itertools.product(State, lasts)
        if is_void(state, said(last, worker), worker=OURS)
    }


def test_after_an_own_end_nothing_counts() -> None:
    assert verdicts(OURS, FINAL) == set(itertools.product(State, FINAL))


@pytest.mark.parametrize("worker", [OTHERS, ANOTHER])
def test_after_another_ones_end_only_an_end_in_place_of_a_drop_counts(worker: str) -> None:
    counts = {(state, State.DROPPED) for state in FINAL}

    assert verdicts(worker, FINAL) == set(itertools.product(State, FINAL)) - counts


def test_before_an_end_an_own_report_counts_unless_it_is_there_already() -> None:
    own = [state for state in PASSING if state is not State.RENEWED]

    assert verdicts(OURS, own) == {(state, state) for state in own}


@pytest.mark.parametrize("worker", [OURS, OTHERS])
def test_after_a_renewal_only_an_end_counts(worker: str) -> None:
    assert verdicts(worker, [State.RENEWED]) == {(state, State.RENEWED) for state in PASSING}


@pytest.mark.parametrize("worker", [OTHERS, ANOTHER])
def test_in_another_ones_claim_only_an_end_counts(worker: str) -> None:
    assert verdicts(worker, PASSING) == set(itertools.product(PASSING, PASSING))

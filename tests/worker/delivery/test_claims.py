from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_executor.wire.messages import Kind, Report, State
from nats_worker.delivery.claims import (
    Claim,
    Decision,
    Done,
    Exhausted,
    Held,
    Lost,
    Unanswered,
    decide,
    is_claimed,
)


def said(state: State, worker: str = "other.1", **changes: object) -> Report:
    made = Report(
        dispatch_id="d1",
        queue="default",
        state=state,
        kind=Kind.TASK,
        key=[],
        worker=worker,
        worker_name=worker.partition(".")[0],
        attempt=1,
        pid=77,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def decision(last: Report | None, *, is_alive: bool = False, sequence: int = 9) -> Decision:
    return decide(last, sequence, worker="me.1", is_alive=is_alive, max_attempts=3)


def test_the_first_delivery_expects_that_nobody_has_reported() -> None:
    assert decision(None, sequence=0) == Claim(0, attempt=1)


def test_an_unreadable_history_is_claimed_over() -> None:
    assert decision(None, sequence=9) == Claim(9, attempt=1)


@pytest.mark.parametrize(
    ("last", "is_ours"),
    [
        (said(State.CLAIMED, "me.1", attempt=2), True),
        (said(State.CLAIMED, "me.1", attempt=1), False),  # one that we have given up since
        (said(State.CLAIMED, "other.1", attempt=2), False),
        (said(State.RENEWED, "me.1", attempt=2), False),
        (None, False),  # unreadable, or the stream was emptied
    ],
)
def test_a_claim_without_an_answer_is_known_by_the_last_report(
    last: Report | None, is_ours: bool
) -> None:
    assert is_claimed(last, worker="me.1", attempt=2) is is_ours


@pytest.mark.parametrize("state", [s for s in State if s.is_final])
@pytest.mark.parametrize("is_alive", [True, False])
def test_what_is_over_is_only_acked(state: State, is_alive: bool) -> None:
    assert decision(said(state), is_alive=is_alive) == Done()


@pytest.mark.parametrize("state", [State.CLAIMED, State.RUNNING])
def test_a_living_workers_claim_is_respected(state: State) -> None:
    assert decision(said(state), is_alive=True) == Held("other")


def test_a_dead_workers_unstarted_claim_is_taken_over_and_airflow_decides() -> None:
    assert decision(said(State.CLAIMED)) == Claim(9, attempt=2, predecessors=("other",))


def test_a_dead_workers_running_task_is_lost() -> None:
    last = said(State.RUNNING)

    assert decision(last) == Lost(9, last)


def test_an_own_claim_whose_answer_was_lost_is_claimed_again() -> None:
    assert decision(said(State.CLAIMED, "me.1")) == Claim(9, attempt=2, predecessors=("me",))


def test_what_was_released_may_be_claimed() -> None:
    assert decision(said(State.RELEASED), is_alive=True) == Claim(9, 2, ("other",))


def test_an_expired_token_waits_for_its_renewal() -> None:
    expired = said(State.EXPIRED)

    assert decision(expired) == Unanswered(expired)


def test_a_renewed_token_is_used_and_costs_no_attempt() -> None:
    last = said(State.RENEWED, attempt=3, token="new", generation=2)

    assert decision(last) == Claim(9, attempt=3, token="new", generation=2)


@pytest.mark.parametrize("state", [State.CLAIMED, State.RELEASED])
def test_after_max_attempts_it_is_set_aside(state: State) -> None:
    assert decision(said(state, attempt=3)) == Exhausted(9, 3, ("other",))


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Claim(1, 1, token="secret"))


states = st.sampled_from([None, *State])


@given(states, st.booleans(), st.booleans(), st.integers(1, 5))
def test_two_workers_never_both_take_what_may_be_running(
    state: State | None, is_mine: bool, is_alive: bool, attempt: int
) -> None:
    """A claim expects the very sequence that its worker has seen, so only one of two can win."""
    worker = "me.1" if is_mine else "other.1"
    last = said(state, worker, attempt=attempt) if state else None
    result = decision(last, is_alive=is_alive)

    if isinstance(result, (Claim, Lost, Exhausted)):
        assert result.expected_last == 9
    if state is State.RUNNING:
        assert not isinstance(result, (Claim, Exhausted))
    if last and last.state in {State.CLAIMED, State.RUNNING} and is_alive and not is_mine:
        assert isinstance(result, Held)


def test_every_combination_has_a_decision() -> None:
    for state, alive in itertools.product([None, *State], [True, False]):
        last = said(state) if state else None
        assert isinstance(decision(last, is_alive=alive), Decision)


def test_the_names_of_earlier_claimants_are_kept_once_each_time_they_change() -> None:
    last = said(State.RELEASED, "c.1", attempt=2, predecessors=["a", "b"])
    again = said(State.RELEASED, "b.1", attempt=2, predecessors=["a", "b"])

    assert decision(last) == Claim(9, 3, ("a", "b", "c"))
    assert decision(again) == Claim(9, 3, ("a", "b"))


def test_a_renewal_keeps_who_may_have_started_it() -> None:
    """The claimant died after its start was accepted and before it could say so."""
    last = said(State.RENEWED, attempt=1, token="new", predecessors=["a"])

    assert decision(last) == Claim(9, 1, ("a",), "new")


def test_what_is_given_back_keeps_its_renewed_token() -> None:
    last = said(State.RELEASED, attempt=1, token="new", generation=2)

    assert decision(last) == Claim(9, 2, ("other",), "new", 2)

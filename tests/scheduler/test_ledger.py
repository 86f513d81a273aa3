from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_executor.scheduler.ledger import (
    Dispatch,
    Ended,
    Ledger,
    Renewal,
    Returned,
    Started,
    Unwanted,
)
from nats_executor.wire.messages import Kind, Report, State


def dispatch(name: str = "d1", key: str = "key") -> Dispatch:
    return Dispatch(name, key, "default", Kind.TASK, "ti-1")


def report(state: State, name: str = "d1", **changes: object) -> Report:
    made = Report(
        dispatch_id=name,
        queue="default",
        state=state,
        kind=Kind.TASK,
        key=["dag", "task", "run", 1, -1],
        worker="w1.a",
        worker_name="w1",
        info="why",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.track(dispatch())
    return ledger


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (State.CLAIMED, None),
        (State.RUNNING, Started),
        (State.RELEASED, Returned),
        (State.EXPIRED, Renewal),
        (State.RENEWED, None),
        (State.SUCCESS, Ended),
        (State.FAILED, Ended),
        (State.DROPPED, Unwanted),
    ],
)
def test_each_state_has_one_outcome(
    ledger: Ledger, state: State, outcome: type[object] | None
) -> None:
    result = ledger.apply(report(state))

    assert type(result) is (outcome or type(None))
    assert len(ledger) == (0 if state.is_final else 1)


@pytest.mark.parametrize(
    ("coordinates", "name"), [(None, "key"), ("key", "key"), ("a_dag t try 1", "a_dag t try 1 key")]
)
def test_a_dispatch_is_named_by_where_people_find_it(coordinates: str | None, name: str) -> None:
    named = Dispatch("d1", "key", "default", Kind.TASK, "ti-1", coordinates=coordinates)

    assert named.name == name


def test_the_end_carries_what_happened(ledger: Ledger) -> None:
    ended = ledger.apply(report(State.FAILED))

    assert isinstance(ended, Ended)
    assert (ended.dispatch.key, ended.succeeded, ended.info) == ("key", False, "why")


def test_a_report_twice_changes_nothing_the_second_time(ledger: Ledger) -> None:
    ledger.apply(report(State.SUCCESS))

    assert ledger.apply(report(State.SUCCESS)) is None


def test_running_is_told_once(ledger: Ledger) -> None:
    ledger.apply(report(State.RUNNING))

    assert ledger.apply(report(State.RUNNING)) is None


def test_a_late_end_of_the_first_run_does_not_touch_the_resumed_task(ledger: Ledger) -> None:
    """Airflow uses one key again after a deferral; other executors fail the task here."""
    ledger.track(dispatch("d2"))

    assert ledger.apply(report(State.SUCCESS, "d1")) is None
    assert isinstance(ledger.apply(report(State.SUCCESS, "d2")), Ended)


def test_a_report_from_another_queue_is_not_believed(ledger: Ledger) -> None:
    assert ledger.apply(report(State.SUCCESS, queue="gpu")) is None
    assert len(ledger) == 1


def test_an_expired_token_is_renewed_whenever_it_is_reported(ledger: Ledger) -> None:
    """The answer may have got lost; it is published by compare-and-set, so never twice."""
    for generation in (0, 0, 1, 0):
        assert isinstance(ledger.apply(report(State.EXPIRED, generation=generation)), Renewal)


def test_an_older_report_than_the_renewal_changes_nothing(ledger: Ledger) -> None:
    ledger.apply(report(State.EXPIRED))

    assert ledger.apply(report(State.RUNNING)) is None
    assert isinstance(ledger.apply(report(State.RUNNING, generation=1)), Started)


def test_one_id_under_two_keys_leaves_the_later_one(ledger: Ledger) -> None:
    ledger.track(dispatch("d1", "another"))

    assert [d.key for d in ledger] == ["another"]
    assert ledger.forget("key") is None
    assert ledger.forget("another")
    assert not len(ledger)


def test_what_workers_hold_is_known(ledger: Ledger) -> None:
    ledger.track(dispatch("d2", "other"))
    ledger.apply(report(State.CLAIMED))
    ledger.apply(report(State.RUNNING, "d2"))
    assert {d.id for d in ledger.held} == {"d1", "d2"}

    ledger.apply(report(State.RELEASED))
    ledger.apply(report(State.SUCCESS, "d2"))
    assert ledger.held == []


def test_a_final_report_of_an_older_generation_still_ends_it(ledger: Ledger) -> None:
    ledger.apply(report(State.EXPIRED))

    assert isinstance(ledger.apply(report(State.SUCCESS)), Ended)


def test_what_was_forgotten_is_not_reported(ledger: Ledger) -> None:
    forgotten = ledger.forget("key")

    assert forgotten is not None
    assert forgotten.id == "d1"
    assert ledger.apply(report(State.FAILED)) is None


def test_repr_shows_what_an_operator_asks_for(ledger: Ledger) -> None:
    ledger.track(dispatch("d2", "other"))
    ledger.apply(report(State.RUNNING))

    assert repr(ledger) == "<Ledger [2 outstanding, 1 running]>"


actions = st.lists(
    st.one_of(
        st.tuples(st.just("track"), st.integers(0, 3), st.integers(0, 9)),
        st.tuples(st.sampled_from(list(State)), st.integers(0, 9), st.integers(0, 2)),
    )
)


@given(actions)
def test_every_dispatch_ends_at_most_once_and_only_while_it_is_current(
    steps: list[tuple[object, int, int]],
) -> None:
    """Against a model: the current dispatch of each key, and the set of those that ended."""
    ledger = Ledger()
    current: dict[str, str] = {}
    for what, first, second in steps:
        if what == "track":
            key, name = f"k{first}", f"d{second}"
            if name in current.values():
                continue
            ledger.track(dispatch(name, key))
            current[key] = name
        else:
            assert isinstance(what, State)
            name = f"d{first}"
            outcome = ledger.apply(report(what, name, generation=second))
            if isinstance(outcome, (Ended, Unwanted)):
                assert current.pop(str(outcome.dispatch.key)) == name
            elif what.is_final:
                assert name not in current.values()
        assert {str(d.key): d.id for d in ledger} == current


def test_a_dispatch_of_another_scheduler_has_no_times() -> None:
    dispatch = Dispatch("d", "key", "default", Kind.TASK, "d")

    assert (dispatch.sent_at, dispatch.since, dispatch.explained) == (0.0, 0.0, "")


def test_a_dispatch_is_found_by_its_id() -> None:
    ledger, dispatch = Ledger(), Dispatch("d", "key", "default", Kind.TASK, "d")
    ledger.track(dispatch)

    assert (ledger.of_id("d"), ledger.of_id("e")) == (dispatch, None)

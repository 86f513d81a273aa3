"""A new entry starts with these values; a claim has an owner and an age."""

from __future__ import annotations

import pytest

from nats_executor.scheduler.ledger import Dispatch, Ledger
from nats_executor.wire.messages import Kind, Report, State
from nats_executor.wire.names import Lane


def dispatch(**changes: object) -> Dispatch:
    return Dispatch("d1", "key", "default", Kind.TASK, "ti-1", **changes)  # type: ignore[arg-type]


def report(state: State, worker: str, attempt: int) -> Report:
    return Report(
        dispatch_id="d1",
        queue="default",
        state=state,
        kind=Kind.TASK,
        key=[],
        worker=worker,
        worker_name=worker,
        attempt=attempt,
    )


def test_a_new_dispatch_is_in_the_lowest_band_and_nobody_has_spoken_of_it() -> None:
    assert dispatch() == dispatch(
        band=0,
        coordinates=None,
        state=None,
        worker="",
        worker_name="",
        generation=0,
        attempt=0,
        held_since=0.0,
        returned_for="",
    )
    assert dispatch().lane == Lane("default", 0)
    assert dispatch(band=2).lane == Lane("default", 2)


@pytest.mark.parametrize("coordinates", ["a", "z"])
def test_coordinates_of_any_order_stand_before_the_key(coordinates: str) -> None:
    assert dispatch(coordinates=coordinates).name == f"{coordinates} key"


def test_a_ledger_holds_a_dispatch_and_not_its_twin() -> None:
    ledger, mine = Ledger(), dispatch()
    ledger.track(mine)

    assert mine in ledger
    assert dispatch() not in ledger
    assert "d1" not in ledger


CLAIMED, RUNNING, RELEASED = State.CLAIMED, State.RUNNING, State.RELEASED


@pytest.mark.parametrize(
    ("told", "since"),
    [
        ([(CLAIMED, "a", 1)], 10.0),
        ([(CLAIMED, "a", 1), (RUNNING, "a", 1)], 10.0),
        ([(CLAIMED, "a", 1), (CLAIMED, "b", 1)], 11.0),
        ([(CLAIMED, "a", 1), (CLAIMED, "a", 2)], 11.0),
        ([(CLAIMED, "a", 1), (RELEASED, "a", 1), (CLAIMED, "a", 1)], 12.0),
        ([(CLAIMED, "a", 1), (RUNNING, "a", 1), (RUNNING, "b", 2), (RUNNING, "b", 2)], 12.0),
        # The same worker's first claim after an attempt that no report told of.
        ([(CLAIMED, "", 0), (RUNNING, "", 0)], 10.0),
    ],
)
def test_a_claim_is_held_since_its_first_report(
    told: list[tuple[State, str, int]], since: float
) -> None:
    ledger, mine = Ledger(), dispatch()
    ledger.track(mine)

    for now, (state, worker, attempt) in enumerate(told, start=10):
        ledger.apply(report(state, worker, attempt), float(now))

    assert mine.held_since == since


def test_without_a_clock_a_claim_is_held_since_the_beginning() -> None:
    ledger, mine = Ledger(), dispatch(held_since=7.0)
    ledger.track(mine)

    ledger.apply(report(CLAIMED, "a", 1))

    assert mine.held_since == 0.0


def test_a_ledger_tells_how_much_of_it_runs() -> None:
    ledger = Ledger()
    for number, state in enumerate((None, State.RUNNING, State.CLAIMED)):
        ledger.track(Dispatch(f"d{number}", number, "default", Kind.TASK, "ti", state=state))

    assert repr(ledger) == "<Ledger [3 outstanding, 1 running]>"

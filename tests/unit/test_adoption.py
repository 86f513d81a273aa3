from __future__ import annotations

import pytest

from nats_executor.adoption import Evidence, can_adopt
from nats_executor.messages import Kind, Report, State


def last(state: State) -> Report:
    return Report(
        dispatch_id="d1",
        queue="default",
        state=state,
        kind=Kind.TASK,
        key=[],
        worker="w1.a",
        worker_name="w1",
    )


@pytest.mark.parametrize("state", [None, *State])
@pytest.mark.parametrize("is_in_stream", [True, False])
def test_what_runs_is_always_kept(state: State | None, is_in_stream: bool) -> None:
    """Un-adopted it would be queued again and run twice until its next heartbeat."""
    evidence = Evidence(last(state) if state else None, is_in_stream)

    assert can_adopt(is_waiting=False, evidence=evidence)


@pytest.mark.parametrize("state", [None, *State])
def test_what_is_in_the_stream_is_kept_unless_airflow_has_refused_it(state: State | None) -> None:
    evidence = Evidence(last(state) if state else None, is_in_stream=True)

    assert can_adopt(is_waiting=True, evidence=evidence) is (state is not State.DROPPED)


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (None, False),  # never sent, or lost with the broker's disk: absence is proof
        (State.RELEASED, False),
        (State.EXPIRED, False),
        (State.RENEWED, False),
        (State.DROPPED, False),
        (State.CLAIMED, True),
        (State.RUNNING, True),
        (State.SUCCESS, True),
        (State.FAILED, True),
    ],
)
def test_what_waits_and_is_not_in_the_stream_is_kept_if_a_worker_has_it(
    state: State | None, kept: bool
) -> None:
    evidence = Evidence(last(state) if state else None, is_in_stream=False)

    assert can_adopt(is_waiting=True, evidence=evidence) is kept


def test_everything_is_kept_while_the_broker_cannot_be_asked() -> None:
    assert can_adopt(is_waiting=True, evidence=None)

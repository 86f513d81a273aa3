from __future__ import annotations

import pytest

from nats_executor.scheduler.evidence import Evidence, can_adopt
from nats_executor.wire.messages import Kind, Report, State


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
@pytest.mark.parametrize("is_in_stream", [True, False])
def test_what_waits_is_kept_unless_airflow_has_refused_it(
    state: State | None, is_in_stream: bool
) -> None:
    """Given back it would lose a try; where the broker has nothing it is sent instead."""
    evidence = Evidence(last(state) if state else None, is_in_stream)

    assert can_adopt(is_waiting=True, evidence=evidence) is (state is not State.DROPPED)


@pytest.mark.parametrize(
    ("state", "lost"),
    [
        (None, True),  # never sent, or lost with the broker's disk: absence is proof
        (State.RELEASED, True),
        (State.EXPIRED, True),
        (State.RENEWED, True),
        (State.DROPPED, False),
        (State.CLAIMED, False),
        (State.RUNNING, False),
        (State.SUCCESS, False),
        (State.FAILED, False),
    ],
)
def test_what_has_no_message_is_lost_unless_a_worker_has_or_had_it(
    state: State | None, lost: bool
) -> None:
    report = last(state) if state else None

    assert Evidence(report, is_in_stream=False).is_lost is lost
    assert not Evidence(report, is_in_stream=True).is_lost


def test_everything_is_kept_while_the_broker_cannot_be_asked() -> None:
    assert can_adopt(is_waiting=True, evidence=None)


def test_without_a_report_nothing_is_over() -> None:
    assert Evidence(None, is_in_stream=True).is_over is False

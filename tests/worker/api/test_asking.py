"""Asking for a start: when to ask again, when never, and what a stop may still prevent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_worker.api.answers import Answer
from nats_worker.api.asking import Asking, TooLate, heartbeat_patience, until_known

GONE = Answer("/run", 404, is_error_body=True, detail={"reason": "not_found"})
PROXY = Answer("/run", 404)
LOST = Answer("/run")
REACH = 20.0


class Failed(Exception):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer


def answer_of(exc: BaseException) -> Answer | None:
    return exc.answer if isinstance(exc, Failed) else None


@dataclass
class Line:
    """A server on which requests are carried out, or not, and answered, or not.

    Attributes:
        script: for each request what becomes of it: whether it leaves, whether it is carried out,
            and the answer; None is a good one, and what follows the last one.
        stop_at: the request before which the worker asks to stop.
    """

    script: list[Any]
    stop_at: int = 1000
    now: float = 0.0
    asked: int = 0
    is_accepted: bool = False
    told: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.asking = Asking(
            lambda: self.told.append(self.now), start_by=1e9, reach_seconds=REACH, clock=self.clock
        )

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def ask(self) -> str:
        self.asked += 1
        if self.asked == self.stop_at:
            self.asking.stop()
        leaves, carried_out, answer = self.script.pop(0) if self.script else (True, True, None)
        if leaves:
            self.asking.sending()
            self.is_accepted |= carried_out
        if answer:
            raise Failed(answer)
        return "yes"

    def start(self) -> str:
        found: str = until_known(
            self.ask, self.asking, answer_of, clock=self.clock, sleep=self.sleep
        )
        return found


def test_an_answer_that_is_lost_is_asked_for_again() -> None:
    line = Line([(True, True, LOST)] * 30)

    assert line.start() == "yes"
    assert line.asked == 31
    assert line.told == [0.0]


def test_what_cannot_be_sent_is_given_up_after_a_while() -> None:
    line = Line([(False, False, LOST)] * 1000)

    with pytest.raises(Failed):
        line.start()
    assert REACH <= line.now < REACH + 5
    assert line.told == []


def test_a_lost_answer_outlasts_every_connection_that_cannot_be_made_after_it() -> None:
    line = Line([(True, False, LOST)] + [(False, False, LOST)] * 1000)

    assert line.start() == "yes"
    assert line.now > 10 * REACH


@pytest.mark.parametrize("answer", [GONE, PROXY])
def test_a_first_refusal_ends_it(answer: Answer) -> None:
    line = Line([(True, False, answer)])

    with pytest.raises(Failed):
        line.start()
    assert line.asked == 1


def test_the_execution_apis_refusal_ends_it_whatever_was_before() -> None:
    line = Line([(True, True, LOST), (True, False, PROXY), (True, False, GONE)])

    with pytest.raises(Failed) as failed:
        line.start()
    assert failed.value.answer is GONE


def test_another_error_is_nobodys_answer() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        until_known(fail, Line([]).asking, answer_of)


def test_nothing_leaves_after_its_time() -> None:
    asking = Asking(lambda: None, start_by=1.0, reach_seconds=REACH, clock=lambda: 1.5)

    with pytest.raises(TooLate):
        asking.sending()


def test_a_worker_is_told_before_it_could_be_too_late() -> None:
    """Or it might give up what is on its way."""
    said: list[str] = []
    asking = Asking(
        lambda: said.append("asked"),
        start_by=1.0,
        reach_seconds=REACH,
        clock=lambda: 1.5 if said else 0.5,
    )

    with pytest.raises(TooLate):
        asking.sending()
    assert said == ["asked"]


def test_a_signal_after_the_answer_changes_nothing() -> None:
    line = Line([])
    line.start()

    line.asking.stop()


requests = st.sampled_from(
    [
        (True, True, None),
        (True, True, LOST),
        (True, False, LOST),
        (False, False, LOST),
        (True, False, PROXY),
        (True, True, Answer("/run", 502)),
    ]
)


@given(st.lists(requests, max_size=30), st.integers(1, 40))
def test_what_may_be_accepted_is_never_left(
    script: list[tuple[bool, bool, Answer | None]], stop_at: int
) -> None:
    """Whatever fails and whenever the stop comes: without a yes the server has accepted nothing."""
    line = Line(script, stop_at=stop_at)
    try:
        line.start()
    except (Failed, TooLate):
        assert not line.is_accepted
    else:
        assert line.is_accepted


@pytest.mark.parametrize(
    ("lost", "failures", "requests", "seconds"),
    [
        (300, 3, 5, 14),  # Airflow 3.3: three heartbeats of five requests
        (300, 30, 1, 2.5),  # Airflow 3.4: thirty of one
        (300, 3, 1, 15),  # never more than for any other call
        (60, 30, 1, 0),  # Airflow's own time
        (300, 0, 1, 15),  # a setting that Airflow takes
    ],
)
def test_what_waits_for_heartbeats_ends_before_the_task_is_lost(
    lost: float, failures: int, requests: int, seconds: float
) -> None:
    assert heartbeat_patience(lost, failures, requests, 5.0) == seconds
    if failures and seconds:
        assert failures * (5.0 + requests * seconds) < lost

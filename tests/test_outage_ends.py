"""After an outage nothing of it is left: neither its pauses nor what was said in it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from nats_executor.errors import AccessDenied, BrokerUnavailable, NoQuorum, StreamFull
from nats_executor.retrying import Once, Outage, pauses, persist

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_pause_after_an_outage_is_over_is_the_first_one_again() -> None:
    clock = Clock()
    outage = Outage(clock)
    for _ in range(8):
        outage.note(BrokerUnavailable("gone"), "waiting")
    outage.over()
    assert not outage.is_waiting()

    outage.note(BrokerUnavailable("gone again"), "waiting")

    clock.now = 100.49
    assert outage.is_waiting()
    clock.now = 100.5
    assert not outage.is_waiting()


def test_a_recovery_is_none_unless_one_is_told() -> None:
    outage = Outage(Clock())
    outage.note(BrokerUnavailable("gone"), "waiting")

    assert outage.is_waiting()
    assert outage.is_waiting(0)
    assert not outage.is_waiting(1)


def test_every_outage_is_told_and_a_quorum_that_is_missing_once_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    outage = Outage(clock)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            outage.note(BrokerUnavailable("no answer"), "waiting")
            outage.note(NoQuorum("1 of 3"), "waiting")
            outage.note(BrokerUnavailable("no answer"), "waiting")
            outage.note(NoQuorum("1 of 3"), "waiting")
            clock.now += 2
            outage.over()

    once = [
        "NATS is away: no answer; next: waiting",
        "NATS is away: 1 of 3; next: waiting",
        "NATS is back after 2 s",
    ]
    assert [record.getMessage() for record in caplog.records] == 2 * once


@pytest.mark.parametrize(
    ("make", "state"),
    [(StreamFull, "is full"), (AccessDenied, "denies access"), (BrokerUnavailable, "is away")],
)
def test_an_outage_is_named_by_its_cause(
    make: Callable[[str], Exception], state: str, caplog: pytest.LogCaptureFixture
) -> None:
    Outage(Clock()).note(make("why"), "waiting")

    assert f"NATS {state}: " in caplog.text


def test_pauses_double_up_to_the_longest() -> None:
    made = pauses(1.0, 5.0)

    assert [next(made) for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_hundred_things_are_remembered() -> None:
    once = Once()
    assert all(once.is_new(number) for number in range(100))
    assert not any(once.is_new(number) for number in range(100))

    assert once.is_new(100)
    assert not once.is_new(1)
    assert once.is_new(0)
    once.forget(0)
    assert once.is_new(0)
    once.forget_all()
    assert once.is_new(0)


async def test_a_step_is_repeated_until_the_broker_takes_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nats_executor.retrying.STEP_SECONDS", (0.0, 0.0))
    failures = [BrokerUnavailable("one"), BrokerUnavailable("two")]

    async def step() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    with caplog.at_level(logging.INFO):
        assert await persist(step, name="the claim") == "done"

    # Told once; what follows is for a debugger.
    assert [record.getMessage() for record in caplog.records] == [
        "the claim: one; next: asking again until it is known"
    ]


async def test_a_step_that_may_be_given_up_raises_why() -> None:
    async def step() -> None:
        raise BrokerUnavailable("gone")

    with pytest.raises(BrokerUnavailable, match="gone"):
        await persist(step, unless=lambda: True)

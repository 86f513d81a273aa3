"""After an outage nothing of it is left: neither its pauses nor what was said in it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from nats_executor import retrying
from nats_executor.errors import AccessDenied, BrokerUnavailable, NoQuorum, StreamFull
from nats_executor.pacing import pauses
from nats_executor.retrying import Once, Outage, end_task, persist

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
    outage.note(BrokerUnavailable("gone"), "waiting", recoveries=3)
    assert [outage.is_waiting(seen) for seen in (2, 3, 4)] == [False, True, False]


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
            outage.note(NoQuorum("2 of 3"), "waiting")
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
    monkeypatch.setattr("nats_executor.retrying.STEP_PAUSES", (0.0, 0.0))
    failures = [BrokerUnavailable("one"), BrokerUnavailable("two")]

    async def step() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    with caplog.at_level(logging.INFO):
        assert await persist(step, name="the claim") == "done"

    # Told once; what follows is for a debugger.
    ours = [record for record in caplog.records if record.name == "nats_executor.retrying"]
    assert [record.getMessage() for record in ours] == [
        "the claim: one; next: asking again until it is known"
    ]


async def test_a_step_that_may_be_given_up_raises_why() -> None:
    async def step() -> None:
        raise BrokerUnavailable("gone")

    with pytest.raises(BrokerUnavailable, match="gone"):
        await persist(step, unless=lambda: True)


async def test_a_step_gets_twice_the_time_with_each_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[float] = []
    slept: list[float] = []

    def timeout(seconds: float) -> contextlib.AbstractAsyncContextManager[None]:
        limits.append(seconds)
        return contextlib.nullcontext()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(retrying, "asyncio", SimpleNamespace(timeout=timeout, sleep=sleep))

    async def step() -> int:
        if len(limits) < 7:
            raise BrokerUnavailable("gone")
        return len(limits)

    assert await persist(step) == 7
    assert limits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    assert slept == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


async def test_a_task_that_swallows_cancellations_is_cancelled_until_it_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    swallowed: list[int] = []
    waits: list[float] = []
    wait = asyncio.wait

    async def noted(tasks: list[asyncio.Task[None]], timeout: float) -> object:
        waits.append(timeout)
        return await wait(tasks, timeout=0.01)

    async def stubborn() -> None:
        while len(swallowed) < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed.append(1)
        await asyncio.sleep(60)

    monkeypatch.setattr(asyncio, "wait", noted)
    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)

    await end_task(task)

    assert task.cancelled()
    assert len(swallowed) == 2
    assert set(waits) == {0.1}


async def test_what_ended_a_task_is_raised_unless_it_was_the_cancellation() -> None:
    async def failing() -> None:
        raise BrokerUnavailable("gone")

    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    with pytest.raises(BrokerUnavailable, match="gone"):
        await end_task(task)

    done = asyncio.create_task(asyncio.sleep(0))
    await done
    await end_task(done)

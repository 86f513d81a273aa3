"""Pauses, things told once, tasks that are cancelled until they end, steps that are repeated."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from itertools import islice
from types import SimpleNamespace

import pytest

from nats_executor import retrying
from nats_executor.errors import AccessDenied, BrokerUnavailable, LimitReached, NoQuorum, StreamFull
from nats_executor.pacing import pauses
from nats_executor.retrying import OUTAGE_PAUSES, Once, Outage, end_task, persist


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_says_once_what_happens_next_and_once_that_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    outage = Outage(clock)

    with caplog.at_level(logging.INFO):
        for _ in range(5):
            outage.note(BrokerUnavailable("connection refused"), "workloads stay queued")
        clock.now += 7
        outage.over()
        outage.over()

    assert [record.getMessage() for record in caplog.records] == [
        "NATS is away: connection refused; next: workloads stay queued",
        "NATS is back after 7 s",
    ]


def test_the_pauses_of_an_outage_double_up_to_a_limit() -> None:
    clock = Clock()
    outage = Outage(clock)
    waited = []
    for _ in range(8):
        outage.note(BrokerUnavailable("gone"), "waiting")
        start = clock.now
        while outage.is_waiting():
            clock.now += OUTAGE_PAUSES[0] / 4
        waited.append(clock.now - start)

    assert waited == [0.5, 1, 2, 4, 8, 15, 15, 15]
    assert max(waited) == OUTAGE_PAUSES[1]


def test_a_recovery_ends_the_pause_and_only_one_since_the_step_that_failed() -> None:
    outage = Outage(Clock())
    for _ in range(8):
        outage.note(BrokerUnavailable("gone"), "waiting", recoveries=3)
    assert outage.is_waiting(3)

    assert not outage.is_waiting(4)

    outage.note(BrokerUnavailable("gone again"), "waiting", recoveries=4)
    assert outage.is_waiting(4)


def test_nothing_waits_without_an_outage() -> None:
    clock = Clock()
    outage = Outage(clock)
    assert not outage.is_waiting()

    outage.note(BrokerUnavailable("gone"), "waiting")
    outage.over()

    assert not outage.is_waiting()


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (StreamFull("no room"), "NATS is full: no room"),
        (LimitReached("no stream more"), "NATS is full: no stream more"),
        (AccessDenied("not allowed"), "NATS denies access: not allowed"),
        (NoQuorum("two of three are down"), "NATS is away: two of three are down"),
    ],
)
def test_an_outage_is_told_by_its_reason(
    reason: BrokerUnavailable, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    Outage(Clock()).note(reason, "waiting")

    assert caplog.messages == [f"{words}; next: waiting"]


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


def test_pauses_grow_up_to_the_longest_and_go_on() -> None:
    assert list(islice(pauses(0.5, 3.0), 6)) == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]
    assert list(islice(pauses(1.0, 2.0, 1.5), 4)) == [1.0, 1.5, 2.0, 2.0]


def test_a_thing_is_new_once_until_it_is_forgotten() -> None:
    once = Once()
    assert [once.is_new(thing) for thing in "abab"] == [True, True, False, False]

    once.forget("a")
    assert [once.is_new(thing) for thing in "ab"] == [True, False]

    once.forget_all()
    assert [once.is_new(thing) for thing in "ab"] == [True, True]


def test_the_things_that_were_met_longest_ago_are_new_again() -> None:
    """However many there are, a hundred are remembered; one that is met again counts as recent."""
    once = Once()
    for number in range(100):
        assert once.is_new(number)
    assert not once.is_new(0)

    assert once.is_new(100)

    assert not once.is_new(0)
    assert not once.is_new(2)
    assert once.is_new(1)


async def swallow(cancellations: int) -> None:
    """Go on as nats-py does after that many cancellations, and raise at the next one."""
    for _ in range(cancellations):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    await asyncio.Event().wait()


@pytest.mark.anyio
@pytest.mark.parametrize("cancellations", [0, 1, 3])
async def test_a_task_that_swallows_cancellations_is_ended(
    cancellations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    wait = asyncio.wait

    async def noted(tasks: list[asyncio.Task[None]], timeout: float) -> object:
        waits.append(timeout)
        return await wait(tasks, timeout=0.001)

    monkeypatch.setattr(asyncio, "wait", noted)
    task = asyncio.create_task(swallow(cancellations))
    await asyncio.sleep(0)

    await end_task(task)

    assert task.cancelled()
    assert set(waits) == {0.1}


@pytest.mark.anyio
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


class Step:
    """A step that fails as it is told to, then returns how often it was carried out."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.count = 0

    async def __call__(self) -> int:
        self.count += 1
        if self.failures:
            raise self.failures.pop(0)
        return self.count


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that are made, without their time."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return found


@pytest.mark.anyio
async def test_a_step_is_repeated_after_growing_pauses(
    slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    step = Step(*[BrokerUnavailable("away")] * 3, TimeoutError(), BrokerUnavailable("away"))

    assert await persist(step, name="the claim") == 6

    assert slept == [0.1, 0.2, 0.4, 0.8, 1.0]
    assert caplog.messages == ["the claim: away; next: asking again until it is known"]


@pytest.mark.anyio
async def test_a_step_without_an_answer_gets_twice_the_time(
    slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float | None] = []
    timeout = asyncio.timeout

    def noted(seconds: float | None) -> asyncio.Timeout:
        limits.append(seconds)
        return timeout(seconds)

    monkeypatch.setattr(asyncio, "timeout", noted)
    await persist(Step(BrokerUnavailable("away"), TimeoutError()))

    assert limits == [1.0, 2.0, 4.0]
    assert len(slept) == 2


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("failure", "text"),
    [(BrokerUnavailable("away"), "away"), (TimeoutError(), "no answer within 1 s")],
)
async def test_a_step_is_given_up_when_that_is_wanted(
    failure: Exception, text: str, slept: list[float]
) -> None:
    with pytest.raises(BrokerUnavailable, match=text):
        await persist(Step(failure), unless=lambda: True)

    assert slept == []


@pytest.mark.anyio
async def test_what_no_repetition_helps_against_is_raised_at_once(slept: list[float]) -> None:
    step = Step(AccessDenied("not allowed"))

    with pytest.raises(AccessDenied):
        await persist(step)

    assert (step.count, slept) == (1, [])


@pytest.mark.anyio
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

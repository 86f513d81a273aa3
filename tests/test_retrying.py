"""Pauses, things told once, tasks that are cancelled until they end, steps that are repeated."""

from __future__ import annotations

import asyncio
import logging
from itertools import islice

import pytest

from nats_executor import retrying
from nats_executor.errors import AccessDenied, BrokerUnavailable, NoQuorum, StreamFull
from nats_executor.pacing import pauses
from nats_executor.retrying import OUTAGE_PAUSES, Once, Outage, ended, persist


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


def test_a_new_outage_begins_with_the_shortest_pause() -> None:
    clock = Clock()
    outage = Outage(clock)
    for _ in range(8):
        outage.note(BrokerUnavailable("gone"), "waiting")
    outage.over()

    outage.note(BrokerUnavailable("gone"), "waiting")

    clock.now += OUTAGE_PAUSES[0] * 0.99
    assert outage.is_waiting()
    clock.now += OUTAGE_PAUSES[0] * 0.02
    assert not outage.is_waiting()


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (StreamFull("no room"), "NATS is full: no room"),
        (AccessDenied("not allowed"), "NATS denies access: not allowed"),
        (NoQuorum("two of three are down"), "NATS is away: two of three are down"),
    ],
)
def test_an_outage_is_told_by_its_reason(
    reason: BrokerUnavailable, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    Outage(Clock()).note(reason, "waiting")

    assert caplog.messages == [f"{words}; next: waiting"]


def test_a_lost_quorum_is_told_once_in_an_outage_that_was_told_already(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outage = Outage(Clock())
    for reason in (BrokerUnavailable("late"), NoQuorum("why"), NoQuorum("why"), NoQuorum("why")):
        outage.note(reason, "waiting")

    assert caplog.messages == [
        "NATS is away: late; next: waiting",
        "NATS is away: why; next: waiting",
    ]


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
    monkeypatch.setattr(retrying, "INSIST_SECONDS", 0.001)
    task = asyncio.create_task(swallow(cancellations))
    await asyncio.sleep(0)

    await ended(task)

    assert task.cancelled()


@pytest.mark.anyio
async def test_what_else_ended_a_task_is_raised() -> None:
    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("on the way out")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)

    with pytest.raises(LookupError, match="on the way out"):
        await ended(task)


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

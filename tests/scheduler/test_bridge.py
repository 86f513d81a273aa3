"""The thread beside the scheduler: its errors stay there, and it always ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

import pytest

from nats_executor.broker.bridge import Bridge
from nats_executor.errors import AccessDenied, BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    bridge = Bridge(forever)
    bridge.start()
    yield bridge
    bridge.stop()


def is_running() -> bool:
    return any(thread.name == "nats-executor" for thread in threading.enumerate())


async def fail(error: Exception) -> None:
    raise error


def test_a_result_comes_back(bridge: Bridge) -> None:
    async def answer() -> int:
        return 42

    assert bridge.call(answer(), timeout=5) == 42


def test_an_error_of_the_broker_comes_back_as_it_is(bridge: Bridge) -> None:
    with pytest.raises(AccessDenied, match="no"):
        bridge.call(fail(AccessDenied("no")), timeout=5)


def test_any_other_error_counts_as_a_broker_that_is_away(bridge: Bridge) -> None:
    with pytest.raises(BrokerUnavailable, match="ZeroDivisionError: by zero"):
        bridge.call(fail(ZeroDivisionError("by zero")), timeout=5)


def test_a_call_that_takes_too_long_is_given_up_and_cancelled(bridge: Bridge) -> None:
    is_cancelled = threading.Event()

    async def hang() -> None:
        try:
            await forever()
        finally:
            is_cancelled.set()

    with pytest.raises(BrokerUnavailable, match=r"did not answer within 0\.05 s"):
        bridge.call(hang(), timeout=0.05)

    assert is_cancelled.wait(5)


def test_a_call_after_the_end_says_so(bridge: Bridge) -> None:
    bridge.stop()

    with pytest.raises(BrokerUnavailable, match="has ended"):
        bridge.call(forever(), timeout=5)
    bridge.post(forever())  # is not done, and does not raise


def test_a_stop_right_after_the_start_ends_it() -> None:
    for _ in range(20):
        bridge = Bridge(forever)
        bridge.start()
        bridge.stop()

        assert not is_running()


def test_a_failure_while_it_is_cancelled_does_not_keep_it_alive() -> None:
    async def fail_to_close() -> None:
        try:
            await forever()
        finally:
            raise OSError("cannot close")

    bridge = Bridge(fail_to_close)
    bridge.start()
    bridge.call(asyncio.sleep(0), timeout=5)

    bridge.stop()

    assert not is_running()


def test_a_task_that_loses_its_cancellation_does_not_keep_it_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As nats-py's calls do now and then."""
    monkeypatch.setattr("nats_executor.broker.bridge.RECANCEL_SECONDS", 0.05)
    has_begun = threading.Event()

    async def lose_one() -> None:
        has_begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await forever()
        await forever()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(lose_one())

    bridge = Bridge(main)
    bridge.start()
    assert has_begun.wait(5)

    bridge.stop()

    assert not is_running()


def test_what_it_runs_is_run_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nats_executor.broker.bridge.RESTART_SECONDS", 0)
    third = threading.Event()
    runs: list[int] = []

    async def main() -> None:
        runs.append(len(runs))
        if len(runs) < 3:
            raise OSError("not yet")
        third.set()
        await forever()

    bridge = Bridge(main)
    bridge.start()

    assert third.wait(5)
    bridge.stop()
    assert runs == [0, 1, 2]


def test_what_was_posted_ends_with_the_bridge() -> None:
    """A loop that is closed over a task leaves it to the garbage collector, which complains."""
    bridge = Bridge(forever)
    has_begun, has_ended = threading.Event(), threading.Event()

    async def work() -> None:
        try:
            has_begun.set()
            await forever()
        finally:
            has_ended.set()

    bridge.start()
    bridge.post(work())
    assert has_begun.wait(10)

    bridge.stop()

    assert has_ended.is_set()
    assert not is_running()

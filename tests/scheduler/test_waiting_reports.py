"""Reports that the scheduler's thread does not take wait in NATS, not in its memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from nats_executor.broker.port import Stored
from nats_executor.errors import AccessDenied
from nats_executor.scheduler import reports as reports_module
from nats_executor.scheduler.dispatcher import Dispatcher
from nats_executor.scheduler.reports import Mailbox
from nats_executor.topology import setup
from nats_executor.wire.messages import Report, encode
from tests.support.fake_broker import FakeServer
from tests.support.fixtures import settings_for
from tests.support.strange_messages import EXAMPLES
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio

SETTINGS = settings_for("nats://127.0.0.1:4222")
NAMES = SETTINGS.names
MOST = 10


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports_module, "ROOM_SECONDS", 0.001)
    monkeypatch.setattr(reports_module, "WAITING_REPORTS", MOST)


def body(number: int, info: str = "") -> bytes:
    return encode(replace(EXAMPLES[Report], dispatch_id=f"d{number}", info=info))


def stored(number: int, info: str = "") -> Stored:
    return Stored(NAMES.result("default", f"d{number}"), number + 1, body(number, info))


async def waits(mailbox: Mailbox) -> bool:
    """Whether there is no room, after more looks than one."""
    try:
        async with asyncio.timeout(0.05):
            await mailbox.room()
    except TimeoutError:
        return True
    return False


async def test_there_is_room_until_there_are_many() -> None:
    mailbox = Mailbox(NAMES)
    for number in range(MOST):
        assert not await waits(mailbox)
        mailbox.take(stored(number))
    assert await waits(mailbox)

    mailbox.reports.popleft()

    assert not await waits(mailbox)
    mailbox.take(stored(99))
    assert await waits(mailbox)


async def test_there_is_room_until_there_are_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports_module, "WAITING_BYTES", 3000)
    mailbox = Mailbox(NAMES)
    for number in range(3):
        assert not await waits(mailbox)
        mailbox.take(stored(number, "x" * 1000))
    assert await waits(mailbox)

    mailbox.reports.popleft()

    assert not await waits(mailbox)


async def test_a_scheduler_that_takes_nothing_holds_few_reports_and_misses_none() -> None:
    server = FakeServer()
    broker = server.broker()
    await setup.apply(broker, SETTINGS, ["default"])
    for number in range(10 * MOST):
        server.put(NAMES.result("default", f"d{number}"), body(number))
    dispatcher = Dispatcher(SETTINGS, "s")
    dispatcher._streams._is_followable.set()
    dispatcher._streams.read_after = 0
    reports = dispatcher.mailbox.reports

    following = asyncio.create_task(dispatcher._follow(broker))
    try:
        await wait_until(lambda: len(reports) == MOST, 5, "as many as may wait")
        assert await waits(dispatcher.mailbox)
        assert len(reports) == MOST
        taken: list[str] = []
        while len(taken) < 10 * MOST:
            await wait_until(lambda: len(reports), 5, "more of them")
            assert len(reports) <= MOST
            taken.append(reports.popleft().dispatch_id)
    finally:
        following.cancel()
        await asyncio.wait([following])

    assert taken == [f"d{number}" for number in range(10 * MOST)]


async def test_results_that_may_not_be_read_are_logged_once_and_read_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeServer()
    broker = server.broker()
    await setup.apply(broker, SETTINGS, ["default"])
    server.put(NAMES.result("default", "d1"), body(1))
    dispatcher = Dispatcher(SETTINGS, "s")
    dispatcher._streams._is_followable.set()
    refusals = [AccessDenied("NATS user s may not read")] * 3
    follow = broker.follow

    def refuse(*args: Any, **kwargs: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return follow(*args, **kwargs)

    monkeypatch.setattr(broker, "follow", refuse)
    monkeypatch.setattr("nats_executor.scheduler.dispatcher.RETRY_SECONDS", 0.001)

    following = asyncio.create_task(dispatcher._follow(broker))
    try:
        await wait_until(lambda: dispatcher.mailbox.reports, 5, "the report")
    finally:
        following.cancel()
        await asyncio.wait([following])

    lines = [r.getMessage() for r in caplog.records if "cannot follow results" in r.getMessage()]
    assert lines == ["cannot follow results: NATS user s may not read; next: trying again"]

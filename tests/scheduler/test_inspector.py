"""What a look concludes, where something changes between its questions."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import pytest

from nats_executor.fleet.liveness import Liveness
from nats_executor.scheduler.inspector import Inspector
from nats_executor.scheduler.ledger import Dispatch, Ledger
from nats_executor.scheduler.reports import Mailbox
from nats_executor.topology import setup
from nats_executor.wire.messages import Kind, Report, State, decode, encode
from tests.support.fake_broker import FakeServer
from tests.support.fixtures import settings_for

if TYPE_CHECKING:
    from collections.abc import Collection

    from nats_executor.fleet.liveness import Holder

pytestmark = pytest.mark.anyio

SETTINGS = settings_for("nats://127.0.0.1:4222", worker_lost_seconds=10)
NAMES = SETTINGS.names
SUBJECT = NAMES.result("default", "d1")
OF_DEAD = Report(
    dispatch_id="d1", queue="default", state=State.CLAIMED, kind=Kind.TASK, key=[],
    worker="w.1", worker_name="w", pid=7,
)  # fmt: skip
OF_LIVING = dataclasses.replace(OF_DEAD, state=State.RUNNING, worker="x.1", worker_name="x")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server() -> FakeServer:
    server = FakeServer(monotonic=lambda: -1e9)
    server.now = time.time()
    await setup.apply(server.broker(), SETTINGS, ["default"])
    return server


def ledger_after(*reports: Report) -> Ledger:
    ledger = Ledger()
    ledger.track(Dispatch("d1", "key", "default", Kind.TASK, "ti"))
    for report in reports:
        ledger.apply(report)
    return ledger


def last_of(server: FakeServer) -> Report:
    found = server.stream(NAMES.results_stream).last(SUBJECT)
    assert found
    return decode(Report, found.body)


async def test_a_task_of_a_dead_worker_fails(server: FakeServer) -> None:
    running = dataclasses.replace(OF_DEAD, state=State.RUNNING)
    server.put(SUBJECT, encode(running))
    broker = server.broker()

    await Inspector(SETTINGS, "s1", lambda: broker, Mailbox(NAMES)).watch(
        ledger_after(running).held
    )

    assert (last_of(server).state, last_of(server).info) == (State.FAILED, running.loss)


async def test_a_task_is_left_alone_that_another_worker_takes_while_the_first_is_asked(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler's thread reads the other one's report meanwhile."""
    server.put(SUBJECT, encode(OF_DEAD))
    ledger, broker = ledger_after(OF_DEAD), server.broker()
    ask = Liveness.lost

    async def ask_for_long(liveness: Liveness, holders: Collection[Holder]) -> set[Holder]:
        dead = await ask(liveness, holders)
        server.put(SUBJECT, encode(OF_LIVING))
        ledger.apply(OF_LIVING)
        return dead

    monkeypatch.setattr(Liveness, "lost", ask_for_long)
    await Inspector(SETTINGS, "s1", lambda: broker, Mailbox(NAMES)).watch(ledger.held)

    assert last_of(server) == OF_LIVING

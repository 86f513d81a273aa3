"""A worker looks for a note of its drain, with a login of this release and of the one before."""

from __future__ import annotations

import contextlib
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from nats_executor.broker.connection import connect
from nats_executor.errors import BrokerUnavailable
from nats_executor.topology import setup
from nats_executor.wire.messages import Drain, encode
from nats_worker.state import Plan
from nats_worker.worker import Worker
from tests.contract.test_roles import PLACES
from tests.support.user_stage import NAMES, QUEUES, ROOT_USER, UserStage
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from nats_executor.broker.port import Broker
    from tests.support.fixtures import MakeNatsServer

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


def of_the_release_before(config: str) -> str:
    """Take away whatever is about notes."""
    return "\n".join(line for line in config.splitlines() if "_holds" not in line)


@pytest.fixture
async def exits() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as exits:
        yield exits


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def broker_of(exits: AsyncExitStack) -> Callable[[UserStage, str], object]:
    async def opened(stage: UserStage, user: str) -> Broker:
        broker = await exits.enter_async_context(connect(stage.settings(user), role="test"))
        await broker.ready(10)
        return broker

    return opened


async def begun(
    make_nats_server: MakeNatsServer, place: str, config: str, broker_of: Callable[..., object]
) -> tuple[UserStage, Worker, Broker]:
    """Return a worker of queue `a` that somebody has drained, not started, and its connection."""
    stage = UserStage(make_nats_server(config=config), place == "accounts")
    root = await broker_of(stage, ROOT_USER)  # type: ignore[misc]
    await setup.apply(root, stage.settings(ROOT_USER), QUEUES)
    note = Drain(worker="w", by="ann", at=1.0)
    await root.publish(NAMES.worker_hold("a", "w"), encode(note))
    plan = Plan(name="w", queues=("a",), concurrency=1, team=None, cleanup_seconds=0.0, version="1")
    worker = Worker(stage.settings("worker_a"), plan)
    return stage, worker, await broker_of(stage, "worker_a")  # type: ignore[misc]


async def test_a_login_of_the_release_before_keeps_no_worker_from_work(
    make_nats_server: MakeNatsServer,
    place: str,
    broker_of: Callable[..., object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = of_the_release_before(PLACES[place](""))
    _, worker, broker = await begun(make_nats_server, place, config, broker_of)

    assert not await worker.drains.look_up(broker)

    (line,) = [line for line in caplog.messages if line.startswith("nobody can say whether")]
    assert "KV_airflow_holds" in line
    assert line.endswith("; next: it works")


async def test_a_server_that_is_away_says_nothing_about_a_drain(
    make_nats_server: MakeNatsServer, place: str, broker_of: Callable[..., object]
) -> None:
    stage, worker, broker = await begun(make_nats_server, place, PLACES[place](""), broker_of)
    stage.server.kill()

    with pytest.raises(BrokerUnavailable):
        await worker.drains.look_up(broker)

    stage.server.start()

    async def is_found() -> bool:
        with contextlib.suppress(BrokerUnavailable):  # its streams come after its port
            return await worker.drains.look_up(broker)
        return False

    await wait_until(is_found, 20, "the note")

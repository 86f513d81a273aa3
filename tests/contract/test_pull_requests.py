"""One pull request for each lane: what the server counts, over reconnects and silence."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.broker import pull_times
from nats_executor.broker import pulls as pulls_module
from nats_executor.broker.connection import connect
from tests.contract.stage import PUBLISH_TIMEOUT, RealStage, soon
from tests.support.cable import Cable
from tests.support.fixtures import settings_for
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AsyncExitStack

    from nats_executor.broker.port import Broker, Delivery, Pulls
    from nats_executor.wire.names import Names
    from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

LANES = ("a", "b", "c")
CUTS = 100


class Worker:
    """A connection through a cable that waits for messages of three lanes."""

    def __init__(self, stage: RealStage, broker: Broker, cable: Cable) -> None:
        self.stage = stage
        self.broker = broker
        self.cable = cable
        self.pulls: dict[str, Pulls] = {}
        self.waits: dict[str, asyncio.Task[Delivery]] = {}
        self.found: dict[str, int] = {}

    async def start(self) -> None:
        for lane in LANES:
            await self.stage.queue(lane)
            self.pulls[lane] = await self.stage.pulls(self.broker, lane)
            self.waits[lane] = asyncio.create_task(self.pulls[lane].wait())
        await wait_until(self.has_one_each, 30, "a pull for each lane")

    async def stop(self) -> None:
        for wait in self.waits.values():
            wait.cancel()
        await asyncio.wait(self.waits.values())

    async def requests(self) -> dict[str, int]:
        """Pull requests that the server knows of; it looks whether their inboxes have interest."""
        infos = await self.stage.broker.consumer_infos(self.stage.tasks)
        return {info.queue: info.waiting for info in infos}

    async def has_one_each(self) -> bool:
        self.found = await self.requests()
        return self.found == dict.fromkeys(LANES, 1)

    async def require_one_each(self) -> None:
        """Wait until it is so; what was lost is asked for again within a few seconds."""
        with contextlib.suppress(TimeoutError):
            await wait_until(self.has_one_each, 15)
        assert self.found == dict.fromkeys(LANES, 1)

    async def cut(self) -> None:
        """Break the connection, and return once there is a new one."""
        since = self.broker.connected_since
        await asyncio.to_thread(self.cable.do, self.cable.drop())
        await wait_until(
            lambda: self.broker.is_connected and self.broker.connected_since > since,
            30,
            "a new connection",
        )


@pytest.fixture
def cable(private_nats_server: NatsServer) -> Iterator[Cable]:
    with Cable(private_nats_server.port) as cable:
        yield cable


@pytest.fixture
async def worker(
    names: Names, private_nats_server: NatsServer, exits: AsyncExitStack, cable: Cable
) -> Worker:
    stage = RealStage(names, private_nats_server, exits)
    await stage.build()
    settings = settings_for(
        f"nats://127.0.0.1:{cable.port}",
        subject_prefix=names.prefix,
        publish_timeout_seconds=PUBLISH_TIMEOUT,
    )
    broker = await exits.enter_async_context(connect(settings, role="contract"))
    await broker.ready(30)
    worker = Worker(stage, broker, cable)
    await worker.start()
    exits.push_async_callback(worker.stop)
    return worker


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """The requests from here on."""
    subjects: list[str] = []
    request = pulls_module.Pull.request

    async def noted(pull: pulls_module.Pull, body: Any) -> None:
        subjects.append(pull._subject)
        await request(pull, body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pulls_module.Pull, "request", noted)
        yield subjects


async def test_a_purge_of_what_is_in_flight_wakes_a_pull_at_a_full_consumer(
    names: Names, private_nats_server: NatsServer, exits: AsyncExitStack
) -> None:
    """The server tells no pull of such room but with a heartbeat: free slots wait for one."""
    stage = RealStage(names, private_nats_server, exits)
    await stage.build()
    limited = stage.consumer_config("default", ack_wait=30.0) | {"max_ack_pending": 1}
    await stage.broker.create_consumer(stage.tasks, limited)
    pulls: Any = await stage.pulls(stage.broker)
    await stage.send("d0")
    await stage.send("d1")
    await stage.offers(2)
    assert len(await pulls.take(1)) == 1
    beats: list[str] = []
    deliver = pulls._waiting.deliver

    def note(msg: Any) -> None:
        beats.append(pulls_module.status(msg))
        deliver(msg)

    pulls._waiting.deliver = note
    waiting = asyncio.create_task(pulls.wait())
    await wait_until(lambda: beats, 30, "a heartbeat, so that the pull waits at the server")

    await stage.broker.purge(stage.tasks, names.task("default", "d0"))
    before = len(beats)
    assert (await soon(waiting, 30.0)).body == b"d1"

    # One heartbeat that was on its way, and the one that found the room.
    assert len(beats) - before <= 3
    assert {*beats[:-1]} == {"100"}
    assert pull_times.HEARTBEAT_SECONDS <= 1.0


async def test_a_hundred_reconnects_leave_one_pull_for_each_lane(worker: Worker) -> None:
    """The server keeps a request for as long as something listens on its inbox."""
    for _ in range(CUTS):
        await worker.cut()

    await worker.require_one_each()


async def test_silence_leaves_one_pull_for_each_lane(
    worker: Worker, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pull that is given up for lost may not be: its heartbeats were late, and it waits."""
    monkeypatch.setattr(pull_times, "silence_seconds", lambda _: 0.2)
    for pulls in worker.pulls.values():  # those that wait already
        vars(pulls)["_silence_seconds"] = 0.2
    await wait_until(lambda: len(asked) >= 3 * len(LANES), 30, "pulls that were given up")
    monkeypatch.undo()

    await worker.require_one_each()


async def test_a_frozen_server_has_one_pull_for_each_lane_afterwards(
    worker: Worker, asked: list[str]
) -> None:
    """What a silent server has not read yet, it reads later."""
    worker.stage.server.pause()
    try:
        await wait_until(lambda: len(asked) >= len(LANES), 30, "the pulls to be given up")
    finally:
        worker.stage.server.resume()

    await worker.broker.ready(30)
    await worker.require_one_each()
    for lane in LANES:
        await worker.stage.send(f"d-{lane}", lane)
        assert (await soon(worker.waits[lane], 30)).body == f"d-{lane}".encode()

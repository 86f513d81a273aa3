"""A broker that goes away, hangs or loses everything while tasks run: they run on, once."""

from __future__ import annotations

import asyncio
import secrets
import signal
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from nats_executor.topology import setup
from nats_executor.wire.messages import State
from tests.faults.stage import FaultStage, lasts, open_stage
from tests.support.nats_server import NatsServer
from tests.support.process_stage import QUICK, task_body
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.execution_api import ExecutionApi
    from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.anyio, pytest.mark.integration, pytest.mark.chaos, pytest.mark.slow]

FINAL = (State.SUCCESS, State.FAILED)
CONNECTED = "connected to NATS"
DEAF = "NATS does not answer; next: a new connection"


@dataclass
class Coast:
    """A broker of its own with two workers, which all tests share and find in good health."""

    server: NatsServer
    stage: FaultStage
    workers: list[WorkerProcess]

    async def back(self) -> None:
        """Start the broker, and return when we are connected again."""
        await asyncio.to_thread(self.server.start)
        await self.stage.post.broker.ready(20)

    async def both_work(self) -> None:
        for worker in self.workers:
            await self.stage.works(worker)

    def times(self, text: str) -> list[int]:
        return [worker.text.count(text) for worker in self.workers]

    async def both_say_again(self, text: str, times: list[int]) -> None:
        for worker, before in zip(self.workers, times, strict=True):
            await self.stage.says_again(worker, text, before)


@pytest.fixture(scope="module")
async def coast(
    home: Path,  # noqa: ARG001 - its environment
    api: ExecutionApi,
    marks: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Coast]:
    directory = tmp_path_factory.mktemp("coast")
    server = NatsServer(directory / "nats").start()
    try:
        output = directory / "output"
        output.mkdir()
        prefix = f"coast{secrets.token_hex(4)}"
        async with open_stage(server.url, prefix, api, marks, output) as stage:
            workers = [
                stage.launch("--skip-serve-logs", "-c", "8", name=name) for name in ("w1", "w2")
            ]
            for worker in workers:
                await worker.said("is ready")
            yield Coast(server, stage, workers)
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("how", "away_seconds"),
    [
        pytest.param(signal.SIGTERM, QUICK["ack_wait_seconds"] / 4, id="restarted"),
        pytest.param(signal.SIGKILL, QUICK["ack_wait_seconds"] / 4, id="killed"),
        pytest.param(signal.SIGKILL, QUICK["ack_wait_seconds"] * 2, id="killed-for-long"),
    ],
)
async def test_a_broker_that_goes_away(
    coast: Coast, how: signal.Signals, away_seconds: float
) -> None:
    """Tasks run on; who ended meanwhile is reported later; what is offered again runs nowhere."""
    stage = coast.stage
    ended, running = await stage.running(), [await stage.running() for _ in range(2)]
    connected = coast.times(CONNECTED)

    coast.server.end(how)
    await stage.end(ended)
    await wait_until(lambda: stage.final_states(ended), 30, "its state at the API server")
    await lasts(away_seconds)
    for task in running:
        assert await stage.is_running(task)
    await coast.back()

    await stage.succeeded(ended)
    await coast.both_say_again(CONNECTED, connected)
    # Both have pulled since, so whatever the broker offered again has been decided on.
    await coast.both_work()
    for task in running:
        assert await stage.is_running(task)
        await stage.carry_out(task)


async def test_a_broker_that_hangs_is_given_up(coast: Coast) -> None:
    """The watchdog of every worker notices, and they are back by themselves when it is."""
    stage = coast.stage
    ended, running = await stage.running(), await stage.running()
    deaf, connected = coast.times(DEAF), coast.times(CONNECTED)

    coast.server.pause()
    try:
        await stage.end(ended)
        await coast.both_say_again(DEAF, deaf)
        assert await stage.is_running(running)
    finally:
        coast.server.resume()

    await coast.both_say_again(CONNECTED, connected)
    await stage.succeeded(ended)
    await coast.both_work()
    assert await stage.is_running(running)
    await stage.carry_out(running)


async def wipe(coast: Coast) -> None:
    """Lose all streams; then an executor creates them again, as each does when it connects."""
    coast.server.stop()
    coast.server.wipe_storage()
    await coast.back()
    await setup.apply(coast.stage.post.broker, coast.stage.settings, ["default"])


async def test_a_broker_that_lost_everything(coast: Coast) -> None:
    """Running tasks end and are reported; the workers go on with the new streams."""
    stage = coast.stage
    ended, running = await stage.running(), await stage.running()

    await wipe(coast)
    await stage.carry_out(ended)

    await coast.both_work()
    assert await stage.is_running(running)
    await stage.carry_out(running)


async def test_what_a_wiped_stream_numbers_anew_is_not_acked_by_old_tasks(coast: Coast) -> None:
    """Sequences start again at 1: an old task's ack must not remove another one's message."""
    stage, names, broker = coast.stage, coast.stage.settings.names, coast.stage.post.broker
    old = await stage.running()
    found = await broker.last(names.tasks_stream, names.task("default", old))
    assert found is not None

    await wipe(coast)
    for _ in range(found.sequence - 1):
        filler = str(uuid.uuid4())
        await stage.post.send(task_body("sleep", filler), filler, queue="elsewhere")
    new = await stage.running()
    heir = await broker.last(names.tasks_stream, names.task("default", new))
    assert heir is not None
    assert heir.sequence == found.sequence
    await stage.end(old)
    await wait_until(lambda: stage.final_states(old), 30, "its state at the API server")
    await stage.post.reported(old, *FINAL)

    await coast.both_work()
    assert not await stage.post.is_acked(new)
    await stage.carry_out(new)

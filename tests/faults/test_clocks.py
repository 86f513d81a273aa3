"""A worker whose clock is ten minutes wrong, in both directions."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import signal
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from nats_executor.scheduler.dispatcher import Dispatcher
from nats_executor.scheduler.ledger import Dispatch
from nats_executor.wire.messages import Kind, State
from tests.faults.stage import FaultStage, open_stage
from tests.support.cable import Cable
from tests.support.execution_api import Answer
from tests.support.nats_server import NatsServer
from tests.support.process_stage import task_body
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.execution_api import ExecutionApi
    from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.anyio, pytest.mark.integration, pytest.mark.chaos, pytest.mark.slow]

OFFSET = 600.0
# A message is offered to others long before its worker counts as lost.
PATIENT = {"ack_wait_seconds": 1, "worker_lost_seconds": 10}


@dataclass
class Clocks:
    """A worker with a wrong clock and one with the right one, each at the end of a cable."""

    stage: FaultStage
    wrong: WorkerProcess
    right: WorkerProcess
    cables: dict[str, Cable]
    offset: float


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    try:
        yield server.start()
    finally:
        server.kill()


@pytest.fixture(scope="module", params=[OFFSET, -OFFSET], ids=["fast", "slow"])
async def clocks(
    request: pytest.FixtureRequest,
    server: NatsServer,
    home: Path,  # noqa: ARG001 - its environment
    api: ExecutionApi,
    marks: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Clocks]:
    output = tmp_path_factory.mktemp("clocks")
    prefix = f"clocks{secrets.token_hex(4)}"
    with ExitStack() as exits:
        cables = {name: exits.enter_context(Cable(server.port)) for name in ("wrong", "right")}
        async with open_stage(server.url, prefix, api, marks, output, **PATIENT) as stage:
            direct = stage.settings
            patch = exits.enter_context(pytest.MonkeyPatch.context())
            for name, offset in (("wrong", request.param), ("right", 0)):
                stage.settings = replace(direct, servers=(f"nats://127.0.0.1:{cables[name].port}",))
                patch.setenv("CLOCK_OFFSET", str(offset))
                stage.launch_trapped(name=name, **PATIENT)
            stage.settings = direct
            wrong, right = stage.workers
            for worker in stage.workers:
                await worker.said("is ready")
            yield Clocks(stage, wrong, right, cables, request.param)


async def test_its_tasks_are_its_own(clocks: Clocks) -> None:
    """It runs workloads, and its records say what its clock says."""
    await clocks.stage.works(clocks.wrong)

    presence = await clocks.stage.post.presence("wrong")
    assert presence is not None
    assert abs(presence.at - time.time() - clocks.offset) < OFFSET / 2


@pytest.mark.parametrize(("holder", "judge"), [("right", "wrong"), ("wrong", "right")])
async def test_nobody_is_declared_lost_who_was_there_a_moment_ago(
    clocks: Clocks, holder: str, judge: str
) -> None:
    """A worker without a connection keeps its tasks until its record is old by the broker's clock.

    The other one is offered the task and has only the record to judge by.
    """
    stage = clocks.stage
    workers = {worker.name: worker for worker in stage.workers}
    task = await stage.running_on(workers[holder])

    clocks.cables[holder].unplug()
    try:
        # Only the judge is there to get it: what is offered again, it has handed back.
        offers = await stage.deliveries() + 3

        async def is_decided() -> bool:
            return await stage.deliveries() >= offers or State.FAILED in stage.states(task)

        await wait_until(is_decided, PATIENT["worker_lost_seconds"], f"{judge} to be asked")
    finally:
        clocks.cables[holder].plug()

    await stage.works(workers[holder])
    assert State.FAILED not in stage.states(task)
    assert await stage.is_running(task)
    await stage.carry_out(task)


def token(expires_at: float) -> str:
    """A token of Airflow's form."""
    payload = base64.urlsafe_b64encode(json.dumps({"exp": expires_at}).encode()).decode()
    return f"header.{payload.rstrip('=')}.{secrets.token_hex(8)}"


@contextlib.asynccontextmanager
async def executor_on(stage: FaultStage) -> AsyncIterator[Dispatcher]:
    """The part of an executor that answers an expired token."""
    dispatcher = Dispatcher(stage.settings, "test")
    life = asyncio.create_task(dispatcher.run(), name="dispatcher")
    try:
        await dispatcher.prepared()
        yield dispatcher
    finally:
        while not life.done():
            life.cancel()
            await asyncio.wait([life], timeout=0.1)


async def test_a_token_that_looks_expired_is_renewed(clocks: Clocks) -> None:
    """The executor answers with a new one, which is tried whatever the clock says; no try is spent.

    A slow clock does not see that a token has expired; then the API server's refusal tells.
    """
    stage = clocks.stage
    task = str(uuid.uuid4())
    lifetime = OFFSET / 2 if clocks.offset > 0 else -OFFSET / 2
    body = task_body("sleep", task) | {"token": token(time.time() + lifetime)}
    stage.api.script(task, "run", *([Answer(401)] if lifetime < 0 else []), Answer(200))
    # Only the wrong clock is to judge.
    clocks.cables["right"].unplug()
    try:
        async with executor_on(stage) as dispatcher:
            await stage.post.send(body, task)
            expired = await stage.post.reported(task, State.EXPIRED)
            assert expired.worker_name == "wrong"
            dispatch = Dispatch(task, task, "default", Kind.TASK, task)
            await dispatcher.renew(dispatch, token(time.time() + OFFSET / 2))
            await stage.pid_of(task)
    finally:
        clocks.cables["right"].plug()

    assert State.RENEWED in stage.states(task)
    await stage.end(task)
    report = await stage.post.reported(task, State.SUCCESS, State.FAILED)
    assert (report.state, report.attempt, report.generation) == (State.SUCCESS, 1, 1)
    assert report.worker_name == "wrong"


async def test_it_notices_that_another_one_is_dead(clocks: Clocks) -> None:
    """The last test, as it costs a worker: its tasks are reported lost within seconds."""
    stage = clocks.stage
    lost = await stage.running_on(clocks.right)

    clocks.right.tell(signal.SIGKILL)

    limit = PATIENT["worker_lost_seconds"] + 20
    await wait_until(lambda: State.FAILED in stage.states(lost), limit, "the report")
    report = stage.history[lost][-1]
    assert (report.worker_name, report.info[:17]) == ("wrong", "worker right lost")

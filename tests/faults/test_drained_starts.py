"""SIGTERM to a worker while the API server has accepted a start and has not answered yet."""

from __future__ import annotations

import signal
import uuid
from typing import TYPE_CHECKING

import pytest

from nats_executor.wire.messages import State
from tests.faults.stage import open_stage
from tests.support.locking_api import LockingApi
from tests.support.process_stage import make_home, task_body
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from nats_executor.wire.names import Names
    from tests.faults.stage import FaultStage
    from tests.support.nats_server import NatsServer
    from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.anyio, pytest.mark.integration, pytest.mark.chaos]


@pytest.fixture
def locking_api() -> Iterator[LockingApi]:
    with LockingApi() as api:
        yield api


@pytest.fixture
async def slow_stage(
    nats_server: NatsServer,
    names: Names,
    locking_api: LockingApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[FaultStage]:
    marks, home, output = (tmp_path / name for name in ("marks", "home", "output"))
    for folder in (marks, home, output):
        folder.mkdir()
    for name, value in make_home(home, locking_api, marks).items():
        monkeypatch.setenv(name, value)
    async with open_stage(nats_server.url, names.prefix, locking_api, marks, output) as stage:
        yield stage


async def send_accepted(stage: FaultStage, api: LockingApi) -> str:
    """Have a worker hold a task whose start the API server has carried out in silence."""
    task = str(uuid.uuid4())
    api.hold(task, "run")
    await stage.post.send(task_body("succeed", task), task)
    await wait_until(lambda: stage.starts(task), 60, "the start to be accepted")
    assert task in api.starters
    return task


async def drain(worker: WorkerProcess) -> None:
    """Ask it to stop, and return once it has done everything that it does at once."""
    worker.tell(signal.SIGTERM)
    await worker.said("draining: ")


async def require_success(stage: FaultStage, task: str, worker: WorkerProcess) -> None:
    report = await stage.post.report(task)
    assert report is not None
    assert (report.state, report.info, report.worker_name) == (State.SUCCESS, "", worker.name)
    assert report.attempt == 1
    assert stage.final_states(task) == ["success"]


async def test_it_waits_for_the_answer_and_runs(
    slow_stage: FaultStage, locking_api: LockingApi
) -> None:
    """The worker that asked runs it within the drain's time, though another one stands by."""
    worker = await slow_stage.start(drain_seconds=120)
    task = await send_accepted(slow_stage, locking_api)
    await slow_stage.start(name="w2")

    await drain(worker)
    locking_api.let_go()

    await slow_stage.post.reported(task, State.SUCCESS, State.FAILED, State.DROPPED)
    await require_success(slow_stage, task, worker)
    assert await worker.ended() == 0


async def test_it_runs_where_no_other_worker_is(
    slow_stage: FaultStage, locking_api: LockingApi
) -> None:
    """Else nothing at all would be reported of it."""
    worker = await slow_stage.start(drain_seconds=120)
    task = await send_accepted(slow_stage, locking_api)

    await drain(worker)
    locking_api.let_go()

    assert await worker.ended() == 0
    await require_success(slow_stage, task, worker)

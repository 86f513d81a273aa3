"""Priority bands and limits of queues, with real workers on a real server."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from typing import TYPE_CHECKING

import pytest

from nats_executor.broker.connection import connect
from nats_executor.topology import setup
from nats_executor.wire.messages import Report, State, decode
from tests.support.fixtures import settings_for
from tests.support.process_stage import QUICK, ProcessStage, task_body
from tests.support.waiting import wait_until
from tests.support.worker_process import Post

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nats_executor.wire.names import Names
    from tests.support.execution_api import ExecutionApi
    from tests.support.nats_server import NatsServer

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

LIMIT = 2


@pytest.fixture
async def field(
    nats_server: NatsServer,
    names: Names,
    airflow_home: Path,  # noqa: ARG001 - its environment
    api: ExecutionApi,
    marks: Path,
    tmp_path: Path,
) -> AsyncIterator[ProcessStage]:
    options = QUICK | {"subject_prefix": names.prefix, "queue_limits": f"scarce={LIMIT}"}
    settings = settings_for(nats_server.url, **options)
    async with connect(settings, role="test") as broker:
        await broker.ready(5)
        await setup.apply(broker, settings, ["default", "scarce"])
        made = ProcessStage(settings, Post(broker, settings), api, marks, tmp_path)
        yield made
        made.clear_away()


async def send(field: ProcessStage, task: str, queue: str = "default", band: int = 0) -> str:
    dispatch_id = str(uuid.uuid4())
    await field.post.send(task_body(task, dispatch_id), dispatch_id, queue, band)
    return dispatch_id


async def test_five_urgent_tasks_overtake_five_hundred(field: ProcessStage) -> None:
    """They start in the next free slots; one slot in eight is for a lower band."""
    claimed: list[str] = []

    async def follow() -> None:
        stream = field.settings.names.results_stream
        async for message in field.post.broker.follow(stream, after=0):
            report = decode(Report, message.body)
            if report.state is State.CLAIMED:
                claimed.append(report.dispatch_id)

    following = asyncio.create_task(follow())
    await field.start("-c", "4")
    running = [await send(field, "sleep") for _ in range(4)]
    pids = [await field.pid_of(dispatch_id) for dispatch_id in running]
    waiting = [await send(field, "succeed") for _ in range(500)]
    urgent = {await send(field, "succeed", band=2) for _ in range(5)}

    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    await wait_until(lambda: len(claimed) >= 10, 60, "ten claims")
    following.cancel()

    assert set(claimed[:4]) == set(running)
    assert urgent <= set(claimed[4:10])
    assert len(set(claimed[4:10]) & set(waiting)) == 1


async def test_a_limit_holds_for_all_workers_together(field: ProcessStage) -> None:
    options = "--skip-serve-logs", "-q", "scarce,default"
    limits = f"scarce={LIMIT}"
    workers = [field.launch(*options, name=name, queue_limits=limits) for name in ("w1", "w2")]
    for worker in workers:
        await worker.said("is ready")
    scarce = [await send(field, "sleep", "scarce") for _ in range(LIMIT + 2)]
    # All workers have looked since, because this one came later and runs.
    other = await send(field, "sleep")
    await field.pid_of(other)
    started = await wait_until(
        lambda: (
            len(found := [id_ for id_ in scarce if (field.marks / id_).exists()]) >= LIMIT and found
        ),
        30,
        "as many as the limit allows",
    )
    [info] = [
        info
        for info in await field.post.broker.consumer_infos(field.settings.names.tasks_stream)
        if info.queue == "scarce"
    ]
    assert (len(started), info.in_flight, info.pending) == (LIMIT, LIMIT, 2)
    assert all(worker.process.poll() is None for worker in workers)

    os.kill(await field.pid_of(started[0]), signal.SIGTERM)

    (next_one,) = await wait_until(
        lambda: [i for i in scarce if i not in started and (field.marks / i).exists()],
        30,
        "the next one",
    )
    assert next_one in scarce

"""Changes, weights and the memory guard, with real workers, tasks and commands on a real server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.broker.connection import connect
from nats_executor.operations.orders import give_orders
from nats_executor.topology import setup
from nats_executor.wire.messages import State
from nats_executor.wire.names import Verb
from tests.support.fixtures import settings_for
from tests.support.process_stage import QUICK, ProcessStage, task_body
from tests.support.waiting import wait_until
from tests.support.worker_process import Post

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats_executor.broker.port import ConsumerInfo
    from nats_executor.operations.orders import OrderResult
    from nats_executor.wire.names import Names, Order
    from tests.support.execution_api import ExecutionApi
    from tests.support.nats_server import NatsServer

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


@dataclass
class FairStage(ProcessStage):
    """One that also runs commands and looks at consumers."""

    async def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "AIRFLOW__NATS_EXECUTOR__SERVERS": ",".join(self.settings.servers),
            "AIRFLOW__NATS_EXECUTOR__SUBJECT_PREFIX": self.settings.subject_prefix,
        }
        return await asyncio.to_thread(
            subprocess.run,
            [str(Path(sys.executable).with_name("airflow")), "nats", "workers", *words],
            env=os.environ | environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )

    async def order(self, order: Order, value: str) -> OrderResult:
        """Do what the command does, without the seconds that Airflow's start takes."""
        (answer,) = await give_orders(self.post.broker, self.settings, ["w1"], order, value)
        return answer

    async def time(self) -> float:
        """The broker's clock."""
        info = await self.post.broker.stream_info(self.settings.names.tasks_stream)
        assert info
        return info.time

    async def queue_task(self, task: str, queue: str = "default", **facts: Any) -> str:
        dispatch_id = str(uuid.uuid4())
        body = task_body(task, dispatch_id)
        body["ti"] |= facts
        await self.post.send(body, dispatch_id, queue)
        return dispatch_id

    async def end(self, dispatch_id: str) -> None:
        os.kill(await self.pid_of(dispatch_id), signal.SIGTERM)

    async def consumer(self, queue: str = "default") -> ConsumerInfo:
        infos = await self.post.broker.consumer_infos(self.settings.names.tasks_stream)
        return next(info for info in infos if (info.queue, info.band) == (queue, 0))

    async def build(self, *queues: str) -> None:
        await setup.apply(self.post.broker, self.settings, list(queues))


@pytest.fixture
async def process_stage(
    nats_server: NatsServer,
    names: Names,
    airflow_home: Path,  # noqa: ARG001 - its environment
    api: ExecutionApi,
    marks: Path,
    tmp_path: Path,
) -> AsyncIterator[FairStage]:
    settings = settings_for(nats_server.url, subject_prefix=names.prefix, **QUICK)
    async with connect(settings, role="test") as broker:
        await broker.ready(5)
        made = FairStage(settings, Post(broker, settings), api, marks, tmp_path)
        await made.build("default")
        yield made
        made.clear_away()


async def test_a_worker_is_changed_while_it_runs(process_stage: FairStage) -> None:
    worker = await process_stage.start("-c", "1")
    first = await process_stage.queue_task("sleep")
    await process_stage.pid_of(first)
    second = await process_stage.queue_task("sleep")

    more = await process_stage.order(Verb.SET_CONCURRENCY, "2")
    assert more == (True, "worker w1 now has concurrency 2, queues default; until it restarts")
    await process_stage.pid_of(second)

    # Fewer again, and a queue whose consumers are not there yet.
    assert (await process_stage.order(Verb.SET_CONCURRENCY, "1")).is_obeyed
    assert (await process_stage.order(Verb.ADD_QUEUE, "late")).is_obeyed
    presence = await process_stage.post.presence("w1")
    assert presence
    assert (presence.queues, presence.concurrency) == (["default", "late"], 1)
    await process_stage.build("default", "late")
    third = await process_stage.queue_task("sleep", "late")
    await process_stage.end(first)
    await process_stage.post.reported(first, State.SUCCESS)
    assert (await process_stage.consumer("late")).pending == 1
    await process_stage.end(second)
    await process_stage.pid_of(third)

    told = await process_stage.command("remove-queue", "w1", "late")
    assert told.stdout == "worker w1 now has concurrency 1, queues default; until it restarts\n"
    refused = await process_stage.order(Verb.REMOVE_QUEUE, "default")
    assert not refused.is_obeyed
    assert "worker w1 refuses: 'default' is its last queue" in refused.text
    left = await process_stage.queue_task("succeed", "late")
    await process_stage.end(third)
    fourth = await process_stage.queue_task("succeed")
    await process_stage.post.reported(fourth, State.SUCCESS)
    await wait_until(lambda: process_stage.post.is_acked(third, "late"), 10, "the ack")
    late = await process_stage.consumer("late")
    assert (late.pending, late.in_flight, late.waiting) == (1, 0, 0)
    assert not await process_stage.post.is_acked(left, "late")
    worker.tell(signal.SIGTERM)
    assert await worker.ended() == 0


async def test_a_heavy_task_waits_for_its_slots_and_keeps_its_lease(
    process_stage: FairStage,
) -> None:
    worker = await process_stage.start("-c", "2", pool_slots_as_weight=True)
    light = await process_stage.queue_task("sleep")
    await process_stage.pid_of(light)
    heavy = await process_stage.queue_task("sleep", pool_slots=2)
    name = f"{heavy} (dag outcomes, run manual, task sleep)"
    await worker.said(f"{name} waits for 2 slots")
    later = await process_stage.queue_task("succeed")

    # Longer than the broker waits for a sign of life.
    over = await process_stage.time() + 2 * process_stage.settings.ack_wait_seconds
    await wait_until(lambda: is_past(process_stage, over), 30, "the time to pass")
    seen = await process_stage.consumer()
    assert (seen.pending, seen.in_flight, seen.redelivered) == (1, 2, 0)
    assert await process_stage.post.report(heavy) is None
    await process_stage.end(light)

    await process_stage.pid_of(heavy)
    await wait_until(lambda: weighs_two(process_stage), 10, "the record to say so")
    assert await process_stage.post.report(later) is None
    await process_stage.end(heavy)
    await process_stage.post.reported(later, State.SUCCESS)
    report = await process_stage.post.reported(heavy, State.SUCCESS)
    assert report.attempt == 1


async def is_past(process_stage: FairStage, time: float) -> bool:
    return await process_stage.time() > time


async def weighs_two(process_stage: FairStage) -> bool:
    presence = await process_stage.post.presence("w1")
    return presence is not None and presence.running == 2


async def test_a_worker_without_memory_takes_nothing_and_says_so(process_stage: FairStage) -> None:
    """Any use is above this share, so that it never resumes."""
    worker = await process_stage.start(memory_high_percent=0.01)
    await worker.said("memory_high_percent is 0.01; next: taking no workloads until it is lower")
    task = await process_stage.queue_task("succeed")

    listed = await process_stage.command("list", "-o", "plain")
    assert listed.stdout.splitlines()[-1].split()[:2] == ["w1", "paused"]
    assert (await process_stage.consumer()).pending == 1
    presence = await process_stage.post.presence("w1")
    assert presence
    assert "memory is " in presence.paused
    assert worker.text.count("next: taking no workloads") == 1

    await process_stage.start(name="w2")
    report = await process_stage.post.reported(task, State.SUCCESS)
    assert report.worker_name == "w2"
    worker.tell(signal.SIGTERM)
    assert await worker.ended() == 0
    await wait_until(lambda: process_stage.post.is_acked(task), 10, "the ack")

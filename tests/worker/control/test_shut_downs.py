"""A worker ends by an order as by a signal, and logs who ordered that, and why."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from nats_executor.wire.messages import Obeyed, ShutDown, State, decode, encode
from nats_executor.wire.names import Verb
from tests.support.waiting import wait_until
from tests.support.worker_stage import WorkerStage, worker_stage_fixture

if TYPE_CHECKING:
    from nats_worker.worker import Worker

__all__ = ["worker_stage_fixture"]

pytestmark = pytest.mark.anyio


async def stop(worker_stage: WorkerStage, worker: Worker, order: ShutDown | bytes) -> Obeyed:
    subject = worker_stage.names.control(worker.state.id, Verb.SHUT_DOWN)
    body = order if isinstance(order, bytes) else encode(order)
    return decode(Obeyed, await worker_stage.broker.request(subject, body, timeout=5.0))


async def ended(worker_stage: WorkerStage, worker: Worker) -> None:
    await asyncio.wait_for(asyncio.shield(worker_stage.lives[worker.state.id]), 10)


async def test_a_worker_lets_its_task_end_and_ends(
    worker_stage: WorkerStage, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)

    outcome = await stop(worker_stage, worker, ShutDown(by="ann\x1b", reason="new kernel"))

    assert (outcome.is_changed, outcome.running) == (True, 1)
    await wait_until(lambda: worker.state.is_draining, 5, "the drain")
    assert not (await stop(worker_stage, worker, ShutDown(by="bob"))).is_changed
    assert run.signals == []
    run.finish()
    await ended(worker_stage, worker)
    assert worker_stage.presence() is None
    told = [line for line in caplog.messages if line.startswith("stop ")]
    assert told == [
        "stop ordered by ann\N{REPLACEMENT CHARACTER} (new kernel): stop request 1",
        "stop ordered by bob: stop request 1",
    ]


async def test_at_once_ends_the_task_and_once_more_kills_it(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)
    run.deadly = {signal.SIGKILL}

    assert (await stop(worker_stage, worker, ShutDown(by="ann", is_now=True))).is_changed
    await wait_until(lambda: signal.SIGTERM in run.signals, 5, "SIGTERM")
    assert (await stop(worker_stage, worker, ShutDown(by="", is_now=True))).is_changed
    await ended(worker_stage, worker)

    assert run.signals == [signal.SIGTERM, signal.SIGKILL]


async def test_at_once_hastens_a_stop_that_has_begun(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    run.deadly = {signal.SIGTERM}
    await worker_stage.reported(State.RUNNING)
    await stop(worker_stage, worker, ShutDown(by="ann"))
    await wait_until(lambda: worker.state.is_draining, 5, "the drain")

    assert (await stop(worker_stage, worker, ShutDown(by="ann", is_now=True))).is_changed

    await ended(worker_stage, worker)
    assert run.signals == [signal.SIGTERM]


async def test_an_order_that_cannot_be_read_is_refused(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()

    outcome = await stop(worker_stage, worker, b"\xc1")

    assert outcome.refusal.startswith("the order cannot be read: ")
    assert worker.state.stop_requests == 0

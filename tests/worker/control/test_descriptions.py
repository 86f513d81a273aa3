"""A worker tells what it runs now, in which phase, and with what memory; never a token."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.wire.descriptions import Description, decode_description
from nats_executor.wire.messages import Kind, State
from nats_executor.wire.names import Verb
from nats_worker.control import descriptions
from nats_worker.processes import memory
from nats_worker.processes.memory import MemoryReading
from tests.support.fake_pool import PID
from tests.support.waiting import wait_until
from tests.support.worker_stage import WorkerStage, task, token, worker_stage_fixture

if TYPE_CHECKING:
    from nats_executor.wire.descriptions import Carried
    from nats_worker.worker import Worker

__all__ = ["worker_stage_fixture"]

pytestmark = pytest.mark.anyio

INSTANCE: dict[str, Any] = {
    "id": "i1", "dag_id": "etl", "run_id": "r1", "task_id": "load", "map_index": 3, "try_number": 2
}  # fmt: skip


async def describe(worker_stage: WorkerStage, worker: Worker, *dispatches: str) -> Description:
    subject = worker_stage.names.control(worker.state.id, Verb.DESCRIBE)
    body = await worker_stage.broker.request(subject, " ".join(dispatches).encode(), timeout=5.0)
    assert b"secret" not in body
    return decode_description(body)


async def in_phase(worker_stage: WorkerStage, worker: Worker, phase: str) -> Carried:
    """Wait until the worker's only delivery is in a phase."""

    async def seen() -> Carried | None:
        found = (await describe(worker_stage, worker)).carried
        return found[0] if [one.phase for one in found] == [phase] else None

    found: Carried = await wait_until(seen, 5, phase)
    return found


async def test_a_delivery_goes_through_its_phases(worker_stage: WorkerStage) -> None:
    began = time.time()
    worker = await worker_stage.start()
    assert (await describe(worker_stage, worker)).carried == []

    worker_stage.pool.gate.clear()
    worker_stage.send(body={"token": token(), "ti": INSTANCE})
    claimed = await in_phase(worker_stage, worker, "claimed")
    worker_stage.pool.gate.set()
    starting = await in_phase(worker_stage, worker, "starting")
    run = await worker_stage.pool.run()
    run.begin()
    running = await in_phase(worker_stage, worker, "running")
    worker_stage.link_of(worker).fail_next("publish", 1000)
    run.finish()
    ending = await in_phase(worker_stage, worker, "ending")
    worker_stage.link_of(worker).failures.clear()
    await worker_stage.done()

    assert running == replace(claimed, phase="running", since=running.since, pid=PID)
    assert (running.dispatch_id, running.queue, running.kind) == ("d1", "default", Kind.TASK)
    where = (running.dag, running.run, running.task, running.map_index, running.try_number)
    assert where == ("etl", "r1", "load", 3, 2)
    assert (running.id, running.attempt, claimed.pid, starting.pid) == ("i1", 1, 0, 0)
    times = [began, claimed.since, starting.since, running.since, ending.since, time.time()]
    assert times == sorted(times)
    await worker_stage.idle(worker)
    assert (await describe(worker_stage, worker)).carried == []


async def test_what_waits_for_slots_and_what_looks_back_is_told(worker_stage: WorkerStage) -> None:
    worker_stage.settings = replace(worker_stage.settings, pool_slots_as_weight=True)
    worker = await worker_stage.start(concurrency=2)
    worker_stage.send(dispatch_id="light")
    (await worker_stage.pool.run()).begin()
    await worker_stage.reported(State.RUNNING, "light")

    worker_stage.send(body={"token": token(), "ti": INSTANCE | {"pool_slots": 2}})

    async def is_waiting() -> bool:
        found = (await describe(worker_stage, worker, "d1", "other")).carried
        return [(one.dag, one.phase) for one in found] == [("etl", "waiting")]

    await wait_until(is_waiting, 5, "the heavy one to wait")
    both = (await describe(worker_stage, worker)).carried
    assert [one.dispatch_id for one in both] == ["light", "d1"]  # the one that is so for longer
    worker_stage.link_of(worker).fail_next("last", 1000)
    (await worker_stage.pool.run()).finish()
    await in_phase(worker_stage, worker, "looking")
    worker_stage.link_of(worker).failures.clear()
    (await worker_stage.pool.run(1)).finish()
    await worker_stage.done()


async def test_a_token_that_is_being_renewed_is_told(
    worker_stage: WorkerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await worker_stage.start()
    held, go_on = asyncio.Event(), asyncio.Event()
    link = worker_stage.link_of(worker)
    publish = link.publish

    async def slow(subject: str, body: bytes, **conditions: Any) -> int:
        if b"expired" in body:
            held.set()
            await go_on.wait()
        return await publish(subject, body, **conditions)

    monkeypatch.setattr(link, "publish", slow)
    worker_stage.send(body={"token": token(-60), "ti": INSTANCE})
    await asyncio.wait_for(held.wait(), 5)

    assert (await in_phase(worker_stage, worker, "renewing")).dag == "etl"

    go_on.set()
    await worker_stage.reported(State.EXPIRED)
    await worker_stage.idle(worker)


async def test_a_second_delivery_hides_nothing(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await in_phase(worker_stage, worker, "running")
    [errand] = worker.crew.errands
    again = type(errand)(errand.shared, errand.queue, errand.delivery)
    worker.crew.errands.add(again)

    assert [one.phase for one in (await describe(worker_stage, worker)).carried] == ["running"]

    worker.crew.errands.discard(again)
    run.finish()
    await worker_stage.done()


async def test_a_message_that_cannot_be_read_is_told(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()
    worker_stage.link_of(worker).fail_next("last", 1000)
    worker_stage.put(b"garbage")

    found = await in_phase(worker_stage, worker, "looking")

    assert (found.dispatch_id, found.kind, found.dag, found.id) == ("d1", "", None, None)
    worker_stage.link_of(worker).failures.clear()
    await worker_stage.reported(State.FAILED)


async def test_a_callback_is_told_by_its_id(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()
    worker_stage.send(task(kind=Kind.CALLBACK, key=["c1"]))
    found = await in_phase(worker_stage, worker, "starting")

    assert (found.kind, found.id, found.dag) == ("ExecuteCallback", "c1", None)
    (await worker_stage.pool.run()).finish()
    await worker_stage.done()


async def test_versions_times_and_memory_are_told(
    worker_stage: WorkerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "bytes_of_tree", lambda _: 5)
    reading = MemoryReading(used=6, limit=7, what="cgroup")
    monkeypatch.setattr(memory, "read", lambda: reading)
    worker = await worker_stage.start()
    plan = replace(worker.state.plan, airflow="3.3.2", python="3.12.1")
    worker.state.plan = plan
    worker_stage.link_of(worker).connected_since = time.monotonic() - 60

    found = await describe(worker_stage, worker)

    assert (found.worker, found.name) == (worker.state.id, "me")
    assert (found.version, found.airflow, found.python) == ("1", "3.3.2", "3.12.1")
    assert found.started_at == worker.state.started_at
    assert found.at - found.connected_at == pytest.approx(60, abs=30)
    assert (found.memory_bytes, found.memory_used_bytes) == (5, 6)
    assert (found.memory_limit_bytes, found.memory_of) == (7, "cgroup")
    # Who names dispatches does not wait for that.
    assert (await describe(worker_stage, worker, "d1")).memory_bytes == 0


async def test_a_kernel_that_hangs_does_not_keep_the_answer(
    worker_stage: WorkerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than one thread waits for it, however many ask."""
    looks: list[int] = []
    is_over = threading.Event()

    def hang(pid: int) -> int:
        looks.append(pid)
        is_over.wait(30)
        return 5

    monkeypatch.setattr(memory, "bytes_of_tree", hang)
    monkeypatch.setattr(descriptions, "KERNEL_SECONDS", 0.01)
    worker = await worker_stage.start()
    try:
        for _ in range(3):
            found = await describe(worker_stage, worker)
            assert (found.memory_bytes, found.memory_limit_bytes) == (0, 0)
        assert len(looks) == 1
    finally:
        is_over.set()

    async def is_seen() -> bool:
        return (await describe(worker_stage, worker)).memory_bytes == 5

    await wait_until(is_seen, 5, "the memory")

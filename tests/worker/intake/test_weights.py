"""Tasks that take several slots: kept until they fit, never claimed before, never in the way."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.wire.messages import Presence, State, decode
from nats_executor.wire.names import Verb
from tests.support.waiting import wait_until
from tests.support.worker_stage import ACK_WAIT, WorkerStage, token, worker_stage_fixture

if TYPE_CHECKING:
    from nats_worker.worker import Worker
    from tests.support.fake_pool import FakeRun

__all__ = ["worker_stage_fixture"]

pytestmark = pytest.mark.anyio


@pytest.fixture(name="weighing")
async def weighing_fixture(worker_stage: WorkerStage) -> WorkerStage:
    worker_stage.settings = replace(worker_stage.settings, pool_slots_as_weight=True)
    return worker_stage


def send(worker_stage: WorkerStage, number: int, weight: Any, queue: str = "default") -> None:
    name = f"d{number}"
    body = {"token": token(), "ti": {"id": name, "pool_slots": weight}}
    worker_stage.send(dispatch_id=name, queue=queue, body=body)


async def keeping(
    worker_stage: WorkerStage, weight: int = 3, concurrency: int = 4
) -> tuple[Worker, FakeRun]:
    """Return a worker that has a light task running and keeps a heavy one, `d2`."""
    worker = await worker_stage.start(concurrency=concurrency)
    send(worker_stage, 1, 2)
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)
    send(worker_stage, 2, weight)
    await wait_until(lambda: "d2" in worker.leases, 5, "the heavy one to be kept")
    worker_stage.events.clear()
    return worker, run


def flights(worker_stage: WorkerStage) -> int:
    names = worker_stage.names
    return len(worker_stage.server.consumer(names.tasks_stream, names.consumer("default")).flights)


async def test_tasks_fill_a_worker_by_their_weights(weighing: WorkerStage) -> None:
    worker = await weighing.start(concurrency=4)
    for number, weight in enumerate((2, 1, 1, 1), start=1):
        send(weighing, number, weight)

    runs = [await weighing.pool.run(number) for number in range(3)]

    assert (worker.state.slots.used, flights(weighing)) == (4, 3)
    record = decode(
        Presence,
        await weighing.broker.request(
            weighing.names.control(worker.state.id, Verb.PING), b"", timeout=1
        ),
    )
    assert (record.running, record.concurrency) == (4, 4)
    runs[1].finish()
    await weighing.pool.run(3)
    for run in weighing.pool.living:
        run.finish()


async def test_a_backlog_of_heavy_tasks_is_taken_as_it_fits(weighing: WorkerStage) -> None:
    """None is taken only to be handed back, which would cost it its turn."""
    for number in range(1, 6):
        send(weighing, number, 2)
    worker = await weighing.start(concurrency=4)
    for number in range(5):
        run = await weighing.pool.run(number)
        assert run.dispatch_id == f"d{number + 1}"
        if number:
            assert (worker.state.slots.used, flights(weighing)) == (4, 2)
            weighing.pool.requested[number - 1].finish()
            await weighing.done(f"d{number}")

    weighing.pool.requested[4].finish()
    await weighing.done("d5")
    assert "nak" not in weighing.events


async def test_without_the_setting_every_task_takes_one_slot(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start(concurrency=4)
    for number in range(1, 5):
        send(worker_stage, number, 4)

    for number in range(4):
        (await worker_stage.pool.run(number)).begin()

    assert worker.state.slots.used == 4
    for run in worker_stage.pool.living:
        run.finish()


@pytest.mark.parametrize("weight", [None, 0, "8", -1, True, 10**15])
async def test_a_weight_that_makes_no_sense_harms_nobody(
    weighing: WorkerStage, weight: Any
) -> None:
    worker = await weighing.start(concurrency=2)
    send(weighing, 1, weight)

    run = await weighing.pool.run()

    assert worker.state.slots.used == (2 if weight == 10**15 else 1)
    run.finish()
    await weighing.done()


async def test_a_message_that_cannot_be_read_becomes_a_dead_letter(weighing: WorkerStage) -> None:
    await weighing.start()
    weighing.put(b"nonsense")

    await weighing.done()

    assert len(weighing.dead_letters()) == 1


async def test_what_does_not_fit_is_kept_unclaimed_and_starts_when_it_does(
    weighing: WorkerStage,
) -> None:
    """Nothing overtakes it, though one slot and then two are free."""
    worker, run = await keeping(weighing)
    send(weighing, 3, 1)
    assert weighing.report("d2") is None
    assert worker.state.slots.free == 0
    await wait_until(
        lambda: worker.state.intake and not worker.state.intake._waits, 5, "the waits to end"
    )
    assert flights(weighing) == 2

    run.finish()
    heavy = await weighing.pool.run(1)
    light = await weighing.pool.run(2)

    assert [heavy.dispatch_id, light.dispatch_id] == ["d2", "d3"]
    assert (await weighing.reported(State.CLAIMED, "d2")).attempt == 1
    assert "nak" not in weighing.events
    heavy.finish()
    light.finish()
    await weighing.done("d2")
    await weighing.done("d3")


async def test_what_is_kept_stays_this_workers(
    weighing: WorkerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease is renewed, so that no other worker gets it as long as this one lives."""
    renewed: list[str] = []
    worker, run = await keeping(weighing)
    delivery = worker.leases._held["d2"].delivery
    renew = delivery.in_progress

    async def in_progress() -> None:
        renewed.append("d2")
        await renew()

    monkeypatch.setattr(delivery, "in_progress", in_progress)

    await wait_until(lambda: renewed, 2 * ACK_WAIT, "a renewal")

    run.finish()
    (await weighing.pool.run(1)).finish()
    await weighing.done("d2")


async def test_a_second_one_that_does_not_fit_goes_to_another_worker(weighing: WorkerStage) -> None:
    """Both queues wake the worker in one step of its loop."""
    worker = await weighing.start(queues=("default", "heavy"), concurrency=4)
    send(weighing, 1, 2)
    run = await weighing.pool.run()
    await wait_until(
        lambda: worker.state.intake and len(worker.state.intake._waits) == 6, 5, "the waits"
    )
    weighing.events.clear()
    send(weighing, 2, 3)
    send(weighing, 3, 3, queue="heavy")
    await weighing.counted("nak", 1)
    kept = "d2" if "d2" in worker.leases else "d3"

    other = await weighing.start("other", queues=("default", "heavy"), concurrency=4)
    second = await weighing.pool.run(1)

    assert {kept, second.dispatch_id} == {"d2", "d3"}
    assert other.state.slots.used == 3
    second.finish()
    run.finish()
    (await weighing.pool.run(2)).finish()


async def test_a_drain_hands_back_what_is_kept(weighing: WorkerStage) -> None:
    worker, run = await keeping(weighing)
    heir = await weighing.start("heir", concurrency=4)

    worker.ask_to_stop(signal.SIGTERM)

    heavy = await weighing.pool.run(1)
    assert heavy.dispatch_id == "d2"
    assert (await weighing.reported(State.CLAIMED, "d2")).worker == heir.state.id
    assert weighing.events[:2] == ["nak", "claimed"]
    heavy.finish()
    run.finish()
    await weighing.done("d2")


async def test_what_is_kept_may_be_revoked(weighing: WorkerStage) -> None:
    worker, run = await keeping(weighing)
    subject = weighing.names.control(worker.state.id, Verb.STOP)

    assert await weighing.broker.request(subject, b"d2", timeout=1.0) == b"stopping"

    await weighing.reported(State.DROPPED, "d2")
    await weighing.done("d2")
    assert len(weighing.pool.requested) == 1
    assert worker.state.slots.used == 2
    run.finish()


async def test_a_redelivery_of_a_heavy_task_that_runs_only_renews_its_lease(
    weighing: WorkerStage,
) -> None:
    """It must not be kept beside itself: the one slot that is free is enough for that."""
    worker = await weighing.start(concurrency=4)
    send(weighing, 1, 3)
    run = await weighing.pool.run()
    run.begin()
    await weighing.reported(State.RUNNING)

    weighing.server.advance(ACK_WAIT + 1)
    await wait_until(lambda: worker.leases._held["d1"].delivery.num_delivered == 2, 5, "it")
    await wait_until(lambda: worker.state.slots.used == 3, 5, "the slot of the redelivery")

    assert worker.state.slots.kept is None
    run.finish()
    await weighing.done()


@pytest.mark.parametrize("order", [Verb.SET_CONCURRENCY, Verb.REMOVE_QUEUE])
async def test_changes_while_a_task_is_kept(weighing: WorkerStage, order: Verb) -> None:
    worker, _ = await keeping(weighing)
    await weighing.broker.request(
        weighing.names.control(worker.state.id, Verb.ADD_QUEUE), b"heavy", timeout=1
    )

    body = b"5" if order is Verb.SET_CONCURRENCY else b"default"
    await weighing.broker.request(weighing.names.control(worker.state.id, order), body, timeout=1)

    if order is Verb.SET_CONCURRENCY:
        assert (await weighing.pool.run(1)).dispatch_id == "d2"
    else:
        await weighing.counted("nak", 1)
        assert "d2" not in worker.leases
        assert worker.state.slots.free == 2
        await weighing.start("heir", concurrency=4)
        await weighing.pool.run(1)
    for living in weighing.pool.living:
        living.finish()
    await weighing.done("d2")


async def test_what_is_kept_is_handed_back_when_memory_is_short(weighing: WorkerStage) -> None:
    worker, run = await keeping(weighing)

    worker.take_nothing("memory")
    await weighing.counted("nak", 1)
    run.finish()
    await weighing.done("d1")

    assert len(weighing.pool.requested) == 1
    worker.state.slots.resume("memory")
    (await weighing.pool.run(1)).finish()
    await weighing.done("d2")

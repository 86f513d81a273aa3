"""A worker that an operator drains: it takes nothing, stays, and remembers that at its start."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from nats_executor.errors import AccessDenied, BrokerUnavailable
from nats_executor.wire.messages import Drain, Obeyed, State, decode, encode
from nats_executor.wire.names import Verb
from tests.support.fake_broker import FakeBroker
from tests.support.waiting import wait_until
from tests.support.worker_stage import WorkerStage, worker_stage_fixture

if TYPE_CHECKING:
    from nats_executor.broker.port import Stored
    from nats_worker.worker import Worker

__all__ = ["worker_stage_fixture"]

pytestmark = pytest.mark.anyio

ORDER = Drain(worker="me", by="ann", at=1.0, reason="new driver")
READY = "drained by ann (new driver); to let it take workloads again: "
UNREADABLE = "NATS has a note that cannot be read"


async def order(worker_stage: WorkerStage, worker: Worker, verb: Verb, body: bytes) -> Obeyed:
    subject = worker_stage.names.control(worker.state.id, verb)
    return decode(Obeyed, await worker_stage.broker.request(subject, body, timeout=1.0))


async def drain(worker_stage: WorkerStage, worker: Worker, said: Drain = ORDER) -> Obeyed:
    return await order(worker_stage, worker, Verb.DRAIN, encode(said))


async def undrain(worker_stage: WorkerStage, worker: Worker) -> Obeyed:
    return await order(worker_stage, worker, Verb.UNDRAIN, b"ann")


def note(worker_stage: WorkerStage, body: bytes, queue: str = "default") -> None:
    worker_stage.server.put(worker_stage.names.worker_hold(queue, "me"), body)


async def takes_nothing(worker_stage: WorkerStage, worker: Worker) -> None:
    """See that a worker pulls from nothing, with a task that another one takes."""
    await wait_until(
        lambda: worker.state.intake is None or not worker.state.intake._waits, 5, "no more pulls"
    )
    before = len(worker_stage.pool.requested)
    worker_stage.send(dispatch_id="other")
    heir = await worker_stage.start(name="heir")
    run = await worker_stage.pool.run(before)
    run.begin()
    assert (await worker_stage.reported(State.RUNNING, "other")).worker == heir.state.id
    run.finish()
    await worker_stage.done("other")
    await worker_stage.stop(heir)


async def works(worker_stage: WorkerStage, dispatch_id: str) -> None:
    before = len(worker_stage.pool.requested)
    worker_stage.send(dispatch_id=dispatch_id)
    (await worker_stage.pool.run(before)).finish()
    await worker_stage.done(dispatch_id)


async def test_a_drained_worker_goes_on_with_what_it_has_and_takes_nothing(
    worker_stage: WorkerStage,
) -> None:
    worker = await worker_stage.start(concurrency=4)
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)

    told = await drain(worker_stage, worker)

    assert (told.is_changed, told.refusal, told.running) == (True, "", 1)
    record = worker_stage.presence()
    assert record
    assert (record.draining, record.drained_by, record.drain_reason) == (True, "ann", "new driver")
    obstacles = list(worker.health._obstacles())
    assert f"{READY}airflow nats workers undrain me" in obstacles
    await takes_nothing(worker_stage, worker)
    assert run.signals == []
    run.finish()
    await worker_stage.done()
    assert not worker_stage.lives[worker.state.id].done()

    assert (await undrain(worker_stage, worker)).is_changed
    record = worker_stage.presence()
    assert record
    assert (record.draining, record.drained_by, record.drain_reason) == (False, "", "")
    assert not any(READY in obstacle for obstacle in worker.health._obstacles())
    await works(worker_stage, "d2")


async def test_what_has_not_started_goes_to_another_worker(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()
    worker_stage.pool.gate.clear()
    worker_stage.send()
    await worker_stage.reported(State.CLAIMED)

    await drain(worker_stage, worker)
    worker_stage.pool.gate.set()

    assert (await worker_stage.reported(State.RELEASED)).info == "this worker takes nothing more"
    assert worker_stage.pool.requested == []
    await undrain(worker_stage, worker)
    (await worker_stage.pool.run()).finish()
    await worker_stage.done()


async def test_asking_twice_changes_only_the_reason(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()
    await drain(worker_stage, worker)

    later = Drain(worker="me", by="b" * 999, at=2.0, reason="r" * 999)
    assert not (await drain(worker_stage, worker, later)).is_changed

    assert worker.state.drained is not None
    assert (worker.state.drained.by, worker.state.drained.reason) == ("b" * 250, "r" * 500)
    assert (await undrain(worker_stage, worker)).is_changed
    assert not (await undrain(worker_stage, worker)).is_changed


async def test_a_drain_without_a_name_is_one(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()

    await drain(worker_stage, worker, Drain(worker="me", by="", at=1.0))

    record = worker_stage.presence()
    assert record
    assert (record.draining, record.drained_by) == (True, "unknown")


async def test_an_order_that_cannot_be_read_changes_nothing(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()

    refused = await order(worker_stage, worker, Verb.DRAIN, b"\xc1")

    assert refused.refusal.startswith("the order cannot be read: ")
    await works(worker_stage, "d1")


async def test_a_worker_that_stops_may_be_drained_too(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)
    worker.ask_to_stop(signal.SIGTERM)
    await wait_until(lambda: worker.state.is_draining, 5, "the stop")

    assert (await drain(worker_stage, worker)).refusal == ""

    run.finish()
    await worker_stage.done()


# At the start


async def begins_drained(worker_stage: WorkerStage, by: str = "ann") -> Worker:
    worker = worker_stage.launch(queues=("heavy", "default"))

    def is_drained() -> bool:
        record = worker_stage.presence()
        return record is not None and record.drained_by == by

    await wait_until(is_drained, 5, "the worker to say that it is drained")
    return worker


@pytest.mark.parametrize("queue", ["default", "heavy"])
async def test_a_note_drains_a_worker_before_it_takes_anything(
    worker_stage: WorkerStage, queue: str
) -> None:
    note(worker_stage, encode(ORDER), queue)
    worker_stage.send()

    worker = await begins_drained(worker_stage)

    await wait_until(lambda: worker.state.intake, 5, "the intake")
    assert worker_stage.pool.requested == []
    await undrain(worker_stage, worker)
    (await worker_stage.pool.run()).finish()
    await worker_stage.done()


@pytest.mark.parametrize("body", [b"\xc1", encode(Drain(worker="you", by="eve", at=1.0))])
async def test_a_note_that_cannot_be_read_drains_too(
    worker_stage: WorkerStage, body: bytes
) -> None:
    note(worker_stage, body)

    worker = await begins_drained(worker_stage, by="unknown")

    record = worker_stage.presence()
    assert record
    assert record.drain_reason == UNREADABLE
    await undrain(worker_stage, worker)
    await works(worker_stage, "d1")


async def test_a_note_that_was_deleted_is_none(worker_stage: WorkerStage) -> None:
    note(worker_stage, encode(ORDER))
    note(worker_stage, b"")
    worker_stage.server.put(worker_stage.names.worker_hold("default", "you"), encode(ORDER))

    await worker_stage.start()

    await works(worker_stage, "d1")


async def test_without_the_bucket_nobody_has_drained(worker_stage: WorkerStage) -> None:
    del worker_stage.server.streams[worker_stage.names.holds_stream]

    await worker_stage.start()

    await works(worker_stage, "d1")


@dataclass
class Gate:
    """Keeps the answers to looks for notes back."""

    looks: int = 0
    error: Exception | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
def gate(worker_stage: WorkerStage, monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate, last = Gate(), FakeBroker.last

    async def look(self: FakeBroker, stream: str, subject: str) -> Stored | None:
        found = await last(self, stream, subject)
        if stream == worker_stage.names.holds_stream:
            gate.looks += 1
            gate.asked.set()
            await gate.open.wait()
            if gate.error:
                raise gate.error
        return found

    monkeypatch.setattr(FakeBroker, "last", look)
    return gate


async def test_until_nats_answers_a_worker_takes_nothing(
    worker_stage: WorkerStage, gate: Gate
) -> None:
    note(worker_stage, encode(ORDER))
    worker_stage.send()
    worker = worker_stage.launch()
    gate.error = BrokerUnavailable("away")
    gate.open.set()

    await wait_until(lambda: gate.looks > 1, 5, "another look")
    assert worker.state.intake is None
    assert worker_stage.pool.requested == []
    gate.error = None

    await wait_until(lambda: worker.state.drained, 5, "the drain")
    await undrain(worker_stage, worker)
    (await worker_stage.pool.run()).finish()
    await worker_stage.done()


async def test_a_login_of_the_release_before_keeps_no_worker_from_work(
    worker_stage: WorkerStage, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    note(worker_stage, encode(ORDER))
    worker_stage.launch()
    gate.error = AccessDenied("no")
    gate.open.set()

    await works(worker_stage, "d1")

    assert "nobody can say whether this worker is drained: no; next: it works" in caplog.messages


async def test_an_order_while_it_looks_is_later_than_the_note(
    worker_stage: WorkerStage, gate: Gate
) -> None:
    note(worker_stage, encode(ORDER))
    worker = worker_stage.launch()
    await gate.asked.wait()

    await undrain(worker_stage, worker)
    gate.open.set()

    await works(worker_stage, "d1")
    assert worker.state.drained is None

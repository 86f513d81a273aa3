"""A worker that is changed while it runs: by whomever, and what becomes of what it has."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_executor.topology import setup
from nats_executor.wire.messages import Obeyed, State, decode
from nats_executor.wire.names import ORDERS, Verb
from nats_worker.control import orders
from nats_worker.control.orders import (
    LONGEST_QUEUE,
    MOST_SLOTS,
    OrderRefused,
    concurrency_in,
    queue_in,
)
from nats_worker.control.presence import Announcer
from tests.support.presences import presence_of, records_of
from tests.support.waiting import wait_until
from tests.support.worker_stage import WorkerStage, worker_stage_fixture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.broker.port import Delivery
    from nats_worker.worker import Worker

__all__ = ["worker_stage_fixture"]

pytestmark = pytest.mark.anyio


async def tell(worker_stage: WorkerStage, worker: Worker, order: str, body: bytes | str) -> Obeyed:
    body = body.encode() if isinstance(body, str) else body
    subject = worker_stage.names.control(worker.state.id, Verb(order))
    return decode(Obeyed, await worker_stage.broker.request(subject, body, timeout=1.0))


async def started(worker_stage: WorkerStage, **options: object) -> Worker:
    """Start a worker and return once it waits for workloads."""
    worker = await worker_stage.start(**options)  # type: ignore[arg-type]
    await wait_until(lambda: worker.state.intake and worker.state.intake._waits, 5, "a wait")
    return worker


def in_flight(worker_stage: WorkerStage, queue: str = "default") -> int:
    names = worker_stage.names
    return len(worker_stage.server.consumer(names.tasks_stream, names.consumer(queue)).flights)


async def finish_all(worker_stage: WorkerStage, number: int) -> None:
    for run in worker_stage.pool.requested:
        if not run.is_over:
            run.finish()
    for dispatch in range(1, number + 1):
        await worker_stage.done(f"d{dispatch}")


# Concurrency


async def test_more_slots_are_filled_at_once(worker_stage: WorkerStage) -> None:
    worker = await started(worker_stage, concurrency=1)
    for number in (1, 2, 3):
        worker_stage.send(dispatch_id=f"d{number}")
    await worker_stage.pool.run(0)

    outcome = await tell(worker_stage, worker, "set-concurrency", "3")

    assert (outcome.concurrency, outcome.is_changed, outcome.refusal) == (3, True, "")
    await worker_stage.pool.run(2)
    record = worker_stage.presence()
    assert record
    assert record.concurrency == 3
    await finish_all(worker_stage, 3)


async def test_fewer_slots_stop_nothing_and_take_nothing(worker_stage: WorkerStage) -> None:
    worker = await started(worker_stage, concurrency=4)
    for number in (1, 2, 3):
        worker_stage.send(dispatch_id=f"d{number}")
    runs = [await worker_stage.pool.run(number) for number in range(3)]

    await tell(worker_stage, worker, "set-concurrency", "2")
    await wait_until(
        lambda: worker.state.intake and not worker.state.intake._waits, 5, "the waits to end"
    )
    worker_stage.send(dispatch_id="d4")
    for run in runs[:2]:
        assert not runs[2].is_over
        assert len(worker_stage.pool.requested) == 3
        run.finish()

    # One runs now, which is below two.
    (await worker_stage.pool.run(3)).begin()
    assert [run.signals for run in runs] == [[], [], []]
    await finish_all(worker_stage, 4)


async def test_what_was_asked_for_before_the_slots_became_fewer_goes_back(
    worker_stage: WorkerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await started(worker_stage, concurrency=3)
    assert worker.state.intake
    (lane, *_) = [lane for lane in worker.state.intake._pulls if not lane.band]
    pulls = worker.state.intake._pulls[lane]
    take, gate, taking = pulls.take, asyncio.Event(), asyncio.Event()

    async def take_slowly(batch: int) -> Sequence[Delivery]:
        taken = await take(batch)
        if len(taken) > 1:
            taking.set()
            await gate.wait()
        return taken

    monkeypatch.setattr(pulls, "take", take_slowly)
    for number in (1, 2, 3):
        worker_stage.send(dispatch_id=f"d{number}")
    await taking.wait()
    await tell(worker_stage, worker, "set-concurrency", "1")
    gate.set()
    await worker_stage.pool.run()

    await worker_stage.counted("nak", 2)

    assert len(worker_stage.pool.requested) == 1
    await tell(worker_stage, worker, "set-concurrency", "3")
    await worker_stage.pool.run(2)
    await finish_all(worker_stage, 3)


# Queues


async def test_a_queue_is_added_and_served_at_once(worker_stage: WorkerStage) -> None:
    worker = await started(worker_stage)
    worker_stage.send(queue="heavy")

    outcome = await tell(worker_stage, worker, "add-queue", "heavy")

    assert (outcome.queues, outcome.is_changed) == (["default", "heavy"], True)
    record = worker_stage.presence()
    assert record
    assert record.queues == ["default", "heavy"]
    (await worker_stage.pool.run()).finish()
    await wait_until(lambda: not worker_stage.is_queued(queue="heavy"), 5, "its end")
    worker_stage.send(dispatch_id="d2")
    (await worker_stage.pool.run(1)).finish()
    await worker_stage.done("d2")


@pytest.mark.parametrize("queue", [" lead and trail ", "a,b", " "])
async def test_a_queue_of_any_name_is_added_and_served(
    worker_stage: WorkerStage, queue: str
) -> None:
    await setup.apply(worker_stage.broker, worker_stage.settings, [queue])
    worker = await started(worker_stage)
    worker_stage.send(queue=queue)

    outcome = await tell(worker_stage, worker, "add-queue", queue)

    assert (outcome.queues, outcome.refusal) == (["default", queue], "")
    (await worker_stage.pool.run()).finish()
    await wait_until(lambda: not worker_stage.is_queued(queue=queue), 20, "its end")


async def test_a_queue_that_nobody_has_used_yet_may_be_added(worker_stage: WorkerStage) -> None:
    """An executor creates its consumers with the first workload."""
    worker = await started(worker_stage)

    assert (await tell(worker_stage, worker, "add-queue", "gr\u00f6\u00dfe.*")).is_changed
    worker_stage.send()

    (await worker_stage.pool.run()).finish()
    await worker_stage.done()


async def test_a_removed_queue_is_left_to_others_and_its_workload_goes_on(
    worker_stage: WorkerStage,
) -> None:
    worker = await started(worker_stage, queues=("default", "heavy"))
    worker_stage.send(queue="heavy")
    run = await worker_stage.pool.run()

    outcome = await tell(worker_stage, worker, "remove-queue", "heavy")
    intake = worker.state.intake
    assert intake
    await wait_until(
        lambda: (
            worker.state.intake
            and {lane.queue for lane in worker.state.intake._pulls} == {"default"}
        ),
        5,
        "its pulls to be closed",
    )
    worker_stage.send(dispatch_id="d2", queue="heavy")
    worker_stage.send(dispatch_id="d3")
    (await worker_stage.pool.run(1)).finish()
    await worker_stage.done("d3")

    assert (outcome.queues, outcome.is_changed) == (["default"], True)
    assert in_flight(worker_stage, "heavy") == 1
    assert run.signals == []
    run.finish()
    await wait_until(lambda: not worker_stage.is_queued(queue="heavy"), 5, "the end of what ran")
    assert worker_stage.is_queued("d2", "heavy")
    assert len(worker_stage.pool.requested) == 2


async def test_what_arrives_from_a_queue_as_it_is_removed_goes_back(
    worker_stage: WorkerStage,
) -> None:
    worker = await started(worker_stage, queues=("default", "heavy"))
    # In one step of the loop: the wait has it when the intake learns that it is not wanted.
    worker_stage.send(queue="heavy")
    announcer = Announcer(worker_stage.broker, worker_stage.settings, worker.state.presence)
    orders.Changes(
        worker.state, worker.crew, announcer, worker.drains, worker.obey_shut_down
    ).remove_queue("heavy")

    heir = await started(worker_stage, name="heir", queues=("heavy",))
    (await worker_stage.pool.run()).finish()
    await wait_until(lambda: not worker_stage.is_queued(queue="heavy"), 5, "its end")

    report = worker_stage.report(queue="heavy")
    assert report
    assert (report.worker, report.attempt) == (heir.state.id, 1)


async def test_a_queue_comes_back(worker_stage: WorkerStage) -> None:
    worker = await started(worker_stage, queues=("default", "heavy"))
    for order in ("remove-queue", "add-queue") * 3:
        assert (await tell(worker_stage, worker, order, "heavy")).is_changed
    worker_stage.send(queue="heavy")

    (await worker_stage.pool.run()).finish()
    await wait_until(lambda: not worker_stage.is_queued(queue="heavy"), 5, "its end")


async def test_a_full_worker_learns_of_its_queues_as_well(worker_stage: WorkerStage) -> None:
    worker = await started(worker_stage, concurrency=1)
    worker_stage.send()
    run = await worker_stage.pool.run()
    await tell(worker_stage, worker, "add-queue", "heavy")
    await tell(worker_stage, worker, "remove-queue", "default")
    worker_stage.send(dispatch_id="d2")
    worker_stage.send(dispatch_id="d3", queue="heavy")

    run.finish()

    (await worker_stage.pool.run(1)).finish()
    await wait_until(lambda: not worker_stage.is_queued("d3", "heavy"), 5, "its end")
    assert worker_stage.is_queued("d2")
    assert in_flight(worker_stage) == 0


# Orders that change nothing


@pytest.mark.parametrize(
    ("order", "body"),
    [("set-concurrency", "2"), ("add-queue", "default"), ("remove-queue", "heavy")],
)
async def test_what_is_so_already_is_no_change(
    worker_stage: WorkerStage, order: str, body: str
) -> None:
    worker = await started(worker_stage, concurrency=2)

    outcome = await tell(worker_stage, worker, order, body)

    assert outcome == Obeyed(queues=["default"], concurrency=2, running=0)


@pytest.mark.parametrize(
    ("order", "body", "reason"),
    [
        ("remove-queue", b"default", "'default' is its last queue; to take nothing, stop it"),
        ("set-concurrency", b"0", "'0' is no number from 1 to 10000"),
        ("set-concurrency", b"10001", "'10001' is no number from 1 to 10000"),
        ("set-concurrency", b"-1", "'-1' is no number from 1 to 10000"),
        ("set-concurrency", b"4\n", "is no number"),
        ("set-concurrency", "\u0664".encode(), "is no number"),
        ("set-concurrency", b"9" * 10_000, "is no number"),
        ("set-concurrency", b"", "'' is no number"),
        ("add-queue", b"", "'' is no name of a queue"),
        ("add-queue", b"a\nb", "is no name of a queue"),
        ("add-queue", b"\x1b[2J", "is no name of a queue"),
        ("add-queue", b"\xff", "is no name of a queue"),
        ("add-queue", b"q" * 257, "is no name of a queue"),
        ("remove-queue", b"\xff", "is no name of a queue"),
    ],
)
async def test_nonsense_is_refused_with_a_reason(
    worker_stage: WorkerStage, order: str, body: bytes, reason: str
) -> None:
    worker = await started(worker_stage)

    outcome = await tell(worker_stage, worker, order, body)

    assert reason in outcome.refusal
    assert len(outcome.refusal) < 200
    assert (outcome.queues, outcome.concurrency) == (["default"], 2)
    assert not outcome.is_changed


async def test_nobody_makes_a_worker_pull_from_any_number_of_queues(
    worker_stage: WorkerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "MOST_QUEUES", 2)
    worker = await started(worker_stage)
    await tell(worker_stage, worker, "add-queue", "a")

    outcome = await tell(worker_stage, worker, "add-queue", "b")

    assert outcome.refusal == "it serves 2 queues and takes no more"


async def test_a_worker_that_stops_changes_no_more(worker_stage: WorkerStage) -> None:
    worker = await started(worker_stage)
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)
    worker.ask_to_stop(signal.SIGTERM)
    await wait_until(lambda: worker.state.is_draining, 5, "the drain")

    for order in ORDERS:
        if order not in {Verb.DRAIN, Verb.SHUT_DOWN}:
            assert (await tell(worker_stage, worker, order, "4")).refusal == "it stops"
    run.finish()
    await worker_stage.done()


@given(st.binary(max_size=300))
def test_any_order_is_read_or_refused(body: bytes) -> None:
    for read in (concurrency_in, queue_in):
        try:
            value = read(body)
        except OrderRefused as exc:
            assert str(exc).isprintable()  # noqa: PT017 - both outcomes are right
        else:
            assert str(value).isprintable()
            assert len(str(value)) <= LONGEST_QUEUE
            assert not isinstance(value, int) or 1 <= value <= MOST_SLOTS


async def test_a_queue_in_which_another_worker_has_the_name_is_refused(
    worker_stage: WorkerStage,
) -> None:
    worker = await started(worker_stage)
    await worker_stage.living("other.1")
    for subject, body in records_of(
        worker_stage.names, presence_of("me", "heavy", worker="other.1")
    ):
        worker_stage.server.put(subject, body)

    outcome = await tell(worker_stage, worker, "add-queue", "heavy")

    assert "a worker named 'me' runs already on host-7" in outcome.refusal
    assert "for queue 'heavy'" in outcome.refusal
    assert worker.state.queues == ["default"]

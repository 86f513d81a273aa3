"""Pulling: as many as fit, every queue in its turn, and nothing kept that cannot run here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from nats_executor.errors import AccessDenied, BrokerError
from nats_executor.topology import setup
from nats_executor.wire.names import Lane
from nats_worker.intake import intake as intake_module
from nats_worker.intake.intake import Intake
from nats_worker.intake.slots import Holding, Slots
from tests.support.emptying import empty
from tests.support.fake_broker import FakeServer
from tests.support.fixtures import settings_for
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

    from nats_executor.broker.port import Delivery, Pulls

pytestmark = pytest.mark.anyio


class IntakeStage:
    """An intake and what it accepted, as (queue, dispatch id)."""

    def __init__(
        self, server: FakeServer, queues: Sequence[str], concurrency: int, **options: object
    ) -> None:
        self.server = server
        self.settings = settings_for("nats://127.0.0.1:4222", **options)
        self.names = self.settings.names
        self.broker = server.broker()
        self.slots = Slots(concurrency)
        self.accepted: list[tuple[str, str]] = []
        self.deliveries: list[Delivery] = []
        self.holdings: list[Holding] = []
        self.intake = Intake(self.broker, self.settings, queues, self.slots, self.accept)
        self.life: asyncio.Task[None] | None = None

    def accept(self, queue: str, delivery: Delivery) -> None:
        self.holdings.append(self.slots.take())
        self.accepted.append((queue, self.names.place(delivery.subject).dispatch_id))
        self.deliveries.append(delivery)

    def open(self) -> None:
        self.life = asyncio.create_task(self.intake.run())

    async def close(self) -> None:
        if self.life is not None:
            self.life.cancel()
            await asyncio.wait([self.life], timeout=5)
            assert self.life.cancelled()

    async def finish_one(self) -> None:
        await self.deliveries.pop(0).ack()
        self.slots.give(self.holdings.pop(0))

    def fill(self, queue: str, number: int, *, band: int = 0) -> None:
        name = f"{queue}{band or ''}"
        for i in range(number):
            self.server.put(
                self.names.task(queue, f"{name}-{i}" if band else f"{name}{i}", band), b""
            )

    def in_flight(self, queue: str = "a") -> int:
        consumer = self.names.consumer(queue)
        return len(self.server.consumer(self.names.tasks_stream, consumer).flights)

    async def has(self, number: int) -> None:
        await wait_until(lambda: len(self.accepted) >= number, 5, f"{number} deliveries")


@pytest.fixture
async def server() -> FakeServer:
    server = FakeServer()
    await setup.apply(server.broker(), settings_for("nats://127.0.0.1:4222"), ["a", "b", "c"])
    return server


class IntakeStages:
    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.opened: list[IntakeStage] = []

    def open(self, queues: Sequence[str] = ("a",), concurrency: int = 4) -> IntakeStage:
        stage = IntakeStage(self.server, queues, concurrency)
        self.opened.append(stage)
        stage.open()
        return stage


@pytest.fixture
async def stages(server: FakeServer) -> AsyncIterator[IntakeStages]:
    stages = IntakeStages(server)
    yield stages
    for stage in stages.opened:
        await stage.close()


async def test_no_more_is_taken_than_there_are_slots(stages: IntakeStages) -> None:
    stage = stages.open(concurrency=3)
    stage.fill("a", 10)
    await stage.has(3)

    for taken in range(4, 11):
        assert stage.in_flight() == 3
        await stage.finish_one()
        await stage.has(taken)
        assert stage.slots.used == 3

    assert [dispatch for _, dispatch in stage.accepted] == [f"a{i}" for i in range(10)]


async def test_what_comes_one_by_one_is_taken_at_once(stages: IntakeStages) -> None:
    stage = stages.open(concurrency=3)
    for number in range(1, 4):
        stage.server.put(stage.names.task("a", f"d{number}"), b"")
        await stage.has(number)


async def test_a_flooded_queue_leaves_the_others_their_share(stages: IntakeStages) -> None:
    stage = IntakeStage(stages.server, ["a", "b"], 4)
    stage.fill("a", 100)
    stage.fill("b", 10)
    stage.open()
    stages.opened.append(stage)
    await stage.has(4)
    for taken in range(5, 31):
        await stage.finish_one()
        await stage.has(taken)

    queues = [queue for queue, _ in stage.accepted]
    assert queues[:4].count("b") == 2
    assert queues.index("b") < 4
    assert 8 <= queues[:20].count("b") <= 10


async def test_urgent_workloads_overtake_a_backlog(stages: IntakeStages) -> None:
    """Those of the highest band get the next slots, but for the one in eight of a lower band."""
    stage = IntakeStage(stages.server, ["a"], 4)
    stage.fill("a", 500)
    stages.opened.append(stage)
    stage.open()
    await stage.has(4)
    stage.fill("a", 5, band=2)

    for started in range(5, 11):
        await stage.finish_one()
        await stage.has(started)

    next_six = [dispatch_id for _, dispatch_id in stage.accepted[4:]]
    assert [name for name in next_six if name.startswith("a2-")] == [f"a2-{i}" for i in range(5)]


async def test_the_lowest_band_does_not_starve(stages: IntakeStages) -> None:
    stage = IntakeStage(stages.server, ["a"], 1)
    for band in range(3):
        stage.fill("a", 40, band=band)
    stages.opened.append(stage)
    stage.open()

    for started in range(1, 33):
        await stage.has(started)
        await stage.finish_one()

    bands = Counter(
        "210"[("a1-" in name) + 2 * ("-" not in name)] for _, name in stage.accepted[:32]
    )
    assert bands == {"2": 28, "1": 2, "0": 2}


async def test_a_workload_of_any_band_wakes_an_idle_worker(stages: IntakeStages) -> None:
    stage = stages.open(["a", "b"], concurrency=8)
    await wait_until(lambda: len(stage.intake._waits) == 6, 5, "a wait for each lane")

    for number, (queue, band) in enumerate((q, b) for q in ("a", "b") for b in range(3)):
        stage.fill(queue, 1, band=band)
        await stage.has(number + 1)


async def test_a_worker_without_bands_pulls_from_the_lowest(server: FakeServer) -> None:
    stage = IntakeStage(server, ["a"], 2, priority_bands="none")
    stage.fill("a", 1, band=1)
    stage.fill("a", 1)
    stage.open()

    await stage.has(1)

    assert stage.accepted == [("a", "a0")]
    assert list(stage.intake._waits) == [Lane("a")]
    await stage.close()


async def test_what_a_queue_does_not_use_goes_to_the_others(stages: IntakeStages) -> None:
    stage = IntakeStage(stages.server, ["a", "b", "c"], 6)
    stage.fill("b", 10)
    stage.open()
    stages.opened.append(stage)

    await stage.has(6)

    assert {queue for queue, _ in stage.accepted} == {"b"}


async def test_every_queue_wakes_an_idle_worker(stages: IntakeStages) -> None:
    stage = stages.open(["a", "b", "c"])
    for number, queue in enumerate("cab", start=1):
        stage.fill(queue, 1)
        await stage.has(number)

    assert [queue for queue, _ in stage.accepted] == ["c", "a", "b"]


async def test_two_queues_that_wake_up_for_the_last_slot(stages: IntakeStages) -> None:
    """One message has no slot here; it goes back at once, and another worker gets it."""
    stage = stages.open(["a", "b"], concurrency=1)
    await wait_until(lambda: len(stage.intake._waits) == 6, 5, "a wait for each lane")
    # Both in one step of the loop, so that both waits are over before the intake looks.
    stage.fill("a", 1)
    stage.fill("b", 1)
    await stage.has(1)
    other = stages.open(["a", "b"], concurrency=1)

    await other.has(1)

    assert {stage.accepted[0][0], other.accepted[0][0]} == {"a", "b"}
    assert len(stage.accepted) == 1


async def test_a_full_worker_waits_for_nothing(stages: IntakeStages) -> None:
    stage = stages.open(["a", "b"], concurrency=1)
    stage.fill("a", 1)
    await stage.has(1)

    await wait_until(lambda: not stage.intake._waits, 5, "the waits to end")
    stage.fill("b", 1)
    other = stages.open(["b"], concurrency=1)
    await other.has(1)


# The next pull goes before the ack


@pytest.mark.usefixtures("endless")
async def test_what_has_ended_is_acked_once_the_next_workload_was_asked_for(
    stages: IntakeStages,
) -> None:
    """Its message stands in front of the others, so the server counts none of them."""
    stage = stages.open(["a"], concurrency=1)
    stage.fill("a", 2)
    await stage.has(1)

    stage.slots.give(stage.holdings.pop(0))
    await soon(stage.intake.looked())

    assert len(stage.accepted) == 2
    assert stage.in_flight() == 2
    await stage.deliveries[0].ack()


@pytest.mark.usefixtures("endless")
async def test_nothing_is_waited_for_where_no_slot_is_free(stages: IntakeStages) -> None:
    stage = stages.open(["a"], concurrency=1)
    stage.fill("a", 2)
    await stage.has(1)

    await soon(stage.intake.looked())
    assert len(stage.accepted) == 1


@pytest.mark.usefixtures("endless")
async def test_nothing_is_waited_for_where_the_queues_are_empty(stages: IntakeStages) -> None:
    stage = stages.open(["a"], concurrency=2)
    stage.fill("a", 1)
    await stage.has(1)
    await wait_until(lambda: stage.intake._is_waiting, 5, "it to wait for more")

    await soon(stage.intake.looked())


@pytest.mark.usefixtures("endless")
async def test_an_intake_that_has_ended_keeps_no_ack(stages: IntakeStages) -> None:
    stage = stages.open(["a"], concurrency=2)
    await wait_until(lambda: stage.intake._is_waiting, 5, "it to wait for more")
    await stage.close()

    await soon(stage.intake.looked())


async def test_an_ack_waits_no_longer_than_a_moment_for_a_broker_that_is_silent(
    stages: IntakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "SLOTS_ASKED_SECONDS", 0.01)
    stage = IntakeStage(stages.server, ["a"], 1)  # its intake does not run

    await stage.intake.looked()

    assert stage.slots.free


async def test_only_the_pulls_of_a_limited_queue_watch_for_room(server: FakeServer) -> None:
    await setup.apply(
        server.broker(), settings_for("nats://127.0.0.1:4222", queue_limits="b=1"), ["b"]
    )
    stage = IntakeStage(server, ["a", "b"], 1, queue_limits="b=1")
    stage.open()
    await wait_until(lambda: len(stage.intake.pulls) == 4, 5, "pulls")
    await stage.close()

    consumer = stage.names.consumer
    assert stage.broker.limited == {
        consumer("a", 2): False, consumer("a", 1): False, consumer("a"): False,
        consumer("b"): True,
    }  # fmt: skip


async def soon(waiting: Awaitable[None]) -> None:
    """Require an end that is not the time's: `endless` looks take an hour."""
    async with asyncio.timeout(30):
        await waiting


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "SLOTS_ASKED_SECONDS", 3600.0)


# Trouble


async def test_one_queues_trouble_does_not_stop_the_others(
    stages: IntakeStages, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)  # of a denial, the connection itself tells
    stage = IntakeStage(stages.server, ["a", "b"], 4)
    sick = SickPulls(AccessDenied("may not pull a"))
    pull = stage.broker.pull

    async def open_pulls(stream: str, consumer: str, *, is_limited: bool) -> Pulls:
        return sick if consumer == "a" else await pull(stream, consumer, is_limited=is_limited)

    monkeypatch.setattr(stage.broker, "pull", open_pulls)
    monkeypatch.setattr(intake_module, "LANE_RETRY_SECONDS", 0.01)
    stage.open()
    stages.opened.append(stage)
    for number in range(1, 4):
        stage.server.put(stage.names.task("b", f"d{number}"), b"")
        await stage.has(number)
    await wait_until(lambda: sick.asked > 5, 5, "more attempts")

    assert caplog.text.count("queue a: may not pull a; next: trying again until it works") == 1
    assert sick.takes == 1  # each one may cost the others a time-out
    sick.error = None
    await wait_until(lambda: not stage.intake._troubled, 5, "the trouble to end")


class SickPulls:
    """Pulls that fail, until `error` is None."""

    heard_at = 0.0

    def __init__(self, error: BrokerError | None) -> None:
        self.error = error
        self.asked = 0
        self.takes = 0

    async def take(self, batch: int) -> Sequence[Delivery]:  # noqa: ARG002 - as in Pulls
        self.takes += 1
        if self.error:
            raise self.error
        return []

    async def wait(self) -> Delivery:
        self.asked += 1
        if self.error:
            raise self.error
        return NoDelivery()

    async def close(self) -> None: ...


class NoDelivery:
    """As good as any for an intake that only counts."""

    subject = "airflow.tasks.a.d0"
    body = b""
    stream_sequence = 1
    num_delivered = 1
    at = 0.0

    async def ack(self) -> None: ...

    async def nak(self, delay_seconds: float = 0.0) -> None: ...

    async def term(self, reason: str) -> None: ...

    async def in_progress(self) -> None: ...


async def test_a_broker_that_goes_away_is_waited_for(stages: IntakeStages) -> None:
    stage = stages.open()
    await wait_until(lambda: stage.intake._waits, 5, "a wait")
    stage.server.stop()
    stage.fill("a", 6)
    stage.server.start()

    await stage.has(4)

    assert stage.slots.used == 4


# The end


async def test_nothing_is_kept_at_the_end(stages: IntakeStages) -> None:
    """A workload that is on its way when the intake is cancelled goes to another one at once."""
    stage = stages.open(["a"], concurrency=2)
    await wait_until(lambda: stage.intake._waits, 5, "a wait")
    stage.fill("a", 1)
    assert stage.life
    stage.life.cancel()
    await asyncio.wait([stage.life])
    other = stages.open(["a"], concurrency=1)

    if not stage.accepted:
        await other.has(1)

    assert len(stage.accepted) + len(other.accepted) == 1
    assert stage.in_flight() == 1


async def test_what_is_taken_while_the_end_comes_is_handed_back(
    stages: IntakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = IntakeStage(stages.server, ["a"], 3)
    stage.fill("a", 3)
    gate, is_taking = asyncio.Event(), asyncio.Event()
    pull = stage.broker.pull

    async def open_pulls(stream: str, consumer: str, *, is_limited: bool) -> Pulls:
        pulls = await pull(stream, consumer, is_limited=is_limited)
        take = pulls.take

        if consumer != stage.names.consumer("a"):
            return pulls

        async def take_slowly(batch: int) -> Sequence[Delivery]:
            taken = await take(batch)
            is_taking.set()
            await gate.wait()
            return taken

        monkeypatch.setattr(pulls, "take", take_slowly)
        return pulls

    monkeypatch.setattr(stage.broker, "pull", open_pulls)
    stage.open()
    await is_taking.wait()
    assert stage.in_flight() == 3

    assert stage.life
    stage.life.cancel()
    gate.set()
    await asyncio.wait([stage.life])
    other = stages.open(["a"], concurrency=3)
    await other.has(3)

    assert stage.accepted == []


async def test_a_cancellation_is_never_lost(stages: IntakeStages) -> None:
    """It may come at every step, also while the waits of a full worker are being ended."""
    for steps in range(40):
        stage = stages.open(["a", "b"], concurrency=1)
        stage.server.put(stage.names.task("a", f"x{steps}"), b"")
        for _ in range(steps):
            await asyncio.sleep(0)
        await stage.close()
        for delivery in stage.deliveries:
            await delivery.ack()
        await empty(stage.broker, stage.names.tasks_stream, stage.names.tasks())


async def test_a_cancellation_that_the_client_swallows_is_not_lost(
    stages: IntakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-py does that to a subscription: a worker hung that was stopped as it got ready."""
    stage = IntakeStage(stages.server, ["a"], 1)
    is_opening = asyncio.Event()
    pull = stage.broker.pull

    async def swallow(stream: str, consumer: str, *, is_limited: bool) -> Pulls:
        is_opening.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return await pull(stream, consumer, is_limited=is_limited)

    monkeypatch.setattr(stage.broker, "pull", swallow)
    stage.open()
    await is_opening.wait()

    assert stage.life
    stage.life.cancel()
    done, _ = await asyncio.wait([stage.life], timeout=5)

    assert done


# Slots


async def test_slots_are_counted() -> None:
    slots = Slots(1)
    await slots.one_free()
    holding = slots.take()
    waiting = asyncio.create_task(slots.one_free())
    await asyncio.sleep(0)
    assert (slots.free, waiting.done()) == (0, False)

    slots.give(holding)
    await asyncio.wait_for(waiting, 1)

    assert slots.free == 1

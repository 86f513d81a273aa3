"""The memory guard: when a worker pauses, what it says then, and that it comes back."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nats_worker.intake.memory_guard import Guard, verdict
from nats_worker.processes.memory import MemoryReading
from tests.support.fixtures import settings_for
from tests.support.waiting import wait_until
from tests.support.worker_stage import WorkerStage, worker_stage_fixture

if TYPE_CHECKING:
    from nats_worker.worker import Worker

__all__ = ["worker_stage_fixture"]

pytestmark = pytest.mark.anyio

WHERE = "7.0 of 8.0 GiB of the cgroup"


@pytest.mark.parametrize(
    ("used", "limit", "is_paused", "pauses"),
    [
        (89.9, 90, False, False),
        (90.0, 90, False, False),
        (90.1, 90, False, True),
        (86.0, 90, False, False),
        (86.0, 90, True, True),
        (85.1, 90, True, True),
        (85.0, 90, True, False),
        (100.0, 0, False, False),
        (100.0, 0, True, False),
        (None, 90, False, False),
        (None, 90, True, False),
        (2.0, 1, False, True),
        (0.6, 1, True, True),
        (0.5, 1, True, False),
        (100.0, 100, False, False),
    ],
)
def test_a_worker_pauses_above_its_share_and_resumes_below(
    used: float | None, limit: float, is_paused: bool, pauses: bool
) -> None:
    for option in ("memory_high_percent", "memory_pressure_percent"):
        settings = settings_for("nats://a", **{"memory_high_percent": 0, option: limit})
        is_share = option == "memory_high_percent"
        reading = (
            MemoryReading(used_percent=used, where=WHERE)
            if is_share
            else MemoryReading(pressure_percent=used)
        )

        reason = verdict(reading, settings, is_paused=is_paused)

        assert bool(reason) == pauses
        assert not pauses or f"{option} is {limit:g}" in reason
        assert not pauses or f"{used:.1f}%" in reason
        assert not (pauses and is_share) or WHERE in reason


def test_either_share_pauses() -> None:
    settings = settings_for("nats://a", memory_pressure_percent=20)

    for used, pressed in ((95.0, 0.0), (0.0, 25.0), (95.0, 25.0)):
        reading = MemoryReading(used_percent=used, pressure_percent=pressed)
        assert verdict(reading, settings, is_paused=False)
    assert not verdict(MemoryReading(), settings, is_paused=True)


# A worker with a memory of the test's


class Memory:
    """The readings of a worker's guard."""

    def __init__(self, worker_stage: WorkerStage, used: float) -> None:
        self.used = used
        self.looks = 0
        worker_stage.settings = replace(worker_stage.settings, heartbeat_seconds=0.01)

    def read(self) -> MemoryReading:
        self.looks += 1
        return MemoryReading(used_percent=self.used, where=WHERE)

    async def start(self, worker_stage: WorkerStage, *, concurrency: int = 2) -> Worker:
        worker = worker_stage.launch(concurrency=concurrency)
        worker.state.guard = Guard(worker_stage.settings, self.read)
        await wait_until(
            lambda: worker.state.intake and worker_stage.is_seen(worker), 5, "the worker"
        )
        return worker

    async def change(self, used: float) -> None:
        """Change it and wait until the guard has looked at that."""
        self.used = used
        looks = self.looks
        await wait_until(lambda: self.looks >= looks + 2, 5, "a look")


def paused(worker_stage: WorkerStage) -> str:
    record = worker_stage.presence()
    return record.paused if record else ""


async def test_a_worker_without_memory_takes_nothing_until_there_is_some(
    worker_stage: WorkerStage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    memory = Memory(worker_stage, 95.0)
    worker = await memory.start(worker_stage)
    worker_stage.send()
    await memory.change(86.0)

    assert worker.state.intake
    assert not worker.state.intake._waits
    assert worker_stage.pool.requested == []
    assert f"memory is 95.0% used ({WHERE}), memory_high_percent is 90; next:" in caplog.text
    assert caplog.text.count("memory is") == 1
    await wait_until(lambda: "86.0% used" in paused(worker_stage), 5, "the record to say so")
    await memory.change(85.0)
    await wait_until(lambda: not paused(worker_stage), 5, "the record to say so")
    assert "there is memory again" in caplog.text

    (await worker_stage.pool.run()).finish()
    await worker_stage.done()


async def test_a_worker_that_pauses_goes_on_with_what_runs(worker_stage: WorkerStage) -> None:
    memory = Memory(worker_stage, 50.0)
    worker = await memory.start(worker_stage)
    worker_stage.send()
    run = await worker_stage.pool.run()
    assert worker.state.intake
    await wait_until(
        lambda: worker.state.intake and worker.state.intake._waits, 5, "a wait for more"
    )

    await memory.change(91.0)
    await wait_until(
        lambda: worker.state.intake and not worker.state.intake._waits, 5, "the waits to end"
    )
    worker_stage.send(dispatch_id="d2")
    run.begin()
    run.finish()
    await worker_stage.done()

    assert run.signals == []
    assert worker_stage.is_queued("d2")
    assert len(worker_stage.pool.requested) == 1
    other = await worker_stage.start("other")
    (await worker_stage.pool.run(1)).finish()
    await worker_stage.done("d2")
    assert other.state.slots.used == 0
    await memory.change(10.0)


async def test_a_guard_that_is_off_reads_nothing(worker_stage: WorkerStage) -> None:
    worker_stage.settings = replace(worker_stage.settings, memory_high_percent=0.0)
    memory = Memory(worker_stage, 100.0)
    await memory.start(worker_stage)
    worker_stage.send()

    (await worker_stage.pool.run()).finish()
    await worker_stage.done()

    assert memory.looks == 0

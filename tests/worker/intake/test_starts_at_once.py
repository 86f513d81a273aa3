"""What may not start here yet stays in the queue: unclaimed, in its place, for any worker."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nats_worker.intake.processors import Waits
from tests.support.waiting import wait_until
from tests.support.worker_stage import WorkerStage, worker_stage_fixture

if TYPE_CHECKING:
    from nats_worker.worker import Worker

__all__ = ["worker_stage_fixture"]

pytestmark = pytest.mark.anyio


@pytest.fixture(name="narrow")
async def narrow_fixture(worker_stage: WorkerStage) -> WorkerStage:
    worker_stage.settings = replace(worker_stage.settings, starts_at_once=1)
    return worker_stage


def waiting(stage: WorkerStage) -> int:
    """Return how many workloads no worker has been given."""
    names = stage.names
    consumer = stage.server.consumer(names.tasks_stream, names.consumer("default"))
    return len(list(consumer.undelivered(stage.server.stream(names.tasks_stream))))


async def starting(stage: WorkerStage, *others: str) -> Worker:
    """Return a worker of four slots where `d1` is in its start, with others behind it."""
    worker = await stage.start(concurrency=4)
    stage.send(dispatch_id="d1")
    await stage.pool.run()
    for name in others:
        stage.send(dispatch_id=name)
    return worker


async def test_the_next_one_is_pulled_when_a_task_runs_its_own_code(narrow: WorkerStage) -> None:
    worker = await starting(narrow, "d2")
    first = await narrow.pool.run()
    assert (waiting(narrow), worker.state.slots.free) == (1, 0)

    first.begin()
    second = await narrow.pool.run(1)

    # Tasks that run do not count: both are there.
    assert narrow.pool.living == [first, second]
    assert worker.state.slots.used == 2
    for run in (first, second):
        run.finish()


async def test_the_next_one_is_pulled_when_a_start_fails(narrow: WorkerStage) -> None:
    await starting(narrow, "d2")

    (await narrow.pool.run()).finish()

    (await narrow.pool.run(1)).finish()


async def test_another_worker_takes_what_may_not_start_here(narrow: WorkerStage) -> None:
    worker = await starting(narrow)
    await narrow.start("other", concurrency=4)

    narrow.send(dispatch_id="d2")
    second = await narrow.pool.run(1)

    assert "d2" not in worker.leases
    second.finish()
    (await narrow.pool.run()).finish()


async def test_a_start_that_takes_too_long_lets_the_next_one_begin(
    worker_stage: WorkerStage,
) -> None:
    worker_stage.settings = replace(
        worker_stage.settings, starts_at_once=1, start_timeout_seconds=0.2
    )
    await starting(worker_stage, "d2")
    first = await worker_stage.pool.run()
    first.ask()  # the API server does not answer

    second = await worker_stage.pool.run(1)

    assert not first.is_over
    for run in (first, second):
        run.begin()
        run.finish()


async def test_idle_processors_let_the_next_one_begin(
    worker_stage: WorkerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while starts wait for a far API server."""
    monkeypatch.setattr(Waits, "share", lambda _: 0.0)
    monkeypatch.setattr("nats_worker.worker.processors", lambda: 1)
    worker_stage.settings = replace(worker_stage.settings, starts_at_once=None)
    await starting(worker_stage, "d2", "d3", "d4")

    runs = [await worker_stage.pool.run(number) for number in range(4)]

    assert len(worker_stage.pool.living) == 4
    for run in runs:
        run.finish()


async def test_busy_processors_let_one_for_each_begin(
    worker_stage: WorkerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def busy(_: Waits) -> float:
        looks.append(1.0)
        return 1.0

    monkeypatch.setattr(Waits, "share", busy)
    monkeypatch.setattr("nats_worker.worker.processors", lambda: 1)
    worker_stage.settings = replace(worker_stage.settings, starts_at_once=None)
    worker = await starting(worker_stage, "d2")

    await wait_until(lambda: len(looks) > 2, 10, "three looks")

    assert (len(worker_stage.pool.living), worker.state.slots.admission.starting) == (1, 1)
    (await worker_stage.pool.run()).finish()
    (await worker_stage.pool.run(1)).finish()


async def test_a_worker_stops_although_one_may_not_start(narrow: WorkerStage) -> None:
    """It is no part of the drain, because it never came here."""
    worker = await starting(narrow, "d2")
    first = await narrow.pool.run()
    assert waiting(narrow) == 1

    worker.ask_to_stop(signal.SIGTERM)
    first.finish()
    await narrow.stop(worker, times=0)

    assert (waiting(narrow), len(narrow.pool.runs)) == (1, 0)


async def test_a_workload_in_its_start_can_be_revoked(narrow: WorkerStage) -> None:
    """And the next one begins then."""
    worker = await starting(narrow, "d2")
    first = await narrow.pool.run()

    assert worker.crew.revoke("d1")
    first.finish(exit_code=-15)

    (await narrow.pool.run(1)).finish()

"""A probe on its way through a worker: one attempt, one process, and never a dead letter."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.wire.messages import Kind, State, Workload, encode
from nats_worker.processes.exit_report import Ending
from tests.support.waiting import wait_until
from tests.support.worker_stage import WorkerStage, worker_stage_fixture

if TYPE_CHECKING:
    from tests.support.fake_pool import FakeRun

__all__ = ["worker_stage_fixture"]

pytestmark = pytest.mark.anyio

ID = "probe-1"


def probe(**changes: Any) -> Workload:
    made = Workload(
        dispatch_id=ID, queue="default", kind=Kind.PROBE, body={}, key=[], sender="scheduler"
    )
    return dataclasses.replace(made, **changes)


def opened(worker_stage: WorkerStage, **changes: Any) -> None:
    """Report as an executor does before it sends a probe."""
    worker_stage.says(
        State.DROPPED, "scheduler", dispatch_id=ID, kind=Kind.PROBE, key=[], pid=0, **changes
    )


async def process(worker_stage: WorkerStage) -> FakeRun:
    await wait_until(lambda: worker_stage.pool.probes, 5, "a process for the probe")
    return worker_stage.pool.probes[-1]


async def test_a_probe_is_claimed_run_reported_and_acked(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()
    opened(worker_stage)
    worker_stage.send(probe())

    run = await process(worker_stage)
    assert worker.state.slots.used == 1
    run.begin()
    run.finish()
    report = await worker_stage.reported(State.SUCCESS, ID)
    await worker_stage.done(ID)

    await worker_stage.happened("claimed", "success", "ack")
    assert (report.worker_name, report.kind, report.info) == ("me", Kind.PROBE, "")
    assert len(report.hops) == 3
    assert all(isinstance(hop, int) and hop >= 0 for hop in report.hops)
    assert worker_stage.pool.requested == []  # nothing of Airflow's was started


async def test_a_probe_whose_process_cannot_start_says_so(worker_stage: WorkerStage) -> None:
    await worker_stage.start()
    opened(worker_stage)
    worker_stage.send(probe())

    (await process(worker_stage)).finish(Ending.DIED, info="the worker could not fork: no memory")
    report = await worker_stage.reported(State.FAILED, ID)
    await worker_stage.done(ID)

    assert report.info == "the worker could not fork: no memory"
    assert worker_stage.dead_letters() == []


@pytest.mark.parametrize("state", [State.CLAIMED, State.RELEASED, State.SUCCESS, State.FAILED])
async def test_a_probe_that_someone_had_before_is_dropped(
    worker_stage: WorkerStage, state: State
) -> None:
    """Its worker died, or it is delivered twice: nothing waits for its end."""
    await worker_stage.start()
    worker_stage.says(state, dispatch_id=ID, kind=Kind.PROBE, key=[])
    worker_stage.send(probe())

    await worker_stage.done(ID)

    assert worker_stage.events == ["ack"]
    assert worker_stage.pool.probes == []


async def test_a_probe_without_an_opening_is_looked_for_again_and_then_dropped(
    worker_stage: WorkerStage,
) -> None:
    """The follower that answers may be behind, or the executor's report is lost."""
    await worker_stage.start()
    worker_stage.send(probe())

    for count in (1, 2):
        await worker_stage.counted("nak", count)
        worker_stage.server.advance(10)
    await worker_stage.done(ID)

    assert worker_stage.events == ["nak", "nak", "ack"]
    assert worker_stage.pool.probes == []


@pytest.mark.parametrize("body", [b"garbage", encode(probe(dispatch_id="probe-2"))])
async def test_a_probe_that_cannot_be_read_is_no_dead_letter(
    worker_stage: WorkerStage, body: bytes
) -> None:
    await worker_stage.start()
    opened(worker_stage)
    worker_stage.put(body, ID)

    await worker_stage.done(ID)

    assert worker_stage.events == ["ack"]
    assert worker_stage.dead_letters() == []

"""A worker proves that it can start workloads, before it takes any and after some did not start."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nats_executor.wire.messages import State
from nats_worker.delivery.verdict import OURS_PAUSE_SECONDS
from nats_worker.intake.memory_guard import Guard
from nats_worker.processes import proof
from nats_worker.processes.exit_report import Ending
from nats_worker.processes.memory import MemoryReading
from tests.support.waiting import wait_until
from tests.support.worker_stage import WorkerStage, worker_stage_fixture

if TYPE_CHECKING:
    from nats_worker.worker import Worker

__all__ = ["worker_stage_fixture"]

pytestmark = pytest.mark.anyio

FULL = "the disk is full; free some space"


@pytest.fixture(autouse=True)
def all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def paused(worker_stage: WorkerStage, name: str = "me") -> str:
    record = worker_stage.presence(name)
    return record.paused if record else ""


async def unfit(worker_stage: WorkerStage, *findings: str | None) -> Worker:
    """Launch a worker whose self-tests find something."""
    worker_stage.pool.findings[:] = findings
    worker = worker_stage.launch()
    if None not in findings:
        await wait_until(lambda: paused(worker_stage), 5, "its record to say so")
    return worker


async def works(worker_stage: WorkerStage, dispatch_id: str = "d1") -> None:
    """Run one workload from its beginning to its end."""
    number = len(worker_stage.pool.requested)
    worker_stage.send(dispatch_id=dispatch_id)
    run = await worker_stage.pool.run(number)
    run.begin()
    run.finish()
    await worker_stage.done(dispatch_id)


async def test_nothing_is_taken_before_a_self_test_has_passed(
    worker_stage: WorkerStage, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await unfit(worker_stage, FULL, "no user")
    worker_stage.send()
    await wait_until(lambda: len(worker_stage.pool.tests) > 3, 5, "more self-tests")

    assert worker.state.intake is None
    assert worker_stage.pool.requested == []
    assert paused(worker_stage) == f"{FULL}; no user"
    assert "is ready" not in caplog.text
    assert caplog.text.count(f"{FULL}; no user; next: taking no workloads") == 1
    worker_stage.pool.findings.clear()
    (await worker_stage.pool.run()).begin()
    await wait_until(lambda: not paused(worker_stage), 5, "its record to say so")
    assert "workloads can start here now; next: taking as many as there are free" in caplog.text
    assert "worker me is ready" in caplog.text
    worker_stage.pool.requested[0].finish()
    await worker_stage.done()


async def test_a_worker_that_is_well_says_nothing_about_it(
    worker_stage: WorkerStage, caplog: pytest.LogCaptureFixture
) -> None:
    await worker_stage.start()
    await works(worker_stage)

    assert len(worker_stage.pool.tests) == 1
    assert "next: taking" not in caplog.text


@pytest.mark.parametrize("findings", [(FULL,), (None,)])
async def test_a_worker_that_is_stopped_before_it_could_start_anything_ends(
    worker_stage: WorkerStage, findings: tuple[str | None, ...]
) -> None:
    worker = await unfit(worker_stage, *findings)
    await wait_until(lambda: worker_stage.pool.tests, 5, "a self-test")

    await worker_stage.stop(worker)

    assert all(test.is_over for test in worker_stage.pool.tests)


async def test_a_self_test_that_hangs_or_dies_is_a_finding(
    worker_stage: WorkerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "TEST_SECONDS", 0.05)
    await unfit(worker_stage, None)
    await wait_until(
        lambda: "did not end within" in paused(worker_stage), 5, "its record to say so"
    )
    assert worker_stage.pool.tests[0].is_over
    monkeypatch.setattr(proof, "TEST_SECONDS", 60)

    test = worker_stage.pool.tests[-1]
    await wait_until(lambda: not worker_stage.pool.tests[-1].is_over, 5, "the next one")
    test = worker_stage.pool.tests[-1]
    test.finish(Ending.DIED, info="the worker could not fork: out of processes")
    await wait_until(lambda: "could not fork" in paused(worker_stage), 5, "its record to say so")

    worker_stage.pool.findings.clear()
    worker_stage.pool.tests[-1].finish()
    await wait_until(lambda: not paused(worker_stage), 5, "its end")
    await works(worker_stage)


async def test_starts_that_fail_cost_nothing_and_end_the_taking(
    worker_stage: WorkerStage, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await worker_stage.start()
    tasks = [worker_stage.send(dispatch_id=f"d{number}").dispatch_id for number in range(3)]
    for number in range(3):
        run = await worker_stage.pool.run(number)
        if number == 2:  # before that, two at once
            await wait_until(lambda: len(worker_stage.pool.tests) == 2, 5, "a self-test")
        run.finish(Ending.RAISED, info="KeyError: 'uid'")
    reason = (
        "3 starts in a row failed on this worker; the last one: it could not be started: KeyError: "
        "'uid'; next: taking no workloads"
    )
    await wait_until(lambda: reason in caplog.text, 5, "a line")
    await wait_until(lambda: worker.state.slots.is_on_trial, 5, "the trial")
    assert State.FAILED not in worker_stage.events

    worker_stage.server.advance(OURS_PAUSE_SECONDS)
    trial = await worker_stage.pool.run(3)
    assert worker.state.slots.free == 0
    trial.begin()
    for number in (4, 5):
        run = await worker_stage.pool.run(number)
        run.begin()
        run.finish()
    trial.finish()

    for task in tasks:
        await worker_stage.done(task)
    assert "a self-test finds nothing wrong; next: taking one workload at a time" in caplog.text
    assert "workloads can start here now; next: taking as many" in caplog.text
    assert not paused(worker_stage)


async def test_a_trial_that_says_nothing_is_followed_by_another(worker_stage: WorkerStage) -> None:
    """Its process was killed before it had started anything."""
    worker = await worker_stage.start()
    worker_stage.send(dispatch_id="d1")
    (await worker_stage.pool.run()).finish(Ending.RAISED, info="KeyError")
    await wait_until(lambda: worker.state.slots.is_on_trial, 5, "the trial")
    worker_stage.server.advance(OURS_PAUSE_SECONDS)
    (await worker_stage.pool.run(1)).finish(Ending.DIED, info="SIGKILL")

    trial = await worker_stage.pool.run(2)
    assert worker.state.slots.is_on_trial
    trial.begin()
    trial.finish()
    await worker_stage.done("d1")
    assert not worker.state.slots.is_on_trial


async def test_an_api_server_that_is_away_is_looked_for(worker_stage: WorkerStage) -> None:
    """The first workload that does not reach it is enough."""
    await worker_stage.start()
    away = "no API server at http://a/execution/"
    worker_stage.pool.findings[:] = [away]
    for number in range(6):
        worker_stage.send(dispatch_id=f"d{number}")
    for number in range(2):
        (await worker_stage.pool.run(number)).finish(Ending.UNREACHABLE, info="ConnectError")

    await wait_until(lambda: paused(worker_stage) == away, 5, "its record to say so")
    assert len(worker_stage.pool.requested) == 2
    worker_stage.pool.findings.clear()

    # The two wait for ten seconds, wherever there is a worker.
    for number in range(2, 6):
        run = await worker_stage.pool.run(number)
        run.begin()
        run.finish()
        await worker_stage.done(f"d{number}")
    assert not paused(worker_stage)


async def test_two_reasons_to_pause_hold_at_once(worker_stage: WorkerStage) -> None:
    used = [95.0]
    worker_stage.settings = replace(worker_stage.settings, heartbeat_seconds=0.01)
    worker_stage.pool.findings[:] = [FULL]
    worker = worker_stage.launch()
    worker.state.guard = Guard(
        worker_stage.settings, lambda: MemoryReading(used_percent=used[0], where="here")
    )
    await wait_until(
        lambda: f"{FULL}; memory is 95.0% used" in paused(worker_stage), 5, "both reasons"
    )
    worker_stage.send()

    worker_stage.pool.findings.clear()
    await wait_until(lambda: paused(worker_stage).startswith("memory"), 5, "one of them")
    await wait_until(lambda: worker.state.intake, 5, "its intake")
    assert worker.state.slots.free == 0
    used[0] = 10.0

    (await worker_stage.pool.run()).finish()
    await worker_stage.done()
    assert not paused(worker_stage)

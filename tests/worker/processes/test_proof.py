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
from tests.support.worker_scene import Scene, scene_fixture

if TYPE_CHECKING:
    from nats_worker.worker import Worker

__all__ = ["scene_fixture"]

pytestmark = pytest.mark.anyio

FULL = "the disk is full; free some space"


@pytest.fixture(autouse=True)
def all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def paused(scene: Scene, name: str = "me") -> str:
    record = scene.presence(name)
    return record.paused if record else ""


async def unfit(scene: Scene, *findings: str | None) -> Worker:
    """Launch a worker whose self-tests find something."""
    scene.pool.findings[:] = findings
    worker = scene.launch()
    if None not in findings:
        await wait_until(lambda: paused(scene), 5, "its record to say so")
    return worker


async def works(scene: Scene, dispatch_id: str = "d1") -> None:
    """Run one workload from its beginning to its end."""
    number = len(scene.pool.requested)
    scene.send(dispatch_id=dispatch_id)
    run = await scene.pool.run(number)
    run.begin()
    run.finish()
    await scene.done(dispatch_id)


async def test_nothing_is_taken_before_a_self_test_has_passed(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await unfit(scene, FULL, "no user")
    scene.send()
    await wait_until(lambda: len(scene.pool.tests) > 3, 5, "more self-tests")

    assert worker.state.intake is None
    assert scene.pool.requested == []
    assert paused(scene) == f"{FULL}; no user"
    assert "is ready" not in caplog.text
    assert caplog.text.count(f"{FULL}; no user; next: taking no workloads") == 1
    scene.pool.findings.clear()
    (await scene.pool.run()).begin()
    await wait_until(lambda: not paused(scene), 5, "its record to say so")
    assert "workloads can start here now; next: taking as many as there are free" in caplog.text
    assert "worker me is ready" in caplog.text
    scene.pool.requested[0].finish()
    await scene.done()


async def test_a_worker_that_is_well_says_nothing_about_it(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.start()
    await works(scene)

    assert len(scene.pool.tests) == 1
    assert "next: taking" not in caplog.text


@pytest.mark.parametrize("findings", [(FULL,), (None,)])
async def test_a_worker_that_is_stopped_before_it_could_start_anything_ends(
    scene: Scene, findings: tuple[str | None, ...]
) -> None:
    worker = await unfit(scene, *findings)
    await wait_until(lambda: scene.pool.tests, 5, "a self-test")

    await scene.stop(worker)

    assert all(test.is_over for test in scene.pool.tests)


async def test_a_self_test_that_hangs_or_dies_is_a_finding(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "TEST_SECONDS", 0.05)
    await unfit(scene, None)
    await wait_until(lambda: "did not end within" in paused(scene), 5, "its record to say so")
    assert scene.pool.tests[0].is_over
    monkeypatch.setattr(proof, "TEST_SECONDS", 60)

    test = scene.pool.tests[-1]
    await wait_until(lambda: not scene.pool.tests[-1].is_over, 5, "the next one")
    test = scene.pool.tests[-1]
    test.finish(Ending.DIED, info="the worker could not fork: out of processes")
    await wait_until(lambda: "could not fork" in paused(scene), 5, "its record to say so")

    scene.pool.findings.clear()
    scene.pool.tests[-1].finish()
    await wait_until(lambda: not paused(scene), 5, "its end")
    await works(scene)


async def test_starts_that_fail_cost_nothing_and_end_the_taking(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await scene.start()
    tasks = [scene.send(dispatch_id=f"d{number}").dispatch_id for number in range(3)]
    for number in range(3):
        run = await scene.pool.run(number)
        if number == 2:  # before that, two at once
            await wait_until(lambda: len(scene.pool.tests) == 2, 5, "a self-test")
        run.finish(Ending.RAISED, info="KeyError: 'uid'")
    reason = (
        "3 starts in a row failed on this worker; the last one: it could not be started: KeyError: "
        "'uid'; next: taking no workloads"
    )
    await wait_until(lambda: reason in caplog.text, 5, "a line")
    await wait_until(lambda: worker.state.slots.is_on_trial, 5, "the trial")
    assert State.FAILED not in scene.events

    scene.server.advance(OURS_PAUSE_SECONDS)
    trial = await scene.pool.run(3)
    assert worker.state.slots.free == 0
    trial.begin()
    for number in (4, 5):
        run = await scene.pool.run(number)
        run.begin()
        run.finish()
    trial.finish()

    for task in tasks:
        await scene.done(task)
    assert "a self-test finds nothing wrong; next: taking one workload at a time" in caplog.text
    assert "workloads can start here now; next: taking as many" in caplog.text
    assert not paused(scene)


async def test_a_trial_that_says_nothing_is_followed_by_another(scene: Scene) -> None:
    """Its process was killed before it had started anything."""
    worker = await scene.start()
    scene.send(dispatch_id="d1")
    (await scene.pool.run()).finish(Ending.RAISED, info="KeyError")
    await wait_until(lambda: worker.state.slots.is_on_trial, 5, "the trial")
    scene.server.advance(OURS_PAUSE_SECONDS)
    (await scene.pool.run(1)).finish(Ending.DIED, info="SIGKILL")

    trial = await scene.pool.run(2)
    assert worker.state.slots.is_on_trial
    trial.begin()
    trial.finish()
    await scene.done("d1")
    assert not worker.state.slots.is_on_trial


async def test_an_api_server_that_is_away_is_looked_for(scene: Scene) -> None:
    """The first workload that does not reach it is enough."""
    await scene.start()
    away = "no API server at http://a/execution/"
    scene.pool.findings[:] = [away]
    for number in range(6):
        scene.send(dispatch_id=f"d{number}")
    for number in range(2):
        (await scene.pool.run(number)).finish(Ending.UNREACHABLE, info="ConnectError")

    await wait_until(lambda: paused(scene) == away, 5, "its record to say so")
    assert len(scene.pool.requested) == 2
    scene.pool.findings.clear()

    # The two wait for ten seconds, wherever there is a worker.
    for number in range(2, 6):
        run = await scene.pool.run(number)
        run.begin()
        run.finish()
        await scene.done(f"d{number}")
    assert not paused(scene)


async def test_two_reasons_to_pause_hold_at_once(scene: Scene) -> None:
    used = [95.0]
    scene.settings = replace(scene.settings, heartbeat_seconds=0.01)
    scene.pool.findings[:] = [FULL]
    worker = scene.launch()
    worker.state.guard = Guard(
        scene.settings, lambda: MemoryReading(used_percent=used[0], where="here")
    )
    await wait_until(lambda: f"{FULL}; memory is 95.0% used" in paused(scene), 5, "both reasons")
    scene.send()

    scene.pool.findings.clear()
    await wait_until(lambda: paused(scene).startswith("memory"), 5, "one of them")
    await wait_until(lambda: worker.state.intake, 5, "its intake")
    assert worker.state.slots.free == 0
    used[0] = 10.0

    (await scene.pool.run()).finish()
    await scene.done()
    assert not paused(scene)

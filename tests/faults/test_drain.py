"""SIGTERM to a busy worker: once, twice, three times, and to its whole process group."""

from __future__ import annotations

import os
import signal
import uuid
from typing import TYPE_CHECKING

import pytest

from nats_executor.wire.messages import State
from tests.support.execution_api import Answer
from tests.support.process_stage import is_alive, task_body
from tests.support.waiting import wait_until
from tests.support.worker_process import descendants

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.stage import FaultStage

pytestmark = [pytest.mark.anyio, pytest.mark.integration, pytest.mark.chaos, pytest.mark.slow]


def log_of(home: Path, task: str) -> str:
    return (home / "logs" / f"{task}.log").read_text()


async def send_unstarted(stage: FaultStage) -> str:
    """Have a worker hold a workload whose start the API server has not answered yet."""
    task = str(uuid.uuid4())
    stage.api.hold(task, "run")
    await stage.post.send(task_body("succeed", task), task)
    await wait_until(lambda: stage.starts(task), 30, "/run to be asked")
    return task


async def test_a_sigterm_to_the_whole_group_of_a_busy_worker(stage: FaultStage, home: Path) -> None:
    """As a container is stopped: what may have been accepted is waited for, and has its time."""
    worker = await stage.start(name="w1")
    running, asked = await stage.running("talk"), await send_unstarted(stage)
    await stage.start(name="w2")
    below = descendants(worker.pid)

    os.killpg(worker.pid, signal.SIGTERM)
    await worker.said("stop request 1")
    stage.api.let_go()

    report = await stage.post.reported(asked, State.SUCCESS, State.FAILED, State.RELEASED)
    assert (report.state, report.worker_name, report.attempt) == (State.SUCCESS, worker.name, 1)
    assert await stage.is_running(running)
    assert worker.process.poll() is None
    assert (await stage.carry_out(running)).worker_name == worker.name
    assert await worker.ended() == 0
    assert "the last words" in log_of(home, running)
    assert not any(map(is_alive, below))


async def test_a_drain_settles_what_became_of_a_start_whose_answer_is_lost(
    stage: FaultStage,
) -> None:
    """Carried out and unanswered, then a slow server: another worker would find it running."""
    worker = await stage.start(name="w1")
    task = str(uuid.uuid4())
    lost = Answer(0, is_carried_out=True)
    stage.api.script(task, "run", lost, lost, Answer(200, after=3.0), Answer(200))
    await stage.post.send(task_body("succeed", task), task)
    await wait_until(lambda: stage.starts(task), 30, "/run to be asked")
    await stage.start(name="w2")

    worker.tell(signal.SIGTERM)

    report = await stage.post.reported(task, State.SUCCESS, State.FAILED, State.DROPPED)
    assert (report.state, report.worker_name, report.attempt) == (State.SUCCESS, "w1", 1)
    assert await worker.ended() == 0


async def test_a_drain_hands_back_what_was_certainly_not_accepted(stage: FaultStage) -> None:
    """No connection was ever made, so another worker may have it when the drain's time is over."""
    worker = await stage.start(name="w1", drain_seconds=1, kill_seconds=30)
    stage.api.go_away()
    task = await stage.send("succeed")
    await stage.post.reported(task, State.CLAIMED)

    worker.tell(signal.SIGTERM)
    assert await worker.ended() == 0
    stage.api.come_back()
    await stage.start(name="w2")

    report = await stage.succeeded(task)
    assert (report.worker_name, report.attempt) == ("w2", 1)


async def test_a_second_and_a_third_sigterm(stage: FaultStage, home: Path) -> None:
    """The second one stops what obeys, the third one the rest; states and logs are delivered."""
    worker = await stage.start()
    gentle, stubborn = await stage.running("talk"), await stage.running("parent")
    below = descendants(worker.pid)

    worker.tell(signal.SIGTERM)
    await worker.said("SIGTERM: stop request 1")
    assert await stage.is_running(gentle)
    worker.tell(signal.SIGTERM)
    await stage.succeeded(gentle)
    assert "the last words" in log_of(home, gentle)
    assert await stage.is_running(stubborn)
    worker.tell(signal.SIGTERM)

    report = await stage.failed(stubborn)
    assert "SIGKILL" in report.info
    assert stage.final_states(stubborn) == ["failed"]
    assert await worker.ended() == 0
    assert log_of(home, stubborn)
    assert not any(map(is_alive, below))


async def test_a_single_sigterm_takes_the_same_steps_in_time(stage: FaultStage, home: Path) -> None:
    """After `drain_seconds` SIGTERM, after `kill_seconds` SIGKILL, to tasks alone."""
    worker = await stage.start(drain_seconds=1, kill_seconds=1)
    gentle, stubborn = await stage.running("talk"), await stage.running("stubborn")
    below = descendants(worker.pid)

    worker.tell(signal.SIGTERM)

    await stage.succeeded(gentle)
    assert "the last words" in log_of(home, gentle)
    assert "SIGKILL" in (await stage.failed(stubborn)).info
    assert stage.final_states(stubborn) == ["failed"]
    assert await worker.ended() == 0
    assert "next step in 1 s" in worker.text
    assert not any(map(is_alive, below))
    assert await stage.post.presence("w1") is None

"""Callbacks whose worker is killed, or whose start gets no answer: one end each, never two runs.

Airflow 3.4 lets a worker exchange a callback's token for its start, once; Airflow 3.3 has no start.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from nats_executor.scheduler.compat import AIRFLOW_V_3_4_PLUS
from nats_executor.wire.messages import Kind, Report, State
from tests.faults.stage import fork_server
from tests.support.execution_api import Answer
from tests.support.process_stage import callback_body
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.conftest import Steady
    from tests.faults.stage import FaultStage

pytestmark = [pytest.mark.anyio, pytest.mark.integration, pytest.mark.chaos]

HAS_START = pytest.mark.skipif(not AIRFLOW_V_3_4_PLUS, reason="no start of callbacks in 3.3")


async def send(stage: FaultStage, *, then: str = "true", **answers: Answer) -> str:
    """Queue a callback that notes each of its runs; returns its id, which is its dispatch's.

    Args:
        then: what it does after that.
        answers: to its `run`.
    """
    body = callback_body("subprocess.run")
    callback: str = body["callback"]["id"]
    note = f"echo ran >> {notes(stage, callback)}; {then}"
    body["callback"]["data"]["kwargs"] = {"args": ["sh", "-c", note]}
    for action, answer in answers.items():
        stage.api.script(callback, action, answer, Answer(200))
    await stage.post.send(body, callback, kind=Kind.CALLBACK)
    return callback


def notes(stage: FaultStage, callback: str) -> Path:
    return stage.marks / f"{callback}-runs"


def runs(stage: FaultStage, callback: str) -> int:
    file = notes(stage, callback)
    return len(file.read_text().splitlines()) if file.exists() else 0


async def end_of(stage: FaultStage, callback: str) -> Report:
    """Wait for its end, of which there is one, and for its message to be gone."""
    final = [state for state in State if state.is_final]
    report = await stage.post.reported(callback, *final)
    await wait_until(lambda: stage.post.is_acked(callback), 30, "the ack")
    assert [state for state in stage.states(callback) if state.is_final] in ([], [report.state])
    return report


async def pair(stage: FaultStage) -> None:
    """Start two workers at once: each takes seconds."""
    for worker in [stage.launch("--skip-serve-logs", name=name) for name in ("w1", "w2")]:
        await worker.said("is ready")


async def kill_claimant(stage: FaultStage, callback: str) -> tuple[str, str]:
    """Kill the worker that has it; returns the names of that one and of the other."""
    report = await stage.post.reported(callback, State.CLAIMED, State.RUNNING)
    names = {worker.name: worker for worker in stage.workers}
    names.pop(report.worker_name).tell(signal.SIGKILL)
    [other] = names
    return report.worker_name, other


@HAS_START
@pytest.mark.parametrize(
    "lost",
    [Answer(0, is_carried_out=True), Answer(502, html="no", is_carried_out=True)],
    ids=["no answer", "a proxy's answer"],
)
async def test_a_lost_answer_to_the_start_fails_it(steady: Steady, lost: Answer) -> None:
    """Its token is gone with the answer; without an end it would stay `running` for ever."""
    callback = await send(steady.stage, run=lost)

    report = await end_of(steady.stage, callback)

    assert report.state is State.FAILED
    assert report.info.startswith("it has not run: its start was accepted")
    assert runs(steady.stage, callback) == 0


async def test_a_start_that_was_not_carried_out_costs_nothing(steady: Steady) -> None:
    callback = await send(steady.stage, run=Answer(0))

    report = await end_of(steady.stage, callback)

    assert (report.state, report.attempt) == (State.SUCCESS, 1)
    assert runs(steady.stage, callback) == 1


async def test_a_worker_that_dies_before_the_start_is_followed_by_one_that_runs_it(
    stage: FaultStage,
) -> None:
    await pair(stage)
    servers = {worker.name: fork_server(worker) for worker in stage.workers}
    for server in servers.values():
        stage.daemons.append(server)
        os.kill(server, signal.SIGSTOP)
    callback = await send(stage)

    _, other = await kill_claimant(stage, callback)
    os.kill(servers[other], signal.SIGCONT)

    report = await end_of(stage, callback)
    assert (report.state, report.worker_name) == (State.SUCCESS, other)
    assert runs(stage, callback) == 1


@HAS_START
async def test_a_worker_that_dies_after_the_start_was_accepted_fails_it(stage: FaultStage) -> None:
    """It is not known whether it has run, so it does not run again."""
    await pair(stage)
    callback = await send(stage, run=Answer(200, is_held=True))
    await wait_until(lambda: callback in stage.api.exchanged, 30, "its token to be exchanged")

    killed, other = await kill_claimant(stage, callback)

    report = await end_of(stage, callback)
    stage.api.let_go()
    assert (report.state, report.worker_name) == (State.FAILED, other)
    assert report.info == f"worker {killed} started it before and has not reported its end"
    assert runs(stage, callback) == 0


async def test_a_worker_that_dies_while_it_runs_fails_it(stage: FaultStage) -> None:
    await pair(stage)
    callback = await send(stage, then="exec sleep 1000")
    await stage.post.reported(callback, State.RUNNING)
    await wait_until(lambda: runs(stage, callback), 30, "it to run")

    killed, _ = await kill_claimant(stage, callback)

    report = await end_of(stage, callback)
    assert report.state is State.FAILED
    assert report.info.startswith(f"worker {killed} lost")
    assert runs(stage, callback) == 1

"""Stops that the API server asks for: at a start, at a heartbeat, and what is said of their end.

The same file runs on Airflow 3.3 and 3.4, which differ in how long a stop may take, and in that the
supervisor of the latter acknowledges it.
"""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from airflow.sdk.api import client
from airflow.sdk.execution_time import supervisor

from nats_executor.wire.messages import State
from nats_worker.api.client import heartbeat_seconds
from nats_worker.delivery.verdict import Final, judge
from nats_worker.processes.exit_report import Ending
from nats_worker.processes.pool import ProcessPool
from tests.support.execution_api import Answer
from tests.support.waiting import wait_until
from tests.worker.conftest import Stage, is_alive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nats_worker.processes.run import Run
    from tests.support.execution_api import ExecutionApi

pytestmark = pytest.mark.anyio

# Airflow 3.4 waits for `[core] killed_task_cleanup_time`, 3.3 for five seconds.
HAS_CLEANUP_TIME = hasattr(supervisor, "KILLED_TASK_CLEANUP_TIME")
ACKNOWLEDGED = ["server_terminated"] if HAS_CLEANUP_TIME else []
SILENCE = Answer(0)
LOST = Answer(0, is_carried_out=True)
CLEARED = Answer(409, {"reason": "invalid_state", "message": "no", "previous_state": "restarting"})
ELSEWHERE = Answer(409, {"reason": "running_elsewhere", "previous_state": "restarting"})
NOT_RUNNING = Answer(409, {"reason": "not_running", "current_state": "restarting"})
ARCHIVED = Answer(410, {"reason": "not_found", "message": "it may have been moved"})
GONE = Answer(404, {"reason": "not_found"})
# Longer than any test lasts.
FOR_EVER = 10_000


def states(stage: Stage, ti_id: str) -> list[str]:
    return [body["state"] for body in stage.api.bodies(ti_id, "state")]


@asynccontextmanager
async def stage_with(cleanup_seconds: int, api: ExecutionApi, marks: Path) -> AsyncIterator[Stage]:
    """A stage whose supervisors send a heartbeat every second and stop tasks within this time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "1")
        patch.setenv("AIRFLOW__CORE__KILLED_TASK_CLEANUP_TIME", str(cleanup_seconds))
        async with ProcessPool() as pool:
            await pool.ready()
            yield Stage(pool, api, marks)


@pytest.fixture(scope="module")
async def quick(airflow_home: Path, api: ExecutionApi, marks: Path) -> AsyncIterator[Stage]:  # noqa: ARG001
    async with stage_with(1, api, marks) as stage:
        yield stage


async def refused(stage: Stage, ti_id: str, answer: Answer = NOT_RUNNING) -> None:
    """Have the next heartbeat of a task refused, and wait for it."""
    sent = len(stage.api.bodies(ti_id, "heartbeat"))
    stage.api.script(ti_id, "heartbeat", answer)
    await wait_until(lambda: len(stage.api.bodies(ti_id, "heartbeat")) > sent, 60, "a heartbeat")


async def stopped(run: Run) -> None:
    """Wait for the end of a run that the API server stopped; its verdict lets Airflow go on."""
    report = await run.exited()
    assert report.ending == Ending.STOPPED_BY_SERVER
    assert not is_alive(report.pid)
    verdict = judge(report, predecessor="", generation=0)
    assert isinstance(verdict, Final)
    assert verdict.state is State.SUCCESS


# At its start


async def test_the_start_of_a_task_that_was_cleared_and_runs_elsewhere(stage: Stage) -> None:
    ti_id = stage.new_id()
    stage.api.script(ti_id, "run", ELSEWHERE)

    report = await (await stage.start("succeed", ti_id)).exited()

    assert (report.ending, report.started) == (Ending.ALREADY_RUNNING, False)
    assert states(stage, ti_id) == []


async def test_the_start_of_a_task_that_was_cleared_while_its_answer_was_lost(
    stage: Stage,
) -> None:
    """This very process was accepted: Airflow waits for its end, and hears of it."""
    ti_id = stage.new_id()
    stage.api.script(ti_id, "run", LOST, CLEARED)

    await stopped(await stage.start("succeed", ti_id))

    assert states(stage, ti_id) == ACKNOWLEDGED


@pytest.mark.parametrize("answer", [ARCHIVED, GONE])
async def test_the_start_of_an_attempt_that_is_archived(stage: Stage, answer: Answer) -> None:
    ti_id = stage.new_id()
    stage.api.script(ti_id, "run", answer)

    report = await (await stage.start("succeed", ti_id)).exited()

    assert (report.ending, report.started) == (Ending.STALE, False)
    assert states(stage, ti_id) == []


# While it runs


@pytest.mark.parametrize(
    "answers",
    [
        [Answer(200)],
        [SILENCE, SILENCE, Answer(503), Answer(200)],
        [ARCHIVED],
        [GONE],
        [ELSEWHERE],
    ],
    ids=["taken", "taken late", "archived", "gone", "elsewhere"],
)
async def test_a_stop_is_acknowledged_until_the_api_server_answers(
    quick: Stage, answers: list[Answer]
) -> None:
    ti_id = quick.new_id()
    run, _ = await quick.start_sleeper("stubborn", ti_id)
    quick.api.script(ti_id, "state", *answers)

    await refused(quick, ti_id, ARCHIVED)

    await stopped(run)
    assert states(quick, ti_id) == ACKNOWLEDGED * len(answers)


async def test_a_task_that_ignores_sigterm_has_the_time_that_airflow_gives_it(
    quick: Stage,
) -> None:
    """Airflow 3.4 has a setting for it; the worker takes nothing from that time by itself."""
    early, late = quick.new_id(), quick.new_id()
    async with stage_with(FOR_EVER, quick.api, quick.marks) as patient:
        first, first_pid = await patient.start_sleeper("stubborn", early)
        second, _ = await quick.start_sleeper("stubborn", late)

        await refused(patient, early)
        await refused(quick, late)
        await stopped(second)

        if HAS_CLEANUP_TIME:
            assert is_alive(first_pid)
            # The worker itself can still end it, as at the last step of its drain.
            first.signal(signal.SIGKILL)
        await stopped(first)
    assert states(quick, early) == states(quick, late) == ACKNOWLEDGED


def test_all_heartbeats_that_may_fail_are_over_before_the_task_counts_as_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However Airflow sends them: thirty times once in 3.4, three times five requests in 3.3."""
    failures = 30 if HAS_CLEANUP_TIME else 3
    requests = 1 if HAS_CLEANUP_TIME else client.API_RETRIES
    monkeypatch.setenv("AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS", str(failures))
    monkeypatch.setenv("AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT", "300")
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "5")

    # Airflow's own five seconds are the least that an answer gets.
    assert 200 < failures * (5 + requests * max(5.0, heartbeat_seconds())) <= 300


@pytest.mark.skipif(not HAS_CLEANUP_TIME, reason="Airflow 3.3 trusts the task with its time-out")
async def test_a_task_that_does_not_hear_its_time_out_is_ended_from_outside(
    quick: Stage, airflow_home: Path
) -> None:
    ti_id = quick.new_id()

    report = await (await quick.start("deaf", ti_id)).exited()

    assert (report.ending, report.exit_code) == (Ending.FINISHED, -9)
    assert states(quick, ti_id) == ["failed"]
    verdict = judge(report, predecessor="", generation=0)
    assert isinstance(verdict, Final)
    assert verdict.state is State.FAILED
    log = (airflow_home / "logs" / f"{ti_id}.log").read_text()
    assert "Task did not stop before execution_timeout elapsed" in log

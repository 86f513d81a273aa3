"""An API server that goes away before a task's start, while it runs, and at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nats_executor.wire.messages import State
from tests.support.process_stage import is_alive
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.conftest import Steady
    from tests.support.execution_api import ExecutionApi

pytestmark = [pytest.mark.anyio, pytest.mark.integration, pytest.mark.chaos]

UNSENT = "Failed to send heartbeat"


@pytest.fixture(autouse=True)
def api_for_the_next(api: ExecutionApi) -> Iterator[None]:
    yield
    api.come_back()


@pytest.mark.slow
async def test_before_the_start(steady: Steady) -> None:
    """The claim is given up, and counts for nothing; it runs once the server is back."""
    stage = steady.stage
    stage.api.go_away()

    task = await stage.send("succeed")
    report = await stage.post.reported(task, State.RELEASED)
    assert report.info.startswith("no API server")
    stage.api.come_back()

    assert (await stage.succeeded(task)).attempt == 1
    assert State.RUNNING not in stage.states(task)[: stage.states(task).index(State.RELEASED)]


async def test_while_it_runs(steady: Steady) -> None:
    """A few lost heartbeats are nothing; the task runs on and its end arrives."""
    stage = steady.stage
    task = await stage.running()
    unsent = steady.worker.text.count(UNSENT)

    stage.api.go_away()
    await stage.says_again(steady.worker, UNSENT, unsent)
    stage.api.come_back()

    before = len(stage.api.bodies(task, "heartbeat"))
    await wait_until(lambda: len(stage.api.bodies(task, "heartbeat")) > before, 30, "the next one")
    assert await stage.is_running(task)
    await stage.carry_out(task)


@pytest.mark.slow
async def test_while_it_runs_for_too_long(steady: Steady) -> None:
    """Airflow's own supervisor gives the task up; that failure is delivered as well."""
    stage = steady.stage
    task, other = await stage.running("stubborn"), await stage.running()
    pid = await stage.pid_of(task)

    stage.api.go_away()
    await wait_until(lambda: not is_alive(pid), 60, "Airflow to end it")
    stage.api.come_back()

    assert "SIGKILL" in (await stage.failed(task)).info
    assert stage.final_states(task) == ["failed"]
    assert stage.starts(task) == 1
    # It obeys the SIGTERM that a lost API server brings, and ends well.
    await stage.succeeded(other)


async def test_at_the_end(steady: Steady) -> None:
    """A success waits in its supervisor until it is delivered, and is never called a failure."""
    stage = steady.stage
    task = await stage.running()
    said = steady.worker.text.count("cannot deliver a task's state")

    stage.api.go_away()
    await stage.end(task)
    await stage.says_again(steady.worker, "cannot deliver a task's state", said)
    assert stage.states(task)[-1] is State.RUNNING
    assert not await stage.post.is_acked(task)
    stage.api.come_back()

    await stage.succeeded(task)

"""An API server that goes away before a task's start, while it runs, and at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nats_executor.wire.messages import State
from tests.support.waiting import wait_until
from tests.support.worker_ground import is_alive

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
    ground = steady.ground
    ground.api.go_away()

    task = await ground.send("succeed")
    report = await ground.post.reported(task, State.RELEASED)
    assert report.info.startswith("no API server")
    ground.api.come_back()

    assert (await ground.succeeded(task)).attempt == 1
    assert State.RUNNING not in ground.states(task)[: ground.states(task).index(State.RELEASED)]


async def test_while_it_runs(steady: Steady) -> None:
    """A few lost heartbeats are nothing; the task runs on and its end arrives."""
    ground = steady.ground
    task = await ground.running()
    unsent = steady.worker.text.count(UNSENT)

    ground.api.go_away()
    await ground.says_again(steady.worker, UNSENT, unsent)
    ground.api.come_back()

    before = len(ground.api.bodies(task, "heartbeat"))
    await wait_until(lambda: len(ground.api.bodies(task, "heartbeat")) > before, 30, "the next one")
    assert await ground.is_running(task)
    await ground.carry_out(task)


@pytest.mark.slow
async def test_while_it_runs_for_too_long(steady: Steady) -> None:
    """Airflow's own supervisor gives the task up; that failure is delivered as well."""
    ground = steady.ground
    task, other = await ground.running("stubborn"), await ground.running()
    pid = await ground.pid_of(task)

    ground.api.go_away()
    await wait_until(lambda: not is_alive(pid), 60, "Airflow to end it")
    ground.api.come_back()

    assert "SIGKILL" in (await ground.failed(task)).info
    assert ground.final_states(task) == ["failed"]
    assert ground.starts(task) == 1
    # It obeys the SIGTERM that a lost API server brings, and ends well.
    await ground.succeeded(other)


async def test_at_the_end(steady: Steady) -> None:
    """A success waits in its supervisor until it is delivered, and is never called a failure."""
    ground = steady.ground
    task = await ground.running()
    said = steady.worker.text.count("cannot deliver a task's state")

    ground.api.go_away()
    await ground.end(task)
    await ground.says_again(steady.worker, "cannot deliver a task's state", said)
    assert ground.states(task)[-1] is State.RUNNING
    assert not await ground.post.is_acked(task)
    ground.api.come_back()

    await ground.succeeded(task)

"""The processes of one worker that are killed, one kind after the other."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from nats_executor.wire.messages import State
from nats_executor.wire.names import Verb
from tests.faults.memory_group import MemoryGroup
from tests.faults.stage import fork_server, parent_of
from tests.support.process_stage import is_alive
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.faults.conftest import Steady
    from tests.faults.stage import FaultStage

pytestmark = [pytest.mark.anyio, pytest.mark.integration, pytest.mark.chaos]

SPARE_BYTES = 128 * 2**20


async def test_a_killed_task_fails_with_its_signal(steady: Steady) -> None:
    """It is reported at once, and Airflow is told; its neighbours do not notice."""
    stage = steady.stage
    other, killed = await stage.running(), await stage.running("stubborn")

    os.kill(await stage.pid_of(killed), signal.SIGKILL)

    assert "SIGKILL" in (await stage.failed(killed)).info
    assert stage.final_states(killed) == ["failed"]
    assert await stage.is_running(other)
    await stage.carry_out(other)


async def test_a_killed_supervisor_takes_only_its_task_along(steady: Steady) -> None:
    """The task and its child are gone, the report names the signal, neighbours run on."""
    stage = steady.stage
    other, killed = await stage.running(), await stage.running("parent")
    child = await stage.pid_of(killed)
    task = (await stage.post.reported(killed, State.RUNNING)).pid

    os.kill(parent_of(task), signal.SIGKILL)

    assert "the supervisor was killed by SIGKILL" in (await stage.failed(killed)).info
    await wait_until(lambda: not is_alive(task) and not is_alive(child), 15, "their end")
    assert stage.starts(killed) == 1
    assert await stage.is_running(other)
    await stage.carry_out(other)


async def test_a_worker_outlives_its_fork_server(steady: Steady) -> None:
    """What ran under it fails with the signal; the next fork server runs what comes next."""
    stage = steady.stage
    lost = [await stage.running(task) for task in ("sleep", "stubborn")]
    pids = [await stage.pid_of(task) for task in lost]
    server = fork_server(steady.worker)

    os.kill(server, signal.SIGKILL)

    for task in lost:
        report = await stage.failed(task)
        assert "fork server was killed by SIGKILL" in report.info
        assert (report.worker_name, stage.starts(task)) == ("w1", 1)
    await wait_until(lambda: not any(map(is_alive, pids)), 15, "their processes to be gone")
    await stage.works(steady.worker)
    assert fork_server(steady.worker) != server


async def test_a_fork_server_that_cannot_live_ends_the_worker(stage: FaultStage) -> None:
    """It hands back what it holds and exits with 1 and one line that says why."""
    worker = await stage.start()
    lost = await stage.running()
    dead: set[int] = set()

    def next_server() -> int:
        server = fork_server(worker)
        return 0 if server in dead else server

    for _ in range(5):
        server = await wait_until(next_server, 10, "the next fork server")
        os.kill(server, signal.SIGKILL)
        dead.add(server)

    assert await worker.ended() == 1
    [error] = [line for line in worker.text.splitlines() if line.startswith("error:")]
    assert "the fork server died 5 times within 60 s" in error
    # Its last word. A task that loses its supervisor may show a traceback of its own before.
    assert worker.text.splitlines()[-1] == error
    assert (await stage.failed(lost)).worker_name == "w1"
    assert await stage.post.presence("w1") is None


async def test_a_task_that_takes_too_much_memory(stage: FaultStage) -> None:
    """The kernel takes the greedy task alone, and the report gives the hint."""
    with ExitStack() as exits:
        try:
            group = exits.enter_context(MemoryGroup())
        except OSError as exc:
            pytest.skip(f"no memory cgroup of our own: {exc}")
        worker = stage.launch("--skip-serve-logs")
        exits.callback(worker.clear_away)
        group.add(worker.pid)  # its children, all of them, are yet to come
        await worker.said("is ready")
        other = await stage.running()
        group.limit(group.usage + SPARE_BYTES)

        greedy = await stage.send("hog")

        report = await stage.failed(greedy)
        assert "SIGKILL" in report.info
        assert "out of memory" in report.info
        assert await stage.is_running(other)
        assert worker.process.poll() is None
        await stage.carry_out(other)
        await stage.works()


async def test_a_start_that_hangs_goes_to_another_worker(stage: FaultStage) -> None:
    """As a stopped fork server makes it; the worker says why, and is not ready meanwhile."""
    worker = await stage.start(name="w1", start_timeout_seconds=2)
    os.kill(fork_server(worker), signal.SIGSTOP)
    task = await stage.send("succeed")
    report = await stage.post.reported(task, State.RELEASED)
    await stage.start(name="w2")

    assert (await stage.succeeded(task)).worker_name == "w2"

    assert "its start hung" in report.info
    assert "the fork server" in report.info
    assert "is stopped" in report.info
    await worker.said("[nats_executor] start_timeout_seconds = 2; next: handing it back")


async def test_a_start_that_hangs_may_be_revoked(stage: FaultStage) -> None:
    """Airflow calls it stuck; what the worker has claimed and not started is let go."""
    worker = await stage.start(name="w1", kill_seconds=0.5)
    os.kill(fork_server(worker), signal.SIGSTOP)
    task = await stage.send("succeed")
    claim = await stage.post.reported(task, State.CLAIMED)
    names, ask = stage.settings.names, stage.post.broker.request
    for _ in range(3):  # it has gone on since its claim, and given the task to the fork server
        await ask(names.control(claim.worker, Verb.PING), b"", timeout=30)

    stop = names.control(claim.worker, Verb.STOP)
    assert await ask(stop, task.encode(), timeout=30) == b"stopping"

    assert (await stage.post.reported(task, State.DROPPED)).info == "the scheduler took it back"
    assert stage.starts(task) == 0

"""Processes and their violent ends: whichever dies, nothing is left behind and every run ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from subprocess import PIPE
from typing import TYPE_CHECKING

import pytest

from nats_worker.processes.exit_report import Ending
from nats_worker.processes.linux import children_of
from nats_worker.processes.pool import PoolBroken, ProcessPool
from nats_worker.processes.preloading import PRELOADED
from tests.support.execution_api import Answer
from tests.support.waiting import block_until, wait_until
from tests.worker.conftest import Stage, is_alive, task_body

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.anyio


def server_pid(pool: ProcessPool) -> int:
    assert pool.server is not None
    return pool.server.process.pid


async def test_a_run_tells_when_it_started(stage: Stage) -> None:
    run, pid = await stage.start_sleeper()

    await run.started()

    assert run.task_pid == pid
    assert not run.is_over
    run.signal(signal.SIGTERM)
    assert (await run.exited()).ending == Ending.FINISHED


async def test_a_probe_has_a_process_that_does_nothing(stage: Stage) -> None:
    asked = len(stage.api.received)
    run = await stage.pool.start_probe("probe-1")

    report = await run.exited()

    assert (report.ending, report.started, report.exit_code) == (Ending.FINISHED, True, 0)
    assert report.pid == run.supervisor_pid == run.task_pid
    assert report.pid not in {0, server_pid(stage.pool)}
    assert stage.pool.runs == {}
    assert len(stage.api.received) == asked


async def test_a_run_that_is_refused_never_starts(stage: Stage) -> None:
    ti_id = stage.new_id()
    stage.api.script(ti_id, "run", Answer(404, {"reason": "not_found"}))
    run = await stage.start("succeed", ti_id)
    started = asyncio.create_task(run.started())

    await run.exited()

    assert not started.done()
    started.cancel()


async def test_a_large_body_arrives_whole(stage: Stage) -> None:
    run = await stage.start("succeed", sentry_integration="x" * 2_000_000)

    # Airflow cannot import an integration of that name, which is its own business.
    assert (await run.exited()).started


async def test_a_dispatch_runs_once_at_a_time(stage: Stage) -> None:
    run, _ = await stage.start_sleeper()

    with pytest.raises(ValueError, match="runs already"):
        await stage.pool.start(run.dispatch_id, {})

    run.signal(signal.SIGTERM)
    await run.exited()


async def test_many_runs_at_a_time_end_each_with_its_own_report(stage: Stage) -> None:
    tasks = ["succeed", "quit_itself", "kill_itself"] * 4
    runs = [await stage.start(task) for task in tasks]

    reports = [await run.exited() for run in runs]

    assert [report.exit_code for report in reports] == [0, 7, -9] * 4
    assert len({report.pid for report in reports}) == len(tasks)
    assert stage.pool.runs == {}


async def test_a_task_imports_next_to_nothing_by_itself(stage: Stage) -> None:
    """An import that the fork server lacks costs every task again."""
    ti_id = stage.new_id()
    await (await stage.start("modules", ti_id)).exited()

    imported = json.loads((stage.marks / ti_id).read_text())

    # In the order of import: whatever follows the last preloaded module came later.
    last = max(imported.index(name) for name in PRELOADED)
    late = imported[last + 1 :]
    assert len(late) < 10, late


async def test_bundles_are_cleaned_up_by_a_process_of_its_own(stage: Stage) -> None:
    stage.pool.cleanup_bundles()

    server = server_pid(stage.pool)
    await wait_until(lambda: children_of(server), description="the process to be forked")
    await wait_until(lambda: not children_of(server), description="the process to end")


# Signals


async def test_a_signal_before_the_start_reaches_the_supervisor(stage: Stage) -> None:
    ti_id = stage.new_id()
    stage.api.hold(ti_id, "run")
    run = await stage.start("succeed", ti_id)
    await wait_until(lambda: stage.api.bodies(ti_id, "run"), description="/run to be asked")
    task = next(iter(children_of(run.supervisor_pid)))

    run.signal(signal.SIGKILL)
    report = await run.exited()
    stage.api.let_go()

    assert (report.ending, report.started) == (Ending.DIED, False)
    assert "SIGKILL" in report.info
    await wait_until(lambda: not is_alive(task), description="the task process to end")


async def test_a_signal_before_the_fork_is_not_lost(stage: Stage) -> None:
    run = await stage.start("stubborn")
    assert run.supervisor_pid == 0

    run.signal(signal.SIGKILL)

    assert (await run.exited()).ending == Ending.DIED


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
async def test_a_fork_server_does_not_mind_signals(stage: Stage, sig: int) -> None:
    run, task = await stage.start_sleeper()

    os.kill(server_pid(stage.pool), sig)

    assert (await (await stage.start("succeed")).exited()).ending == Ending.FINISHED
    assert is_alive(task)
    run.signal(signal.SIGTERM)
    assert (await run.exited()).ending == Ending.FINISHED


# Violent ends


async def test_a_task_that_is_killed(stage: Stage) -> None:
    run, task = await stage.start_sleeper("stubborn")

    os.kill(task, signal.SIGKILL)

    report = await run.exited()
    assert (report.ending, report.exit_code, report.pid) == (Ending.FINISHED, -9, task)


async def test_a_supervisor_that_is_killed_takes_its_task_along(stage: Stage) -> None:
    run, child = await stage.start_sleeper("parent")
    other, _ = await stage.start_sleeper()
    await run.started()

    os.kill(run.supervisor_pid, signal.SIGKILL)
    report = await run.exited()

    assert (report.ending, report.started, report.pid) == (Ending.DIED, True, run.task_pid)
    assert "SIGKILL" in report.info
    await wait_until(
        lambda: not is_alive(run.task_pid) and not is_alive(child),
        description="the task and its child to be killed",
    )
    assert not other.is_over
    other.signal(signal.SIGTERM)
    assert (await other.exited()).ending == Ending.FINISHED


async def test_a_fork_server_that_is_killed_takes_its_runs_along(stage: Stage) -> None:
    runs = [(await stage.start_sleeper("stubborn"))[0] for _ in range(2)]
    parent, child = await stage.start_sleeper("parent")
    runs.append(parent)
    await parent.started()
    server = server_pid(stage.pool)

    os.kill(server, signal.SIGKILL)
    reports = [await run.exited() for run in runs]

    assert {report.ending for report in reports} == {Ending.DIED}
    assert all("SIGKILL" in report.info for report in reports)
    pids = [child, *(pid for run in runs for pid in (run.supervisor_pid, run.task_pid))]
    await wait_until(lambda: not any(map(is_alive, pids)), description="every process to end")
    assert (await (await stage.start("succeed")).exited()).ending == Ending.FINISHED
    assert server_pid(stage.pool) != server


@pytest.mark.parametrize("victim", ["supervisor", "fork server"])
async def test_a_killed_task_is_gone_before_its_run_is_over(stage: Stage, victim: str) -> None:
    """Airflow may start it again at once, so it would run twice for as long as it takes to die."""
    run, task = await stage.start_sleeper("large")
    await run.started()

    os.kill(
        run.supervisor_pid if victim == "supervisor" else server_pid(stage.pool), signal.SIGKILL
    )
    report = await run.exited()

    assert not is_alive(task)
    assert report.ending == Ending.DIED


async def test_closing_the_pool_leaves_no_process(stage: Stage) -> None:
    ti_id = stage.new_id()
    async with ProcessPool() as pool:
        other = Stage(pool, stage.api, stage.marks)
        run, task = await other.start_sleeper("stubborn", ti_id)
        pids = {server_pid(pool), run.supervisor_pid, task}

    assert not any(map(is_alive, pids))
    assert (await run.exited()).exit_code == -9
    # The supervisor had the time to tell the API server.
    assert [body["state"] for body in stage.api.bodies(ti_id, "state")] == ["failed"]


MAIN = """
import asyncio, json, signal, sys
from nats_worker.processes.pool import ProcessPool

async def main():
    for sig in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sig, print, "got", sig.name)
    async with ProcessPool() as pool:
        run = await pool.start("a", json.loads(sys.stdin.readline()))
        await run.started()
        print("pids", pool.server.process.pid, run.supervisor_pid, run.task_pid)
        await run.exited()

asyncio.run(main())
"""


def next_line(output: Iterable[str], start: str) -> list[str]:
    """The words after `start` in the next line that begins with it; Airflow prints others."""
    return next(line.split()[1:] for line in output if line.startswith(start))


def test_a_main_process_that_is_killed_leaves_no_process(stage: Stage) -> None:
    """Before that, signals to its whole process group reach nothing but itself."""
    ti_id = stage.new_id()
    command = [sys.executable, "-uc", MAIN]
    with subprocess.Popen(
        command, stdin=PIPE, stdout=PIPE, text=True, start_new_session=True
    ) as main:
        assert main.stdin is not None
        assert main.stdout is not None
        main.stdin.write(json.dumps(task_body("stubborn", ti_id)) + "\n")
        main.stdin.flush()
        pids = [int(pid) for pid in next_line(main.stdout, "pids")]
        block_until((stage.marks / ti_id).exists, description="the task to run")
        for sig in (signal.SIGINT, signal.SIGTERM):
            os.killpg(main.pid, sig)
            assert (
                next(line for line in main.stdout if line.startswith("got")).split()[1] == sig.name
            )
        assert all(map(is_alive, pids))

        main.kill()

        block_until(lambda: not any(map(is_alive, pids)), 15, "every process to end")
    assert [body["state"] for body in stage.api.bodies(ti_id, "state")] == ["failed"]


async def test_a_pool_may_be_left_at_any_moment(stage: Stage) -> None:  # noqa: ARG001
    """Here while Airflow is being imported, and while the next fork server is launched."""
    async with ProcessPool() as pool:
        early = server_pid(pool)
    assert not is_alive(early)

    async with ProcessPool() as pool:
        os.kill(server_pid(pool), signal.SIGKILL)
        await wait_until(lambda: pool._deaths, description="its death to be noticed")
    assert not is_alive(server_pid(pool))


async def test_a_fork_server_that_cannot_live_breaks_the_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")

    async with ProcessPool() as pool:
        with pytest.raises(PoolBroken, match="died 5 times"):
            await pool.ready()
        with pytest.raises(PoolBroken):
            await pool.broken()
        with pytest.raises(PoolBroken):
            await pool.start("a", {})

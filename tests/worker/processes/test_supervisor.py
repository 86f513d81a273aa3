"""A supervisor takes another workload only if the one before left nothing, and goes in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from nats_worker.processes.exit_report import Ending
from nats_worker.processes.linux import children_of
from nats_worker.processes.pool import ProcessPool
from tests.support.execution_api import Answer
from tests.support.waiting import wait_until
from tests.worker.conftest import Stage, callback_body, is_alive

if TYPE_CHECKING:
    from nats_worker.processes.exit_report import ExitReport
    from nats_worker.processes.run import Run

pytestmark = pytest.mark.anyio

FIT = """
import socket, threading
from nats_worker.processes.exit_report import Ending, ExitReport
from nats_worker.processes.supervisor import Supervisor

supervisor = Supervisor(socket.socketpair()[0], print)
plain = ExitReport(ending=Ending.FINISHED, started=True, pid=4711)
supervisor.served = 1
assert not supervisor.is_fit_for_more(plain, 2), "its start was never announced"
supervisor.task_pid = 4711
assert supervisor.is_fit_for_more(plain, 2)
assert not supervisor.is_fit_for_more(plain, 1), "it has had as many as it may"
for ending in set(Ending) - {Ending.FINISHED}:
    other = ExitReport(ending=ending, started=True, pid=4711)
    assert not supervisor.is_fit_for_more(other, 2), ending
end = threading.Event()
threading.Thread(target=end.wait).start()
assert not supervisor.is_fit_for_more(plain, 2), "it has a thread"
end.set()
print("good")
"""


def server_pid(stage: Stage) -> int:
    assert stage.pool.server is not None
    return stage.pool.server.process.pid


def ending(run: Run) -> ExitReport:
    assert run.report is not None
    return run.report


async def test_the_next_workload_finds_a_supervisor(stage: Stage) -> None:
    first, second = stage.new_id(), stage.new_id()

    runs = [await stage.finish(ti_id=ti_id) for ti_id in (first, second)]

    assert runs[0].supervisor_pid == runs[1].supervisor_pid
    assert runs[0].task_pid != runs[1].task_pid
    assert [ending(run).pid for run in runs] == [run.task_pid for run in runs]
    for ti_id, run in zip((first, second), runs, strict=True):
        assert [body["pid"] for body in stage.api.bodies(ti_id, "run")] == [run.task_pid]


async def test_workloads_at_a_time_have_supervisors_of_their_own(stage: Stage) -> None:
    await stage.finish()
    runs = [await stage.start("succeed") for _ in range(3)]

    for run in runs:
        await run.exited()

    assert len({run.supervisor_pid for run in runs}) == 3


@pytest.mark.parametrize("task", ["quit_itself", "kill_itself"])
async def test_after_any_other_end_a_supervisor_goes(stage: Stage, task: str) -> None:
    unusual = await stage.finish(task)

    assert not is_alive(unusual.supervisor_pid)
    assert (await stage.finish()).supervisor_pid != unusual.supervisor_pid


async def test_a_supervisor_with_a_process_left_over_takes_nothing_else(stage: Stage) -> None:
    """Or that process would count as the next one's, and be killed with it."""
    ti_id = stage.new_id()
    first = await stage.finish("leave", ti_id)
    child = int((stage.marks / ti_id).read_text())

    second = await stage.finish("kill_itself")

    assert ending(first).ending == Ending.FINISHED
    assert second.supervisor_pid != first.supervisor_pid
    assert is_alive(child)
    os.kill(child, signal.SIGKILL)


@pytest.mark.usefixtures("airflow_home")
def test_what_makes_a_supervisor_unfit() -> None:
    process = subprocess.run(
        [sys.executable, "-c", FIT], capture_output=True, text=True, check=False
    )

    assert process.stdout.endswith("good\n"), process.stderr


async def test_a_refused_start_after_a_plain_end_is_one(stage: Stage) -> None:
    """Nothing that is known of the workload before counts."""
    before = await stage.finish()
    ti_id = stage.new_id()
    stage.api.script(ti_id, "run", Answer(404, {"reason": "not_found"}))

    run = await stage.finish(ti_id=ti_id)

    assert run.supervisor_pid == before.supervisor_pid
    assert (ending(run).ending, ending(run).started) == (Ending.STALE, False)


async def test_a_callback_after_a_task(stage: Stage) -> None:
    before = await stage.finish()

    run = await stage.pool.start(stage.new_id(), callback_body("os.getpid"))
    report = await run.exited()

    assert run.supervisor_pid == before.supervisor_pid
    assert (report.ending, report.started) == (Ending.FINISHED, True)
    assert (await stage.finish()).supervisor_pid == before.supervisor_pid


async def test_a_signal_before_the_next_start_ends_that_one(stage: Stage) -> None:
    before = await stage.finish()
    ti_id = stage.new_id()
    stage.api.hold(ti_id, "run")
    run = await stage.start("succeed", ti_id)
    await wait_until(lambda: stage.api.bodies(ti_id, "run"), description="/run to be asked")

    run.signal(signal.SIGKILL)
    report = await run.exited()
    stage.api.let_go()

    assert run.supervisor_pid == before.supervisor_pid
    assert (report.ending, report.started) == (Ending.DIED, False)
    assert ending(before).ending == Ending.FINISHED
    assert ending(await stage.finish()).ending == Ending.FINISHED


async def test_a_free_supervisor_that_is_killed_is_not_missed(stage: Stage) -> None:
    before = await stage.finish()

    os.kill(before.supervisor_pid, signal.SIGKILL)
    await wait_until(lambda: not is_alive(before.supervisor_pid), description="it to be gone")

    assert ending(await stage.finish()).ending == Ending.FINISHED


async def test_a_free_supervisor_that_was_stopped_is_replaced(stage: Stage) -> None:
    """As far as it can be noticed: a small workload would wait until it goes on."""
    before = await stage.finish()
    os.kill(before.supervisor_pid, signal.SIGSTOP)

    run = await stage.start("succeed", sentry_integration="x" * 2_000_000)

    assert (await run.exited()).started
    assert run.supervisor_pid != before.supervisor_pid
    assert not is_alive(before.supervisor_pid)


async def test_an_idle_worker_has_no_process_to_spare(stage: Stage) -> None:
    run = await stage.finish()
    assert is_alive(run.supervisor_pid)

    server = server_pid(stage)
    await wait_until(lambda: not children_of(server), 15, "free supervisors to go")

    assert ending(await stage.finish()).ending == Ending.FINISHED


async def test_a_free_supervisor_goes_while_a_later_one_works(stage: Stage) -> None:
    """Which was forked with a copy of all that the fork server had open."""
    ti_id = stage.new_id()
    stage.api.hold(ti_id, "run")
    first = await stage.start("succeed", ti_id)
    later, _ = await stage.start_sleeper()

    stage.api.let_go()
    assert (await first.exited()).ending == Ending.FINISHED

    assert is_alive(first.supervisor_pid)
    await wait_until(lambda: not is_alive(first.supervisor_pid), 15, "the free one to go")
    later.signal(signal.SIGTERM)
    await later.exited()


async def test_a_supervisor_runs_no_more_than_its_share(stage: Stage) -> None:
    async with ProcessPool(workloads_per_supervisor=2) as pool:
        other = Stage(pool, stage.api, stage.marks)
        pids = [(await other.finish()).supervisor_pid for _ in range(4)]

    assert pids[0] == pids[1] != pids[2] == pids[3]


async def test_closing_the_pool_ends_free_supervisors_too(stage: Stage) -> None:
    async with ProcessPool() as pool:
        other = Stage(pool, stage.api, stage.marks)
        runs = [await other.start("succeed") for _ in range(2)]
        for run in runs:
            await run.exited()
        assert pool.server is not None
        assert children_of(pool.server.process.pid)

    assert not any(is_alive(run.supervisor_pid) for run in runs)

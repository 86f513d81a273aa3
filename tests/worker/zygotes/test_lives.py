"""Zygotes in real processes: edits, deaths and ends; no task gets lost, and none sees old code."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from nats_worker.processes.exit_report import Ending
from nats_worker.processes.linux import children_of
from nats_worker.processes.pool import ProcessPool
from tests.support.process_stage import is_alive
from tests.support.waiting import wait_until
from tests.worker.zygotes.both_ways import BothWays, Seen, age

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nats_worker.processes.run import Run

pytestmark = pytest.mark.anyio

DAG = """
import random, sys, time
import airflow.sdk
import own_module

with airflow.sdk.DAG("lives"):

    @airflow.sdk.task
    def tell():
        numpy = sys.modules.get("numpy.random")
        return [own_module.VALUE, {value}, random.random(), numpy and numpy.random()]

    @airflow.sdk.task
    def sleep():
        time.sleep(1000)

    tell() >> sleep()
"""


class Zygotes(BothWays):
    """A pool with zygotes, and the file of this module's Dag."""

    @property
    def bundle(self) -> Path:
        return self.home / "mixed"

    def write(self, value: int = 1, own: int = 1) -> None:
        (self.bundle / "lives.py").write_text(DAG.format(value=value))
        (self.bundle / "own_module.py").write_text(f"VALUE = {own}")

    async def tell(self) -> Any:
        """What the task `tell` returned."""
        seen = await self.run(self.warm, "lives.py", "lives", "tell")
        return value_of(seen)

    async def sleep(self) -> Run:
        run, _ = await self.start(self.warm, "lives.py", "lives", "sleep")
        await run.started()
        return run

    def server(self) -> int:
        assert self.warm.server is not None
        return self.warm.server.process.pid

    async def zygote(self) -> int:
        """Warm up, and return the pid of the file's zygote."""
        before = children_of(self.server())
        assert await self.warm_up("lives.py", "lives", "tell")
        # The others are supervisors, of which the zygote's are its own children.
        run = await self.sleep()
        (pid,) = [
            pid
            for pid in children_of(self.server()) - before
            if run.supervisor_pid in children_of(pid)
        ]
        run.signal(signal.SIGKILL)
        await run.exited()
        return pid


def value_of(seen: Seen) -> Any:
    (value,) = [body for method, _, body in seen.requests if method == "POST"]
    return value


@pytest.fixture
async def zygotes(both: BothWays) -> AsyncIterator[Zygotes]:
    """A pool of its own for each test, with a Dag that has not been changed lately."""
    async with ProcessPool(dag_zygotes="auto") as pool:
        await pool.ready()
        zygotes = Zygotes(both.plain, pool, both.api, both.home)
        zygotes.write()
        age(zygotes.bundle)
        yield zygotes


async def test_numbers_of_chance_differ(zygotes: Zygotes) -> None:
    await zygotes.zygote()

    first, second = [await zygotes.tell() for _ in range(2)]

    assert zygotes.warm.zygotes.starts == 3
    assert first[:2] == second[:2] == [1, 1]
    assert first[2] != second[2]


@pytest.mark.parametrize("changes", [{"value": 2}, {"own": 3}])
async def test_a_task_after_an_edit_runs_the_new_code(
    zygotes: Zygotes, changes: dict[str, int]
) -> None:
    zygote = await zygotes.zygote()

    zygotes.write(**changes)

    assert (await zygotes.tell())[:2] == [changes.get("own", 1), changes.get("value", 1)]
    await wait_until(lambda: not is_alive(zygote), description="the stale zygote to end")


async def test_what_runs_goes_on_when_a_zygote_is_stale(zygotes: Zygotes) -> None:
    zygote = await zygotes.zygote()
    run = await zygotes.sleep()

    zygotes.write(value=2)

    assert (await zygotes.tell())[1] == 2
    assert is_alive(run.task_pid)
    assert is_alive(zygote)
    run.signal(signal.SIGTERM)
    assert (await run.exited()).ending == Ending.FINISHED
    await wait_until(lambda: not is_alive(zygote), description="the zygote to end with its task")


async def test_a_zygote_that_is_killed_takes_its_tasks_along(zygotes: Zygotes) -> None:
    zygote = await zygotes.zygote()
    run = await zygotes.sleep()

    os.kill(zygote, signal.SIGKILL)
    report = await run.exited()

    assert (report.ending, report.started) == (Ending.DIED, True)
    assert "SIGKILL" in report.info
    pids = (zygote, run.supervisor_pid, run.task_pid)
    await wait_until(lambda: not any(map(is_alive, pids)), description="every process to end")
    assert (await zygotes.tell())[:2] == [1, 1]
    assert zygotes.warm.runs == {}


async def test_a_start_that_is_given_up_reaches_no_task(zygotes: Zygotes) -> None:
    """A zygote that hangs holds a request; the main process gives that up, and kills the rest."""
    zygote = await zygotes.zygote()
    os.kill(zygote, signal.SIGSTOP)
    run, ti_id = await zygotes.start(zygotes.warm, "lives.py", "lives", "tell")

    assert await zygotes.warm.give_up(run)
    os.kill(zygote, signal.SIGCONT)
    report = await run.exited()

    assert (report.ending, report.started) == (Ending.HUNG, False)
    assert (await zygotes.tell())[:2] == [1, 1]
    assert zygotes.api.bodies(ti_id, "state") == []


async def test_a_drained_pool_keeps_no_zygote(zygotes: Zygotes) -> None:
    zygote = await zygotes.zygote()
    run = await zygotes.sleep()

    zygotes.warm.retire_zygotes()

    await wait_until(lambda: zygotes.warm.zygotes.ready == 0, description="it to be retired")
    assert (await zygotes.tell())[:2] == [1, 1]
    assert is_alive(run.task_pid)
    run.signal(signal.SIGTERM)
    await run.exited()
    await wait_until(lambda: not is_alive(zygote), description="the zygote to end")
    starts = zygotes.warm.zygotes.starts
    await zygotes.tell()
    assert zygotes.warm.zygotes.starts == starts


async def test_closing_the_pool_leaves_no_process_of_a_zygote(zygotes: Zygotes) -> None:
    async with ProcessPool(dag_zygotes="auto") as pool:
        other = Zygotes(zygotes.plain, pool, zygotes.api, zygotes.home)
        zygote = await other.zygote()
        run, ti_id = await other.start(pool, "lives.py", "lives", "sleep")
        await run.started()
        pids = (zygote, run.supervisor_pid, run.task_pid)
        assert all(map(is_alive, pids))

    assert not any(map(is_alive, pids))
    assert (await run.exited()).exit_code == -signal.SIGKILL
    # The supervisor had the time to tell the API server.
    assert [body["state"] for body in zygotes.api.bodies(ti_id, "state")] == ["failed"]


async def test_a_fork_server_that_is_killed_takes_zygotes_along(zygotes: Zygotes) -> None:
    zygote = await zygotes.zygote()
    run = await zygotes.sleep()

    os.kill(zygotes.server(), signal.SIGKILL)

    assert (await run.exited()).ending == Ending.DIED
    pids = (zygote, run.supervisor_pid, run.task_pid)
    await wait_until(lambda: not any(map(is_alive, pids)), description="every process to end")
    assert zygotes.warm.zygotes.ready == 0
    assert (await zygotes.tell())[:2] == [1, 1]

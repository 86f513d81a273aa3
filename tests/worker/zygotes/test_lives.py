"""Zygotes in real processes: edits, deaths and ends; no task gets lost, and none sees old code."""

from __future__ import annotations

import itertools
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nats_worker.processes.exit_report import Ending
from nats_worker.processes.pool import ProcessPool, Warmth
from nats_worker.processes.zygote_parse import missing_names
from tests.support.process_stage import is_alive
from tests.support.waiting import wait_until
from tests.worker.zygotes.both_ways import BothWays, age

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats_worker.processes.run import Run
    from tests.support.execution_api import ExecutionApi

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(bool(missing_names()), reason="this Airflow has no place for zygotes"),
]
NUMBERS = itertools.count()

DAG = """
import random, sys, time
import airflow.sdk
import own_{name}

with airflow.sdk.DAG("{name}"):

    @airflow.sdk.task
    def tell():
        numpy = sys.modules.get("numpy.random")
        return [own_{name}.VALUE, {value}, random.random(), numpy and numpy.random()]

    @airflow.sdk.task
    def sleep():
        time.sleep(1000)

    tell() >> sleep()
"""


@dataclass
class Zygotes(BothWays):
    """A pool with zygotes, and a Dag file that only one test has."""

    name: str = field(default_factory=lambda: f"lives_{next(NUMBERS)}")

    def write(self, value: int = 1, own: int = 1) -> None:
        bundle = self.home / "mixed"
        (bundle / f"{self.name}.py").write_text(DAG.format(name=self.name, value=value))
        (bundle / f"own_{self.name}.py").write_text(f"VALUE = {own}")

    async def tell(self) -> Any:
        """What the task `tell` returned."""
        seen = await self.run(self.warm, f"{self.name}.py", self.name, "tell")
        (value,) = [body for method, _, body in seen.requests if method == "POST"]
        return value

    async def begin(self, task: str) -> tuple[Run, str]:
        return await self.start(self.warm, f"{self.name}.py", self.name, task)

    async def sleep(self) -> Run:
        run, _ = await self.begin("sleep")
        await run.started()
        return run

    def server(self) -> int:
        assert self.warm.server is not None
        return self.warm.server.process.pid

    async def zygote(self) -> int:
        """Warm up, and return the pid of the file's zygote."""
        self.write()
        age(self.home / "mixed")
        assert await self.warm_up(f"{self.name}.py", self.name, "tell")
        run, _ = await self.begin("tell")
        await run.exited()
        return parent_of(run.supervisor_pid)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture(scope="module")
async def lasting(home: Path) -> AsyncIterator[ProcessPool]:  # noqa: ARG001
    async with ProcessPool(warmth=Warmth(dag_zygotes="auto")) as pool:
        await pool.ready()
        yield pool


@pytest.fixture
def zygotes(lasting: ProcessPool, api: ExecutionApi, home: Path) -> Zygotes:
    return Zygotes(lasting, lasting, api, home)


@pytest.fixture
async def ending(api: ExecutionApi, home: Path) -> AsyncIterator[Zygotes]:
    """A pool that the test may break."""
    async with ProcessPool(warmth=Warmth(dag_zygotes="auto")) as pool:
        await pool.ready()
        yield Zygotes(pool, pool, api, home)


async def test_numbers_of_chance_differ(zygotes: Zygotes) -> None:
    await zygotes.zygote()
    starts = zygotes.warm.zygotes.starts

    first, second = [await zygotes.tell() for _ in range(2)]

    assert zygotes.warm.zygotes.starts == starts + 2
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
    run.signal(signal.SIGKILL)
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
    run, ti_id = await zygotes.begin("tell")

    assert await zygotes.warm.give_up(run)
    os.kill(zygote, signal.SIGCONT)
    report = await run.exited()

    assert (report.ending, report.started) == (Ending.HUNG, False)
    assert (await zygotes.tell())[:2] == [1, 1]
    assert zygotes.api.bodies(ti_id, "state") == []


async def test_a_drained_pool_keeps_no_zygote(ending: Zygotes) -> None:
    zygote = await ending.zygote()
    run = await ending.sleep()

    ending.warm.retire_zygotes()

    await wait_until(lambda: ending.warm.zygotes.ready == 0, description="it to be retired")
    assert (await ending.tell())[:2] == [1, 1]
    assert is_alive(run.task_pid)
    run.signal(signal.SIGKILL)
    await run.exited()
    await wait_until(lambda: not is_alive(zygote), description="the zygote to end")
    starts = ending.warm.zygotes.starts
    await ending.tell()
    assert ending.warm.zygotes.starts == starts


async def test_closing_the_pool_leaves_no_process_of_a_zygote(
    api: ExecutionApi, home: Path
) -> None:
    async with ProcessPool(warmth=Warmth(dag_zygotes="auto")) as pool:
        ending = Zygotes(pool, pool, api, home)
        zygote = await ending.zygote()
        run, ti_id = await ending.begin("sleep")
        await run.started()
        pids = (zygote, run.supervisor_pid, run.task_pid)
        assert all(map(is_alive, pids))

    assert not any(map(is_alive, pids))
    assert (await run.exited()).exit_code == -signal.SIGKILL
    # The supervisor had the time to tell the API server.
    assert [body["state"] for body in api.bodies(ti_id, "state")] == ["failed"]


async def test_a_fork_server_that_is_killed_takes_zygotes_along(ending: Zygotes) -> None:
    zygote = await ending.zygote()
    run = await ending.sleep()

    os.kill(ending.server(), signal.SIGKILL)

    assert (await run.exited()).ending == Ending.DIED
    pids = (zygote, run.supervisor_pid, run.task_pid)
    await wait_until(lambda: not any(map(is_alive, pids)), description="every process to end")
    assert ending.warm.zygotes.ready == 0
    assert (await ending.tell())[:2] == [1, 1]

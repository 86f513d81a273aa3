"""What a task waits for where a worker is the cause, each staged with real worker processes."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.operations import instances
from nats_executor.operations.choosing import Which
from nats_executor.operations.draining import drain_workers, undrain_workers
from nats_executor.operations.instances import WhichTask
from nats_executor.operations.situations import explain
from nats_executor.topology import setup
from tests.scheduler.conftest import airflow_database
from tests.scheduler.table import table_fixture
from tests.support.fixtures import settings_for
from tests.support.process_stage import QUICK, task_body
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from nats_executor.operations.situations import Explanation
    from tests.faults.stage import FaultStage
    from tests.scheduler.table import Rows

__all__ = ["airflow_database", "table_fixture"]

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


class Asker:
    """Sends tasks, with their rows, and asks what they wait for."""

    def __init__(self, stage: FaultStage, table: Rows) -> None:
        self.stage = stage
        self.table = table
        self.settings = stage.settings

    async def send(self, name: str, task: str = "sleep", **row: Any) -> str:
        """Queue a task of the test's Dag, and write its row as the scheduler does."""
        dispatch_id = str(uuid.uuid4())
        self.table.add_task(
            name, external_executor_id=dispatch_id, queued_dttm=datetime.now(UTC), **row
        )
        body = task_body(task, dispatch_id)
        body["ti"]["pool_slots"] = row.get("pool_slots", 1)
        await self.stage.post.send(body, dispatch_id)
        return dispatch_id

    async def run(self, name: str) -> str:
        dispatch_id = await self.send(name)
        await self.stage.pid_of(dispatch_id)
        self.table.change_task(name, state="running", hostname="here")
        return dispatch_id

    async def ask(self, name: str) -> Explanation:
        which = WhichTask("a_dag", "a_run", name)
        return await explain(self.stage.post.broker, self.settings, which)

    async def becomes(self, name: str, cause: str, words: str = "") -> str:
        """Wait until this is the cause; returns the sentence."""
        said: list[str] = []

        async def look() -> str:
            reason = (await self.ask(name)).reason
            said.append(f"{reason.cause}: {reason.sentence}")
            return reason.sentence if reason.cause == cause and words in reason.sentence else ""

        try:
            sentence: str = await wait_until(look, 60, cause)
        except TimeoutError:
            raise AssertionError(f"{cause} never came: {said[-1]}") from None
        return sentence


@pytest.fixture
def asker(stage: FaultStage, table: Rows, monkeypatch: pytest.MonkeyPatch) -> Asker:
    monkeypatch.setattr(instances, "is_of_nats", lambda *_: True)
    return Asker(stage, table)


async def test_a_worker_that_is_full_drained_and_lost(asker: Asker) -> None:
    stage = asker.stage
    worker = await stage.start("-c", "1")
    runs = await asker.run("runs")
    await asker.send("t")

    full = await asker.becomes("t", "workers full")
    assert full.startswith("It is next in queue 'default', and all 1 slot of 1 worker are taken")

    await asker.send("later")
    await asker.becomes("later", "waits its turn", "1 task is ahead of it (1 of a_dag)")
    assert (await asker.ask("runs")).reason.cause == "runs"

    broker, settings = stage.post.broker, asker.settings
    await drain_workers(broker, settings, Which(["w1"]), by="ann", reason="upgrade")
    drained = await asker.becomes("t", "workers draining")
    assert drained.endswith("1 draining (w1: drained by ann (upgrade)).")
    await undrain_workers(broker, settings, Which(["w1"]), by="ann")
    await asker.becomes("t", "workers full")

    worker.tell(signal.SIGKILL)
    lost = await asker.becomes("t", "workers lost")
    assert "1 lost (w1: silent for " in lost
    with contextlib.suppress(ProcessLookupError):  # it may have gone with its worker
        os.kill(await stage.pid_of(runs), signal.SIGKILL)


async def test_a_worker_that_has_claimed_it_and_waits_for_its_start(asker: Asker) -> None:
    stage = asker.stage
    dispatch_id = await asker.send("t")
    stage.api.hold(dispatch_id, "run")
    await stage.start("-c", "1")

    claimed = await asker.becomes("t", "claimed", "waits for its process, or for Airflow's")

    assert claimed.startswith("Worker w1 has it and ")
    assert (await asker.ask("t")).situation.holdings[0].since is not None
    stage.api.let_go()
    await asker.becomes("t", "runs", "Airflow will show that soon")
    await stage.end(dispatch_id)
    await asker.becomes("t", "over", "NATS has its message no more")


async def test_a_worker_that_keeps_it_for_its_weight(asker: Asker) -> None:
    stage = asker.stage
    asker.settings = settings_for(
        *stage.settings.servers, subject_prefix=stage.settings.subject_prefix,
        pool_slots_as_weight="True",
    )  # fmt: skip
    await stage.start("-c", "2", pool_slots_as_weight=True)
    runs = await asker.run("runs")
    heavy = await asker.send("heavy", pool_slots=2)

    kept = await asker.becomes("heavy", "claimed", "until 2 of its 2 slots are free")
    assert kept.startswith("Worker w1 keeps it ")

    await stage.end(runs)
    await stage.pid_of(heavy)
    asker.table.change_task("heavy", state="running")
    await asker.send("heavier", pool_slots=3)
    await asker.becomes("heavier", "weight", "It asks for 3 slots (pool_slots)")
    await stage.end(heavy)


async def test_a_worker_that_is_paused_for_its_memory(asker: Asker) -> None:
    worker = await asker.stage.start("-c", "1", memory_high_percent=1)
    await worker.said("memory")
    await asker.send("t")

    paused = await asker.becomes("t", "workers paused")

    assert "(w1: " in paused
    assert "memory" in paused


async def test_the_limit_of_its_queue(asker: Asker) -> None:
    stage = asker.stage
    limited = settings_for(
        *stage.settings.servers, subject_prefix=stage.settings.subject_prefix,
        queue_limits="default=1", **QUICK,
    )  # fmt: skip
    await setup.apply(stage.post.broker, limited, ["default"])
    await stage.start("-c", "2", queue_limits="default=1")
    runs = await asker.run("runs")
    await asker.send("t")

    reached = await asker.becomes("t", "queue limit")

    assert reached.endswith("1 of 1 are with workers: a_dag.runs on here.")
    await stage.end(runs)

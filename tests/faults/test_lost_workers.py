"""Workers that are killed: whatever they were doing is reported, or done by another one."""

from __future__ import annotations

import math
import signal
import uuid
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_executor.fleet.liveness import (
    PING_PAUSE_SECONDS,
    PING_SECONDS,
    PINGS,
    PingResult,
    is_lost,
)
from nats_executor.wire.messages import State
from nats_worker.delivery.errand import Errand
from nats_worker.delivery.leases import BEATS_PER_LEASE
from tests.support.fixtures import settings_for
from tests.support.process_stage import is_alive, task_body
from tests.support.waiting import wait_until
from tests.support.worker_process import descendants

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.stage import FaultStage

pytestmark = [pytest.mark.anyio, pytest.mark.integration, pytest.mark.chaos]

DEFAULTS = settings_for("nats://127.0.0.1:4222")


@given(
    renewed_ago=st.floats(0, DEFAULTS.ack_wait_seconds / BEATS_PER_LEASE),
    recorded_ago=st.floats(0, DEFAULTS.heartbeat_seconds),
    answer=st.sampled_from([PingResult.GONE, PingResult.SILENT]),
)
def test_at_default_settings_a_lost_worker_is_found_in_time(
    renewed_ago: float, recorded_ago: float, answer: PingResult
) -> None:
    """Under 45 s after its death, whenever it last renewed its leases and its record.

    A worker whose end the broker did not see, such as that of its whole machine, needs a little
    longer: it is silent, which proves less than that no worker listens.
    """
    delivery = Mock(subject=DEFAULTS.names.task("default", "d1"), body=b"")
    pause = Errand(Mock(settings=DEFAULTS), "default", delivery).pause
    asking = PINGS * (PING_PAUSE_SECONDS + PING_SECONDS * (answer is PingResult.SILENT))
    # The broker offers what it ran to others, and again whenever one of them hands it back.
    now = DEFAULTS.ack_wait_seconds - renewed_ago
    while not is_lost(
        answer=answer,
        record_age=now + recorded_ago,
        connected_for=math.inf,
        lost_after_seconds=DEFAULTS.worker_lost_seconds,
    ):
        now += asking + pause

    assert now + asking < (45 if answer is PingResult.GONE else 50)


@pytest.mark.slow
async def test_a_killed_workers_tasks_are_lost_and_nobody_elses(stage: FaultStage) -> None:
    """Every task of the dead worker fails by its name; those of the living run on to their end."""
    victim, survivor = stage.launch("-c", "2"), stage.launch("-c", "4", name="w2")
    for worker in (victim, survivor):
        await worker.said("is ready")
    lost = [await stage.running_on(victim) for _ in range(2)]
    kept = [await stage.running() for _ in range(2)]  # the victim is full
    below = descendants(victim.pid)

    victim.tell(signal.SIGKILL)

    for task in lost:
        report = await stage.failed(task)
        assert report.info.startswith("worker w1 lost")
        assert report.worker_name == "w2"
        assert stage.starts(task) == 1
    await wait_until(lambda: not any(map(is_alive, below)), 15, "what the victim ran to be gone")
    for task in kept:
        assert await stage.is_running(task)
        assert (await stage.carry_out(task)).worker_name == "w2"


@pytest.mark.slow
@pytest.mark.parametrize(("point", "attempt"), [("received", 1), ("claimed", 2)])
async def test_a_worker_that_dies_before_the_start(
    stage: FaultStage, traps: Path, point: str, attempt: int
) -> None:
    """Another worker runs the workload: Airflow sees one start, so no try is spent."""
    workers = [stage.launch_trapped(name=name) for name in ("w1", "w2")]
    for worker in workers:
        await worker.said("is ready")
    task = str(uuid.uuid4())
    (traps / f"{task}.{point}.1").touch()

    await stage.post.send(task_body("sleep", task), task)
    await wait_until(lambda: any(w.process.poll() for w in workers), 30, "the trap to snap")
    await stage.pid_of(task)

    # One trap, which caught one worker: the test has met what it is about.
    [dead] = [worker for worker in workers if worker.process.poll() is not None]
    assert dead.process.returncode == -signal.SIGKILL
    report = await stage.carry_out(task)
    assert (report.attempt, report.worker_name != dead.name) == (attempt, True)
    assert State.FAILED not in stage.states(task)

"""NATS loses its data while a worker and the scheduler that knew of its tasks die."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from tests.chaos.database import Behaviour
from tests.chaos.invariants import violations
from tests.chaos.stage import ChaosStage
from tests.chaos.storm import Course, Storm
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.chaos.database import Execution

pytestmark = [
    pytest.mark.integration,
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]

# Both workers serve the queue of the tasks; neither has the slots for all of them.
SCHEDULER, DEAD, ALIVE = "scheduler-1", "worker-4", "worker-5"
TASKS = 12
SECONDS = 20.0
PATIENCE = 120.0


@pytest.fixture
def storm(tmp_path: Path) -> Iterator[Storm]:
    with mock.patch.dict(os.environ):
        stage = ChaosStage(tmp_path, servers=1, members=(SCHEDULER, DEAD, ALIVE))
        # Airflow's own time limit must not be what ends it, however slow the machine is.
        os.environ["CHAOS_SILENT_SECONDS"] = "1000"
        try:
            stage.start()
            made = Storm(stage, Course(seed=1, seconds=0.0, workloads=0, plan=()))
            made.wait_until_ready()
            yield made
        finally:
            stage.close()


def running(storm: Storm) -> list[Execution]:
    return storm.database.executions("outcome = 'running'")


def test_a_broker_a_worker_and_a_scheduler_lost_at_once_cost_the_workers_tasks_a_try(
    storm: Storm,
) -> None:
    stage = storm.stage
    [scheduler], [server] = stage.schedulers, stage.servers
    dead = next(worker for worker in stage.workers if worker.name == DEAD)
    with storm.database.transaction():
        for _ in range(TASKS):
            storm.database.submit(Behaviour.PLAIN, "default", SECONDS, max_tries=1)
    block_until(lambda: len(running(storm)) == TASKS, PATIENCE, "all of them to run")
    lost = {execution.number for execution in running(storm) if execution.worker == dead.pid}
    assert 0 < len(lost) < TASKS

    server.end(signal.SIGKILL)
    server.wipe_storage()
    storm.injector.hurt.add(dead.pid)
    dead.end(signal.SIGKILL)
    scheduler.end(signal.SIGKILL)
    server.start()
    scheduler.start()

    block_until(lambda: retried(storm) == lost, PATIENCE, "the dead worker's tasks to be retried")
    dead.start()
    storm.settle()
    block_until(lambda: DEAD in storm.look().workers, PATIENCE, "the worker to be back")
    evidence = storm.evidence()
    assert violations(evidence) == []
    assert {row.state for row in evidence.rows} == {"success"}
    assert {row.number for row in evidence.rows if row.try_number > 1} == lost


def retried(storm: Storm) -> set[int]:
    return {entry.number for entry in storm.database.history() if entry.what == "retry"}

"""A scheduler of one release and a worker of the other understand each other."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from nats_worker.processes.linux import children_of
from tests.chaos.database import Behaviour
from tests.chaos.invariants import violations
from tests.chaos.stage import ChaosStage
from tests.chaos.storm import Course, Storm
from tests.support.release import last_release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.processes import Member
    from tests.support.release import Release

pytestmark = [
    pytest.mark.integration,
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]

# This worker serves every queue.
SCHEDULER, WORKER = "scheduler-1", "worker-5"
SECONDS = 0.05


@pytest.fixture(params=["new scheduler, old worker", "old scheduler, new worker"])
def storm(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    earlier_release: Release,  # noqa: ARG001 - says why it is not there
) -> Iterator[Storm]:
    with mock.patch.dict(os.environ):
        stage = ChaosStage(tmp_path, servers=1, mix=last_release(), members=(SCHEDULER, WORKER))
        for member in (*stage.schedulers, *stage.workers):
            is_old = f"old {member.name.partition('-')[0]}" in request.param
            member.release = stage.earlier if is_old else None
        try:
            stage.start()
            made = Storm(stage, Course(seed=1, seconds=0.0, workloads=0, plan=()))
            made.wait_until_ready()
            yield made
        finally:
            stage.close()


def submit(storm: Storm, behaviour: str, queue: str = "default") -> None:
    with storm.database.transaction():
        storm.database.submit(behaviour, queue, SECONDS, max_tries=0)


def code_of(member: Member) -> set[str]:
    """Where a member's main process and what is below it find their code first."""
    pids = {member.pid, *children_of(member.pid)}
    environments = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in pids]
    mark = b"PYTHONPATH="
    return {
        entry.removeprefix(mark).decode()
        for environment in environments
        for entry in environment
        if entry.startswith(mark)
    }


def test_everything_gets_its_one_end(storm: Storm) -> None:
    """Tasks of each queue, a callback, a failure, a token that has died, and poison."""
    stage = storm.stage
    scheduler, worker = stage.schedulers[0], stage.workers[0]
    assert stage.earlier
    assert (code_of(scheduler) == {str(stage.earlier.tree)}) == (scheduler.release is not None)
    assert (code_of(worker) == {str(stage.earlier.tree)}) == (worker.release is not None)
    for queue in ("default", "batch", "gpu"):
        submit(storm, Behaviour.PLAIN, queue)
    for behaviour in (Behaviour.FAILING, Behaviour.OLD_TOKEN):
        submit(storm, behaviour)

    storm.settle()
    # It takes its worker along, whatever else that runs.
    submit(storm, Behaviour.POISON)
    storm.settle()
    # In the highest band, which an older worker may not serve: it waits for the next one.
    submit(storm, Behaviour.CALLBACK)
    if worker.release:
        stage.change_release(worker)
        worker.end(signal.SIGTERM)
        worker.start()
    storm.settle()

    evidence = storm.evidence()
    assert violations(evidence) == []
    assert {row.state for row in evidence.rows if row.behaviour == Behaviour.PLAIN} == {"success"}
    assert len(evidence.broker.dead_letters) == 1

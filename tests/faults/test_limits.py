"""A broker that can store no more: publishers say so once, keep their work and go on later."""

from __future__ import annotations

import logging
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.scheduler.stage import RealStage, queue_up, task_workload
from tests.support.emptying import empty
from tests.support.nats_server import NatsServer
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nats_executor import NatsExecutor
    from nats_executor.wire.names import Names

pytestmark = [pytest.mark.integration, pytest.mark.chaos]

TASKS = 40
# Each is as large as a workload with a long carrier of tracing context.
BULK = "x" * 10_000
DISK_BYTES = 16 * 2**20


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """Return the warnings and errors of this project that contain a text."""
    caplog.set_level(logging.INFO)

    def find(text: str) -> list[str]:
        return [
            record.getMessage()
            for record in list(caplog.records)
            if record.levelno >= logging.WARNING
            and record.name.startswith("nats_executor")
            and text in record.getMessage()
        ]

    return find


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of the test's own."""
    place = tmp_path / "nats" / "storage"
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk, mounting is not allowed: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def stage(names: Names, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RealStage]:
    # It may store more than the disk has (`max_file_store` of all test servers), and so fills it.
    server = NatsServer(tmp_path / "nats")
    try:
        with RealStage(names, monkeypatch, server.start()) as stage:
            yield stage
    finally:
        server.kill()


def queue_bulk(executor: NatsExecutor) -> None:
    for number in range(TASKS):
        task: Any = task_workload(f"t{number}")
        task.sentry_integration = BULK
        queue_up(executor, task)


def all_sent(executor: NatsExecutor) -> None:
    def is_sent() -> bool:
        executor.heartbeat()
        return len(executor.running) == TASKS

    block_until(is_sent, 60, "every workload to be sent")


def test_a_full_stream(stage: RealStage, said: Callable[[str], list[str]]) -> None:
    """Workloads over `max_stream_bytes` wait in the scheduler until workers have made room."""
    stage.configure(max_stream_bytes=TASKS * len(BULK) * 3 // 4)
    executor = stage.executor(parallelism=2 * TASKS)
    queue_bulk(executor)

    for _ in range(5):
        executor.heartbeat()

    first = {workload.dispatch_id for workload in stage.sent()}
    assert TASKS / 2 < len(first) < TASKS
    assert (len(executor.running), executor.slots_occupied) == (len(first), TASKS)
    [complaint] = said("maximum bytes exceeded")
    assert "left in the queue, to be sent later" in complaint
    stage.portal.call(empty, stage.broker, stage.names.tasks_stream, stage.names.tasks())
    all_sent(executor)
    rest = {workload.dispatch_id for workload in stage.sent()}
    assert len(first | rest) == len(first) + len(rest) == TASKS
    assert len(said("maximum bytes exceeded")) == 1


@pytest.mark.slow
def test_a_full_disk(disk: Path, stage: RealStage, said: Callable[[str], list[str]]) -> None:
    """Workloads wait in the scheduler; it needs no restart, only the server and the disk do.

    nats-server takes nothing more for a stream whose write has failed, even with space again.
    """
    executor = stage.executor(parallelism=2 * TASKS)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - TASKS * len(BULK) // 2))
    queue_bulk(executor)

    executor.heartbeat()

    assert len(said("NATS is away")) == 1
    assert "no space left on device" in stage.server.log
    assert executor.slots_occupied == TASKS
    ballast.unlink()
    stage.restart()
    all_sent(executor)
    assert len({workload.dispatch_id for workload in stage.sent()}) == TASKS
    assert len(said("NATS is away")) == 1

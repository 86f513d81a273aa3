"""Workers that can start nothing, beside good ones and alone: no workload pays for them."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nats_executor.operations.survey import check_rows, take_survey
from nats_executor.wire.messages import State
from tests.support.execution_api import ExecutionApi
from tests.support.nats_server import free_port
from tests.support.probing import ask, samples
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.faults.conftest import SharedStage
    from tests.faults.stage import FaultStage
    from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.anyio, pytest.mark.integration, pytest.mark.chaos]

LOGS = "AIRFLOW__LOGGING__BASE_LOG_FOLDER"
URL = "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"
HOSTNAME = "AIRFLOW__CORE__HOSTNAME_CALLABLE"
LOG_PORT = "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT"
# What Python asks before it looks into /etc/passwd.
USERS = ("LOGNAME", "USER", "LNAME", "USERNAME")
# Words in front of a command: another user id in a namespace of its own, which no user has; and a
# disk of this size, mounted for the command alone.
UNNAMED = ("unshare", "--user", "--map-user=54321")


def small_disk(folder: Path, size: str) -> tuple[str, ...]:
    folder.mkdir()
    mount = 'mount -t tmpfs -o size="$1" tmpfs "$0"; shift; exec "$@"'
    return ("unshare", "--map-root-user", "--mount", "sh", "-ec", mount, str(folder), size)


@dataclass
class Hole:
    """A worker that can start nothing, and what it has to say about that."""

    name: str
    reason: str
    environment: dict[str, str | None] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    worker: WorkerProcess | None = None

    def launch(self, stage: FaultStage, *args: str, **options: object) -> WorkerProcess:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
            self.worker = stage.launch(
                "--skip-serve-logs", *args, name=self.name, prefix=self.prefix,
                health_port=self.port, **options,
            )  # fmt: skip
        return self.worker

    async def shows(self, stage: FaultStage, reason: str = "") -> None:
        """Wait until everything that shows a worker tells why this one takes nothing."""
        reason = reason or self.reason
        assert self.worker
        await self.worker.said(f"{reason}; next: taking no workloads")

        async def is_told() -> bool:
            record = await stage.post.presence(self.name)
            return record is not None and record.paused == reason

        await wait_until(is_told, 30, "its record to say so")
        answer = await ask(self.port, "/readyz")
        assert (answer.status, answer.text) == (503, f"not ready: paused: {reason}\n")
        assert (await samples(self.port))["airflow_nats_worker_unfit", ()] == 1
        rows = check_rows(await take_survey(stage.post.broker, stage.settings), stage.settings)
        [row] = [row for row in rows if row["check"] == f"worker {self.name}"]
        assert (row["status"], row["details"]) == ("paused", reason)

    async def mentions(self, stage: FaultStage, text: str) -> bool:
        """Whether the record and the probe do so."""
        record = await stage.post.presence(self.name)
        answer = await ask(self.port, "/readyz")
        return text in answer.text and record is not None and text in record.paused

    async def is_ready(self) -> bool:
        return (await ask(self.port, "/readyz")).status == 200


async def test_what_can_start_nothing_takes_nothing_from_a_good_worker(
    shared_stage: SharedStage, api: ExecutionApi, tmp_path: Path
) -> None:
    """Its self-test says why, before the first pull."""
    folder = "no task log can be written below {} ([logging] base_log_folder): "
    disk = tmp_path / "disk"
    base = api.url.removesuffix("execution/")
    elsewhere = (
        "what answers at {} ([core] execution_api_server_url) is not Airflow's Execution API: 404, "
        "application/json for health/ping; set its URL, which ends in /execution/ unless a proxy "
        "changes that"
    )
    holes = [
        Hole(
            "locked",
            f"{folder.format('/proc/logs')}No such file or directory; let user id {os.getuid()} "
            "write there, or set another folder",
            {LOGS: "/proc/logs"},
        ),
        Hole(
            "full",
            f"{folder.format(disk)}No space left on device; free 1024 KiB or more there, or set "
            "another folder",
            {LOGS: str(disk)},
            small_disk(disk, "300k"),
        ),
        Hole(
            "nameless",
            "user id 54321 has no name, and Airflow starts no task without one: add it to "
            "/etc/passwd, or set USER in the worker's environment",
            dict.fromkeys(USERS),
            UNNAMED,
        ),
        Hole("lost", elsewhere.format(base), {URL: base}),
        Hole("astray", elsewhere.format(f"{api.url}v1/"), {URL: f"{api.url}v1/"}),
    ]
    stage = shared_stage.stage
    for hole in holes:
        hole.launch(stage)
    for hole in holes:
        await hole.shows(stage)

    tasks = [await stage.send("succeed") for _ in range(24)]

    for task in tasks:
        report = await stage.succeeded(task)
        assert (report.worker_name, report.attempt) == (shared_stage.worker.name, 1)
        assert stage.states(task) == [State.CLAIMED, State.RUNNING, State.SUCCESS]
    for hole in holes:
        assert hole.worker
        assert f"worker {hole.name} is ready" not in hole.worker.text
        assert hole.worker.text.count("next: taking no workloads") == 1
        hole.worker.clear_away()


async def test_what_no_self_test_sees_stops_a_worker_after_three_starts(stage: FaultStage) -> None:
    """Airflow asks for the name of the host with each start, and here that fails.

    It does so for a worker that serves logs over a port, which tasks have to be found by.
    """
    hole = Hole("hole", "", {HOSTNAME: "no.such.module", LOG_PORT: str(free_port())})
    # Nothing becomes a dead letter before the good worker is there, however slow the machine is.
    worker = hole.launch(stage, "--serve-logs", "-c", "1", max_attempts=1000)
    await worker.said("is ready")
    tasks = [await stage.send("succeed") for _ in range(12)]
    await worker.said("3 starts in a row failed on this worker; the last one: ")
    # It is ready again for a moment with each trial.
    await wait_until(lambda: hole.mentions(stage, "no.such.module"), 60, "all to say so")

    good = await stage.start(name="good", max_attempts=1000)

    for task in tasks:
        report = await stage.succeeded(task)
        assert report.worker_name == "good"
    assert good.text.count("goes back to the queue") == 0
    trials = worker.text.count("next: taking one workload at a time")
    assert worker.text.count("goes back to the queue") <= 3 + trials


async def test_a_worker_that_breaks_stops_and_one_that_was_mended_works(
    stage: FaultStage, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    hole = Hole(
        "hole",
        f"no task log can be written below {logs} ([logging] base_log_folder): Not a directory; "
        f"let user id {os.getuid()} write there, or set another folder",
        {LOGS: str(logs)},
    )
    worker = hole.launch(stage, "-c", "2")
    await worker.said("is ready")
    await stage.works()

    logs.rename(tmp_path / "kept")
    logs.write_text("a file")
    tasks = [await stage.send("succeed") for _ in range(6)]
    await hole.shows(stage)
    assert not any(State.FAILED in stage.states(task) for task in tasks)
    logs.unlink()

    for task in tasks:
        await stage.succeeded(task)
    await worker.said("workloads can start here now; next: taking as many")
    await wait_until(hole.is_ready, 30, "its readiness")
    assert worker.text.count(hole.reason) == 1


async def test_a_disk_that_fills_up_costs_only_what_has_started(
    stage: FaultStage, tmp_path: Path
) -> None:
    """Airflow's supervisor fails with its first line after the start, and that is known then."""
    disk = tmp_path / "disk"
    reason = f"no task log can be written below {disk} ([logging] base_log_folder): No space left"
    hole = Hole("hole", reason, {LOGS: str(disk)}, small_disk(disk, "4m"))
    worker = hole.launch(stage, "-c", "1")
    await worker.said("is ready")
    filler = Path(f"/proc/{worker.pid}/root{disk}/filler")
    fill(filler)
    tasks = [await stage.send("succeed") for _ in range(8)]
    await worker.said(f"{reason} on device; free 1024 KiB or more there, or set another folder")
    remove(filler)

    ends = [await stage.post.reported(task, State.SUCCESS, State.FAILED) for task in tasks]
    lost = [end for end in ends if end.state is State.FAILED]
    assert 1 <= len(lost) <= 2  # the second may start while the first one is reported
    assert all("No space left on device" in end.info for end in lost)
    assert "workloads can start here now" in worker.text


def remove(path: Path) -> None:
    path.unlink()


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


async def test_a_worker_waits_for_its_api_server(stage: FaultStage) -> None:
    """With no API server at its start it takes nothing, and says where it looks for one."""
    with ExecutionApi() as api:
        api.go_away()
        hole = Hole(
            "early",
            f"no API server at {api.url} ([core] execution_api_server_url): ConnectError: "
            "[Errno 111] Connection refused; start it, or set its URL as seen from this worker",
            {URL: api.url},
        )
        worker = hole.launch(stage)
        task = await stage.send("succeed")
        await hole.shows(stage)
        assert stage.states(task) == []

        api.come_back()
        report = await stage.post.reported(task, State.SUCCESS)

        assert report.attempt == 1
        assert len(api.bodies(task, "run")) == 1
        assert "worker early is ready" in worker.text
        assert worker.text.count("next: taking no workloads") == 1
        worker.clear_away()

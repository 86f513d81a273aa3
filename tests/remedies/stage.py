"""The places where a person meets a trouble: a worker's output, a scheduler's log, the commands."""

from __future__ import annotations

import contextlib
import logging
import signal
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nats_executor import NatsExecutor
from nats_executor.cli import commands
from tests.scheduler.stage import queue_up, task_workload
from tests.support.nats_server import free_port
from tests.support.waiting import block_until
from tests.support.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from tests.cli.conftest import Console

__all__ = ["COMMANDS", "RemedyStage"]

COMMANDS = (commands.check, commands.setup, commands.queues_list, commands.workers_list)
# Of an executor, which go on each in their own way: the connection, the streams, the sending.
PARTS = 3
# Everything is tried again within a second, so that "not said again" means something soon.
QUICK: dict[str, Any] = {
    "ack_wait_seconds": 1,
    "connect_timeout_seconds": 1,
    "heartbeat_seconds": 0.2,
    "publish_timeout_seconds": 2,
    "worker_lost_seconds": 2,
}


@dataclass
class RemedyStage:
    """One configuration, and all who use it."""

    console: Console
    directory: Path
    caplog: pytest.LogCaptureFixture
    health_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.caplog.set_level(logging.INFO)
        self.configure(**QUICK)

    def configure(self, **options: object) -> None:
        self.console.configure(**options)

    # Commands

    def refused(self, command: Any, **args: Any) -> str:
        """Return the one line with which a command ends that NATS does not answer."""
        code, output = self.console.run(command, output="json", **args)
        assert (code, output) == (2, ""), (code, output, self.console.error)
        start, line = self.console.error.split(" ", 1)
        assert start == "error:"
        assert line.count("\n") == 1
        return line.strip()

    def refusals(self) -> set[str]:
        """Return what all commands that ask NATS say; they should agree."""
        return {self.refused(command) for command in COMMANDS}

    # A worker

    @contextlib.contextmanager
    def worker(self, *args: str, name: str = "w1", **options: Any) -> Iterator[WorkerProcess]:
        """Run a worker as a process of its own; SIGTERM has to end it in good order."""
        worker = self.launch(*args, name=name, **options)
        try:
            yield worker
            worker.tell(signal.SIGTERM)
            block_until(lambda: worker.process.poll() is not None, 60, "its end")
            code = worker.process.returncode
            assert code == 0, f"exit code {code}: {worker.text}"
            assert "Traceback" not in worker.text, worker.text
        finally:
            worker.clear_away()

    def launch(self, *args: str, name: str, **options: Any) -> WorkerProcess:
        return WorkerProcess.launch(
            self.directory, self.console.settings, "--skip-serve-logs", *args, name=name,
            health_port=self.health_port, **options,
        )  # fmt: skip

    def ended_worker(self, *args: str) -> tuple[int, str]:
        """Return the exit code and the output of a worker that ends by itself."""
        worker = self.launch(*args, name="w1")
        try:
            return worker.process.wait(60), worker.text
        finally:
            worker.clear_away()

    def said(self, worker: WorkerProcess, text: str) -> None:
        try:
            block_until(lambda: text in worker.text, 90, repr(text))
        except TimeoutError as exc:
            raise AssertionError(f"{exc}:\n{worker.text}") from exc

    def readiness(self) -> str:
        """Return what /readyz says."""
        address = f"http://127.0.0.1:{self.health_port}/readyz"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.read().decode()
        except OSError:
            return "no answer"

    def is_ready(self) -> bool:
        return self.readiness() == "ready\n"

    # A scheduler

    @contextlib.contextmanager
    def scheduler(self) -> Iterator[NatsExecutor]:
        """Start an executor with one workload that waits to be sent."""
        self.caplog.clear()
        executor = NatsExecutor()
        executor.job_id = 7
        try:
            executor.start()
            queue_up(executor, task_workload(queue="a"))
            yield executor
        finally:
            executor.end()

    def logged(self, text: str, level: int = logging.WARNING) -> list[str]:
        """Return the warnings of this project that hold a text."""
        return [
            record.getMessage()
            for record in list(self.caplog.records)
            if record.name.startswith("nats_executor")
            and record.levelno >= level
            and text in record.getMessage()
        ]

    def scheduler_says(self, executor: NatsExecutor, line: str) -> None:
        """Heartbeat until a line is in the scheduler's log; the workload stays where it is."""

        def is_logged() -> bool:
            executor.heartbeat()
            return bool(self.logged(line))

        block_until(is_logged, 30, f"{line!r} in {self.caplog.text}")
        for _ in range(50):
            executor.heartbeat()
        # Each part that goes on in its own way says once how.
        said = self.logged(line)
        is_once = len(said) == len(set(said)) <= PARTS
        assert is_once, said
        assert all("; next: " in text for text in said), said
        assert executor.slots_occupied == 1, executor
        assert "Traceback" not in self.caplog.text, self.caplog.text

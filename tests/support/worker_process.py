"""`nats-worker` as a process of its own, on a real nats-server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nats_executor.wire.messages import Kind, Report, State, Workload, decode, encode
from nats_worker.processes.linux import children_of
from tests.support.presences import presence_in
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nats_executor.broker.port import Broker
    from nats_executor.settings import Settings
    from nats_executor.wire.messages import Presence
    from tests.support.release import Release

__all__ = ["Post", "WorkerProcess", "descendants"]

START_SECONDS = 60.0


def descendants(pid: int) -> set[int]:
    """Every process below one."""
    found: set[int] = set()
    todo = [pid]
    while todo:
        children = children_of(todo.pop()) - found
        found |= children
        todo += children
    return found


@dataclass
class WorkerProcess:
    """One worker process with its output."""

    process: subprocess.Popen[bytes]
    output: Path
    name: str

    @classmethod
    def launch(
        cls,
        directory: Path,
        settings: Settings,
        *args: str,
        name: str = "w1",
        release: Release | None = None,
        prefix: Sequence[str] = (),
        **options: object,
    ) -> WorkerProcess:
        """Start `python -m nats_worker` with the settings' servers and names in its environment.

        Args:
            release: whose code it has, that under test without one.
            prefix: words in front of the command, of a program that becomes the worker.
        """
        values = {"servers": ",".join(settings.servers), "subject_prefix": settings.subject_prefix}
        values |= {option: str(value) for option, value in options.items()}
        environment = {f"AIRFLOW__NATS_EXECUTOR__{k.upper()}": v for k, v in values.items()}
        command = [sys.executable, "-P", "-m", "nats_worker"]
        if release:
            command = release.command("nats_worker")
            environment |= release.environment
        output = directory / f"{name}-{len(list(directory.iterdir()))}.log"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*prefix, *command, "-H", name, *args],
                env=os.environ | environment,
                cwd=directory,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, output, name)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    async def said(self, text: str) -> None:
        """Wait for a text in its output."""

        def look() -> bool:
            if text in self.text:
                return True
            if self.process.poll() is not None:
                raise AssertionError(f"it ended without {text!r}:\n{self.text}")
            return False

        await wait_until(look, START_SECONDS, f"{text!r} in the output")

    async def ended(self) -> int:
        """Wait for its end and return the exit code."""
        await wait_until(lambda: self.process.poll() is not None, START_SECONDS, "its end")
        return self.process.returncode

    def tell(self, sig: signal.Signals) -> None:
        self.process.send_signal(sig)

    def clear_away(self) -> None:
        """Leave nothing behind, whatever a test did."""
        below = descendants(self.pid)
        for pid in below:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()


@dataclass
class Post:
    """Sends workloads through a real broker and reads what becomes of them."""

    broker: Broker
    settings: Settings
    sent: list[str] = field(default_factory=list)

    async def send(
        self,
        body: dict[str, Any],
        dispatch_id: str,
        queue: str = "default",
        band: int = 0,
        kind: Kind = Kind.TASK,
    ) -> None:
        workload = Workload(
            dispatch_id=dispatch_id, queue=queue, kind=kind, body=body, key=[dispatch_id],
            sender="test",
        )  # fmt: skip
        subject = self.settings.names.task(queue, dispatch_id, band)
        await self.broker.publish(subject, encode(workload), message_id=dispatch_id)

    async def report(self, dispatch_id: str, queue: str = "default") -> Report | None:
        names = self.settings.names
        found = await self.broker.last(names.results_stream, names.result(queue, dispatch_id))
        return decode(Report, found.body) if found else None

    async def reported(self, dispatch_id: str, *states: State, queue: str = "default") -> Report:
        """Wait until one of these states is the last one reported."""

        async def last() -> Report | None:
            report = await self.report(dispatch_id, queue)
            return report if report and report.state in states else None

        found: Report = await wait_until(last, 60, f"{dispatch_id} to be reported {states}")
        return found

    async def is_acked(self, dispatch_id: str, queue: str = "default") -> bool:
        names = self.settings.names
        return not await self.broker.last(names.tasks_stream, names.task(queue, dispatch_id))

    async def presence(self, name: str) -> Presence | None:
        """Return what a worker's records say."""
        names = self.settings.names
        records = await self.broker.scan(names.workers_stream, names.presences())
        return presence_in(records, name)

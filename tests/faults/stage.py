"""Real workers whose whole history is written down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from nats_executor.broker.connection import connect
from nats_executor.topology import setup
from nats_executor.wire.messages import Report, State, decode
from nats_worker.processes.linux import children_of
from tests.support.fixtures import settings_for
from tests.support.process_stage import QUICK, ProcessStage, is_alive
from tests.support.waiting import wait_until
from tests.support.worker_process import Post, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats_executor.broker.jetstream import JetStream
    from nats_executor.broker.link import Received
    from nats_executor.settings import Settings
    from tests.support.execution_api import ExecutionApi

__all__ = ["FaultStage", "TrappedWorker", "fork_server", "lasts", "open_stage", "parent_of"]

ROOT = Path(__file__).parents[2]
# A worker whose link was cut in silence finds out only when a ping stays without an answer.
COMEBACK_SECONDS = 120.0


async def lasts(seconds: float) -> None:
    """How long a fault lasts, where its length is what the test is about."""
    await asyncio.sleep(seconds)


class TrappedWorker(WorkerProcess):
    """A worker that `trapped_worker.py` starts."""

    @classmethod
    def launch(
        cls, directory: Path, settings: Settings, *args: str, name: str = "w1", **options: object
    ) -> Self:
        values = {"servers": ",".join(settings.servers), "subject_prefix": settings.subject_prefix}
        values |= {option: str(value) for option, value in options.items()}
        environment = {f"AIRFLOW__NATS_EXECUTOR__{k.upper()}": v for k, v in values.items()}
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        output = directory / f"{name}-{len(list(directory.iterdir()))}.log"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.faults.trapped_worker", "-H", name, *args],
                env=os.environ | environment | {"PYTHONPATH": path},
                cwd=directory,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, output, name)


@dataclass
class FaultStage(ProcessStage):
    """What `ProcessStage` offers, and who ran what, and what was said about it.

    Attributes:
        history: every report that the result stream took, in order, by dispatch id.
    """

    history: defaultdict[str, list[Report]] = field(default_factory=lambda: defaultdict(list))

    def launch_trapped(self, *args: str, name: str = "w1", **options: object) -> WorkerProcess:
        worker = TrappedWorker.launch(
            self.directory,
            self.settings,
            "--skip-serve-logs",
            *args,
            name=name,
            **(QUICK | options),
        )
        self.workers.append(worker)
        return worker

    async def follow(self) -> None:
        """Write the history, across everything that happens to the broker."""
        names = self.settings.names
        async for message in self.post.broker.follow(names.results_stream, after=0):
            self.history[names.place(message.subject).dispatch_id].append(
                decode(Report, message.body)
            )

    def states(self, dispatch_id: str) -> list[State]:
        return [report.state for report in self.history[dispatch_id]]

    def starts(self, dispatch_id: str) -> int:
        """How often the API server was asked to start it."""
        return len(self.api.bodies(dispatch_id, "run"))

    def final_states(self, dispatch_id: str) -> list[str]:
        """The states of a task that the API server was told."""
        return [body["state"] for body in self.api.bodies(dispatch_id, "state")]

    async def running(self, task: str = "sleep") -> str:
        """Send a task and return once it runs and is reported."""
        dispatch_id = await self.send(task)
        await self.post.reported(dispatch_id, State.RUNNING)
        await self.pid_of(dispatch_id)
        return dispatch_id

    async def running_on(self, worker: WorkerProcess, task: str = "sleep") -> str:
        """Send tasks until one of them runs on this worker; any of them may get each.

        What came to another one is ended: else a worker that comes back late finds the others full,
        and no worker has a slot left for what the test is about. Time bounds it and not a number of
        tasks: the others may run twenty before one whose link was cut has a connection again.
        """
        deadline = time.monotonic() + COMEBACK_SECONDS
        while time.monotonic() < deadline:
            dispatch_id = await self.running(task)
            report = await self.post.reported(dispatch_id, State.RUNNING)
            if report.worker_name == worker.name:
                return dispatch_id
            await self.end(dispatch_id)
        raise AssertionError(f"no task came to {worker.name} within {COMEBACK_SECONDS:g} s")

    async def is_running(self, dispatch_id: str) -> bool:
        """Whether its process lives and it was started only once."""
        return is_alive(await self.pid_of(dispatch_id)) and self.starts(dispatch_id) == 1

    async def end(self, dispatch_id: str) -> None:
        """Tell a task to end."""
        os.kill(await self.pid_of(dispatch_id), signal.SIGTERM)

    async def succeeded(self, dispatch_id: str) -> Report:
        """Wait until it has: started once, told Airflow so, never called a failure, and acked."""
        report = await self.post.reported(dispatch_id, State.SUCCESS, State.FAILED, State.DROPPED)
        assert report.state is State.SUCCESS, report
        assert self.starts(dispatch_id) == 1
        assert set(self.final_states(dispatch_id)) == {"success"}
        await wait_until(lambda: self.states(dispatch_id)[-1:] == [State.SUCCESS], 30, "the report")
        assert State.FAILED not in self.states(dispatch_id)
        await wait_until(lambda: self.post.is_acked(dispatch_id), 30, "the ack")
        return report

    async def carry_out(self, dispatch_id: str) -> Report:
        """End a task and see that all went well."""
        await self.end(dispatch_id)
        return await self.succeeded(dispatch_id)

    async def failed(self, dispatch_id: str) -> Report:
        """Wait until it was reported failed, which is the last word."""
        report = await self.post.reported(dispatch_id, State.FAILED)
        await wait_until(lambda: self.post.is_acked(dispatch_id), 30, "the ack")
        return report

    async def deliveries(self) -> int:
        """How many deliveries the broker has made of the default queue."""
        names = self.settings.names
        subject = f"$JS.API.CONSUMER.INFO.{names.tasks_stream}.{names.consumer('default')}"
        info = json.loads((await self.ask(subject)).data)
        return int(info["delivered"]["consumer_seq"])

    async def ask(self, subject: str) -> Received:
        """Ask the broker itself, for what the product does not want to know."""
        answer: Received = await cast("JetStream", self.post.broker)._link.ask(subject)
        return answer

    async def says_again(self, worker: WorkerProcess, text: str, times: int) -> None:
        """Wait until a worker has said something once more than so many times."""
        await wait_until(lambda: worker.text.count(text) > times, 200, f"another {text!r}")

    async def works(self, worker: WorkerProcess | None = None) -> None:
        """Run one more task from its beginning to its end, on a certain worker if need be."""
        dispatch_id = await (self.running_on(worker) if worker else self.running())
        await self.carry_out(dispatch_id)


def fork_server(worker: WorkerProcess) -> int:
    """The pid of a worker's fork server, 0 while there is none."""
    for pid in children_of(worker.pid):
        with contextlib.suppress(OSError):  # gone in this instant
            if b"nats_worker.processes.forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    return 0


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@contextlib.asynccontextmanager
async def open_stage(
    url: str, prefix: str, api: ExecutionApi, marks: Path, directory: Path, **options: object
) -> AsyncIterator[FaultStage]:
    """Create the streams on a server and watch it; ends every worker on the way out."""
    settings = settings_for(url, subject_prefix=prefix, **(QUICK | options))
    async with connect(settings, role="test") as broker:
        await broker.ready(5)
        await setup.apply(broker, settings, ["default"])
        stage = FaultStage(settings, Post(broker, settings), api, marks, directory)
        following = asyncio.create_task(stage.follow(), name="history")
        try:
            yield stage
        finally:
            stage.clear_away()
            while not following.done():  # nats-py may swallow a cancellation
                following.cancel()
                await asyncio.wait([following], timeout=0.1)

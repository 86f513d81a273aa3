"""Workers with running tasks, and API servers that ask for their logs."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.scheduler.executor import NatsExecutor
from tests.faults.stage import FaultStage, open_stage
from tests.support.execution_api import ExecutionApi
from tests.support.process_stage import make_home
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from nats_executor.wire.names import Names
    from tests.support.nats_server import NatsServer

__all__ = [
    "THREAD",
    "Answer",
    "ApiServer",
    "LogStage",
    "api_fixture",
    "api_server_fixture",
    "connections",
    "home_fixture",
    "marks_fixture",
    "read",
    "remarks",
    "shared_fixture",
    "stage_fixture",
    "stage_on",
]

Answer = tuple[list[str], list[str]]
THREAD = "nats-executor"


@pytest.fixture(name="api", scope="module")
def api_fixture() -> Iterator[ExecutionApi]:
    with ExecutionApi() as api:
        yield api


@pytest.fixture(name="marks", scope="module")
def marks_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(name="home", scope="module")
def home_fixture(
    tmp_path_factory: pytest.TempPathFactory, api: ExecutionApi, marks: Path
) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("airflow")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in make_home(home, api, marks).items():
            patch.setenv(name, value)
        yield home


class LogStage:
    """Workers, the log folder that they write to, and API servers that ask them."""

    def __init__(self, fault_stage: FaultStage, folder: Path, server: NatsServer) -> None:
        self.fault_stage = fault_stage
        self.folder = folder
        self.server = server

    def file(self, dispatch_id: str) -> Path:
        return self.folder / f"{dispatch_id}.log"

    async def talking(self) -> str:
        """Start a task that has said something."""
        dispatch_id = await self.fault_stage.running("talk")
        await wait_until(lambda: "the first words" in self.file(dispatch_id).read_text(), 30, "it")
        return dispatch_id


@asynccontextmanager
async def stage_on(
    server: NatsServer, prefix: str, home: Path, api: ExecutionApi, marks: Path, output: Path
) -> AsyncIterator[LogStage]:
    async with open_stage(server.url, prefix, api, marks, output) as fault_stage:
        yield LogStage(fault_stage, home / "logs", server)


@pytest.fixture(name="shared", scope="module")
async def shared_fixture(
    home: Path,
    api: ExecutionApi,
    marks: Path,
    nats_server: NatsServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[LogStage]:
    """One worker for all tests that leave it as it is: each one takes seconds to start."""
    output = tmp_path_factory.mktemp("output")
    async with stage_on(nats_server, "tasklogs", home, api, marks, output) as stage:
        await stage.fault_stage.start("-c", "16")
        yield stage


@pytest.fixture(name="stage")
async def stage_fixture(
    home: Path,
    api: ExecutionApi,
    marks: Path,
    private_nats_server: NatsServer,
    names: Names,
    tmp_path: Path,
) -> AsyncIterator[LogStage]:
    """Workers and a server of the test's own."""
    async with stage_on(private_nats_server, names.prefix, home, api, marks, tmp_path) as stage:
        yield stage


class ApiServer:
    """The executor as an API server has it: constructed, and never started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.executors: list[NatsExecutor] = []

    def __call__(self, url: str, prefix: str, **options: object) -> NatsExecutor:
        for name, value in {"servers": url, "subject_prefix": prefix, **options}.items():
            self.monkeypatch.setenv(f"AIRFLOW__NATS_EXECUTOR__{name.upper()}", str(value))
        executor = NatsExecutor()
        assert executor._settings.servers == (url,)  # read now, as the next one has others
        self.executors.append(executor)
        return executor

    def of(self, stage: LogStage, **options: object) -> NatsExecutor:
        return self(stage.server.url, stage.fault_stage.settings.subject_prefix, **options)


@pytest.fixture(name="api_server")
def api_server_fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    made = ApiServer(monkeypatch)
    yield made
    for executor in made.executors:
        executor.end()
    assert THREAD not in {thread.name for thread in threading.enumerate()}


async def read(executor: NatsExecutor, dispatch_id: str | None, queue: str = "default") -> Answer:
    """Ask as Airflow does, from one of its threads."""
    ti: Any = SimpleNamespace(external_executor_id=dispatch_id, queue=queue)
    return await asyncio.to_thread(executor.get_task_log, ti, 1)


def remarks(logs: list[str]) -> str:
    """What this project itself says in a log."""
    lines = "".join(logs).splitlines()
    events = [json.loads(line) for line in lines if '"logger": "nats_executor.logs"' in line]
    return "\n".join(event["event"] for event in events)


def connections(server: NatsServer) -> int:
    listed = server.monitor("/connz")["connections"]
    return sum(c.get("name", "").startswith("api server@") for c in listed)

"""An API server that may go away, a home for Airflow, and the stage of each test."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.faults.stage import FaultStage, open_stage
from tests.support.execution_api import ExecutionApi
from tests.support.process_stage import make_home

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from nats_executor.wire.names import Names
    from tests.support.nats_server import NatsServer
    from tests.support.worker_process import WorkerProcess


@pytest.fixture(scope="package")
def api() -> Iterator[ExecutionApi]:
    with ExecutionApi() as api:
        yield api


@pytest.fixture(scope="package")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tasks leave the pids that tests look for."""
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="package")
def home(
    tmp_path_factory: pytest.TempPathFactory, api: ExecutionApi, marks: Path
) -> Iterator[Path]:
    """The environment of Airflow; a task's supervisor looks after it every second."""
    home = tmp_path_factory.mktemp("airflow")
    environment = make_home(home, api, marks) | {
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "2",
        # Airflow 3.4 goes on for thirty of them.
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "3",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield home


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a test leaves the traps of `trapped_worker.py`."""
    folder = tmp_path / "traps"
    folder.mkdir()
    monkeypatch.setenv("TRAPS", str(folder))
    return folder


@pytest.fixture
async def stage(
    nats_server: NatsServer,
    names: Names,
    home: Path,  # noqa: ARG001 - its environment
    api: ExecutionApi,
    marks: Path,
    tmp_path: Path,
) -> AsyncIterator[FaultStage]:
    """A stage on the shared server, which a test must leave alive."""
    output = tmp_path / "output"
    output.mkdir()
    async with open_stage(nats_server.url, names.prefix, api, marks, output) as stage:
        yield stage


@dataclass
class Steady:
    """A worker that many tests share, because each one takes seconds to start."""

    stage: FaultStage
    worker: WorkerProcess


@pytest.fixture(scope="package")
async def steady(
    nats_server: NatsServer,
    home: Path,  # noqa: ARG001 - its environment
    api: ExecutionApi,
    marks: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Steady]:
    """It has to be there, and idle, after each test."""
    prefix = f"steady{secrets.token_hex(4)}"
    output = tmp_path_factory.mktemp("steady")
    async with open_stage(nats_server.url, prefix, api, marks, output) as stage:
        yield Steady(stage, await stage.start())

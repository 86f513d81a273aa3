"""One fork server for all tests, real tasks of a small Dag, a stub of the execution API."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from nats_worker.processes.pool import ProcessPool
from tests.support.execution_api import ExecutionApi
from tests.support.process_stage import callback_body, is_alive, make_home, task_body
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from nats_worker.processes.run import Run

__all__ = ["Stage", "callback_body", "connection_test_body", "is_alive", "task_body"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def api() -> Iterator[ExecutionApi]:
    with ExecutionApi() as api:
        yield api


@pytest.fixture(scope="session")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tasks of the Dag leave the pids that tests look for."""
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="session")
def airflow_home(
    tmp_path_factory: pytest.TempPathFactory, api: ExecutionApi, marks: Path
) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("airflow")
    environment = make_home(home, api, marks)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield home


@pytest.fixture(scope="session")
async def pool(airflow_home: Path) -> AsyncIterator[ProcessPool]:  # noqa: ARG001
    async with ProcessPool(delivery_seconds=30.0) as pool:
        await pool.ready()
        yield pool


@dataclass
class Stage:
    """Starts the tasks of the test Dag and knows their processes."""

    pool: ProcessPool
    api: ExecutionApi
    marks: Path

    def new_id(self) -> str:
        return str(uuid.uuid4())

    async def start(self, task: str, ti_id: str | None = None, **changes: Any) -> Run:
        return await self.pool.start(
            self.new_id(), task_body(task, ti_id or self.new_id()) | changes
        )

    async def finish(self, task: str = "succeed", ti_id: str | None = None) -> Run:
        run = await self.start(task, ti_id)
        await run.exited()
        return run

    async def start_sleeper(self, task: str = "sleep", ti_id: str | None = None) -> tuple[Run, int]:
        """Start a task that does not end by itself; return it with the pid that it wrote down."""
        ti_id = ti_id or self.new_id()
        run = await self.start(task, ti_id)
        mark = self.marks / ti_id
        text = await wait_until(
            lambda: mark.exists() and mark.read_text(), 30, f"task {task} to run"
        )
        return run, int(text)


@pytest.fixture
def stage(pool: ProcessPool, api: ExecutionApi, marks: Path) -> Stage:
    return Stage(pool, api, marks)


def connection_test_body(test_id: str) -> dict[str, Any]:
    """Airflow's `TestConnection` as JSON."""
    return {
        "type": "TestConnection",
        "token": "a.secret.token",
        "connection_test_id": test_id,
        "connection_id": "a",
        "timeout": 10,
    }

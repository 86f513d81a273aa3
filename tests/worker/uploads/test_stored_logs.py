"""Supervisors that keep task logs in NATS: with Airflow's real supervisor and a real server."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.configuration import conf

from nats_executor.broker.connection import connect
from nats_executor.logs import store
from nats_executor.topology import setup
from nats_worker.processes.exit_report import Ending
from nats_worker.processes.pool import ProcessPool
from tests.support.fixtures import settings_for
from tests.worker.conftest import Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats_executor.wire.names import Names
    from nats_worker.processes.run import Run
    from tests.support.nats_server import NatsServer

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

SETTINGS = {
    "LOGGING__LOGGING_CONFIG_CLASS": "nats_executor.logging_config.LOGGING_CONFIG",
    "LOGGING__REMOTE_LOGGING": "True",
    "LOGGING__REMOTE_BASE_LOG_FOLDER": "nats://",
}


class UploadStage:
    """A pool whose supervisors store logs, and what they have stored."""

    def __init__(self, stage: Stage, url: str, names: Names) -> None:
        self.stage = stage
        self.settings = settings_for(
            url, subject_prefix=names.prefix, remote_base_log_folder="nats://"
        )

    async def finish(self, ti_id: str) -> Run:
        run = await self.stage.start("succeed", ti_id)
        report = await run.exited()
        assert (report.ending, report.exit_code) == (Ending.FINISHED, 0)
        return run

    async def log(self, ti_id: str) -> bytes:
        names, path = self.settings.names, f"{ti_id}.log"
        async with connect(self.settings, role="test") as broker:
            await broker.ready(5)
            found = await store.find(broker, names, "default", path)
            bodies = [
                await store.chunks(broker, names, "default", path, part, part.numbers)
                for part in found.parts
            ]
        return b"".join(body or b"" for part in bodies for body in part)

    def file(self, ti_id: str) -> Path:
        return Path(conf.get_mandatory_value("logging", "base_log_folder"), f"{ti_id}.log")


@asynccontextmanager
async def open_upload_stage(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    names: Names,
    *,
    team: str | None = None,
    **settings: str,
) -> AsyncIterator[UploadStage]:
    ours = {"NATS_EXECUTOR__SERVERS": url, "NATS_EXECUTOR__SUBJECT_PREFIX": names.prefix}
    for name, value in (SETTINGS | ours | settings).items():
        monkeypatch.setenv(f"AIRFLOW__{name}", value)
    async with ProcessPool(team=team) as pool:
        yield UploadStage(Stage(pool, stage.api, stage.marks), url, names)


@pytest.fixture
async def upload_stage(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, nats_server: NatsServer, names: Names
) -> AsyncIterator[UploadStage]:
    async with open_upload_stage(stage, monkeypatch, nats_server.url, names) as upload_stage:
        async with connect(upload_stage.settings, role="test") as broker:
            await broker.ready(5)
            await setup.apply(broker, upload_stage.settings, [])
        yield upload_stage


async def test_a_log_is_stored_and_its_supervisor_takes_another_workload(
    upload_stage: UploadStage,
) -> None:
    """It would not with a thread left over."""
    ids = [upload_stage.stage.new_id() for _ in range(3)]

    runs = [await upload_stage.finish(ti_id) for ti_id in ids]

    assert len({run.supervisor_pid for run in runs}) == 1
    for ti_id in ids:
        stored = await upload_stage.log(ti_id)
        assert b"\n" in stored
        assert stored == await asyncio.to_thread(upload_stage.file(ti_id).read_bytes)


async def test_logs_of_a_teams_tasks_stay_where_they_are(
    upload_stage: UploadStage, monkeypatch: pytest.MonkeyPatch, names: Names
) -> None:
    monkeypatch.setenv(
        "AIRFLOW__ALPHA___CORE__EXECUTION_API_SERVER_URL", upload_stage.stage.api.url
    )
    url = upload_stage.settings.servers[0]
    ti_id = upload_stage.stage.new_id()

    async with open_upload_stage(
        upload_stage.stage, monkeypatch, url, names, team="alpha"
    ) as teams:
        await teams.finish(ti_id)

    assert await upload_stage.log(ti_id) == b""
    assert upload_stage.file(ti_id).exists()


async def test_a_task_ends_well_without_a_broker(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, names: Names
) -> None:
    """Its supervisor tries for ten seconds."""
    url = "nats://127.0.0.1:1"
    async with open_upload_stage(
        stage, monkeypatch, url, names, LOGGING__DELETE_LOCAL_LOGS="True"
    ) as upload_stage:
        ti_id = upload_stage.stage.new_id()

        await upload_stage.finish(ti_id)

    assert upload_stage.file(ti_id).exists()

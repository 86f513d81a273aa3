"""A real worker of the last release, with real tasks, beside this code's command line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from nats_executor.broker.connection import connect
from nats_executor.fleet.liveness import Liveness, PingResult
from nats_executor.logs.running import TaskLogs
from nats_executor.operations.orders import give_orders
from nats_executor.operations.survey import check_rows, take_survey, worker_rows
from nats_executor.retrying import end_task
from nats_executor.scheduler.dispatcher import Dispatcher
from nats_executor.scheduler.whereabouts import denied
from nats_executor.topology import setup
from nats_executor.wire.messages import FORMAT, Kind, State, Workload, encode
from nats_executor.wire.names import Verb
from nats_executor.wire.scheduler_answers import ProbeOrder
from tests.support.execution_api import ExecutionApi
from tests.support.fixtures import settings_for
from tests.support.process_stage import QUICK, ProcessStage, make_home, task_body
from tests.support.worker_process import Post, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from nats_executor.settings import Settings
    from nats_executor.wire.names import Names
    from tests.support.nats_server import NatsServer
    from tests.support.release import Release

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]

OLD, NEW = "older", "newer"


@pytest.fixture(scope="module")
def api() -> Iterator[ExecutionApi]:
    with ExecutionApi() as api:
        yield api


@pytest.fixture
async def upgrade_stage(
    nats_server: NatsServer,
    names: Names,
    api: ExecutionApi,
    tmp_path: Path,
    earlier_release: Release,
) -> AsyncIterator[ProcessStage]:
    """This code's streams, and one worker of the last release on them."""
    settings = settings_for(nats_server.url, subject_prefix=names.prefix, **QUICK)
    marks, home, output = (tmp_path / name for name in ("marks", "home", "output"))
    for folder in (marks, home, output):
        folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in make_home(home, api, marks).items():
            patch.setenv(name, value)
        async with connect(settings, role="test") as broker:
            await broker.ready(5)
            await setup.apply(broker, settings, ["default"])
            made = ProcessStage(settings, Post(broker, settings), api, marks, output)
            older = WorkerProcess.launch(
                output, settings, "--skip-serve-logs", name=OLD, release=earlier_release, **QUICK
            )
            made.workers.append(older)
            try:
                await older.said("is ready")
                assert f"nats_worker of {earlier_release.tree}" in older.text
                yield made
            finally:
                made.clear_away()


async def test_it_runs_what_this_code_sends_and_answers_or_is_told_that_it_cannot(
    upgrade_stage: ProcessStage, earlier_release: Release
) -> None:
    running = await upgrade_stage.send("sleep")
    await upgrade_stage.pid_of(running)
    report = await upgrade_stage.post.reported(running, State.RUNNING)
    assert report.worker_name == OLD

    # Its record, and questions.
    presence = await upgrade_stage.post.presence(OLD)
    assert presence
    assert presence.queues == ["default"]
    liveness = Liveness(upgrade_stage.post.broker, upgrade_stage.settings)
    answer, reply = await liveness.ask(presence.worker, f"{running} gone".encode())
    assert answer is PingResult.ALIVE
    assert denied(reply, presence.worker) <= {"gone"}  # nothing, if it does not know the question
    survey = await take_survey(upgrade_stage.post.broker, upgrade_stage.settings)
    (row,) = worker_rows(survey, upgrade_stage.settings)
    assert (row["worker"], row["state"]) == (OLD, "running")
    urgent = await send_urgently(upgrade_stage, presence.bands)
    await ask_for_log(upgrade_stage.settings, running)
    await give_order(upgrade_stage)

    # Taken back: the executor tells the worker, which stops it.
    subject = upgrade_stage.settings.names.control(presence.worker, Verb.STOP)
    await upgrade_stage.post.broker.request(subject, running.encode(), timeout=5.0)
    ended = await upgrade_stage.post.reported(running, State.FAILED, State.DROPPED, State.SUCCESS)
    assert ended.worker_name == OLD

    # From a release after this one.
    future, unreadable = await send_from_the_future(upgrade_stage)
    assert (await upgrade_stage.post.reported(future, State.SUCCESS)).worker_name == OLD
    refused = await upgrade_stage.post.reported(unreadable, State.FAILED)
    assert "format version" in refused.info

    # And beside a worker of this code, which the last release's command line reads as well.
    await upgrade_stage.start(name=NEW)
    await upgrade_stage.post.reported(urgent, State.SUCCESS)
    rows = await command(upgrade_stage, earlier_release, "workers", "list", "-o", "json")
    assert {row["worker"] for row in rows} == {OLD, NEW}


async def test_a_probe_makes_no_dead_letter_of_it(upgrade_stage: ProcessStage) -> None:
    """It knows no probes. The executor says so, and the queue goes on."""
    settings = replace(upgrade_stage.settings, priority_bands=())  # the older one knows one band
    dispatcher = Dispatcher(settings, "scheduler-1")
    living = asyncio.create_task(dispatcher.run())
    try:
        await asyncio.wait_for(dispatcher.prepared(), 30)
        result = await dispatcher.probe(ProbeOrder(queue="default", seconds=10.0))
        info = await upgrade_stage.post.broker.stream_info(settings.names.dead_letters_stream)
    finally:
        await end_task(living)

    assert "took it and knows no probes" in result.refusal
    assert OLD in result.refusal or "a worker took it" in result.refusal
    assert info
    assert info.messages == 0
    running = await upgrade_stage.send("succeed")
    await upgrade_stage.post.reported(running, State.SUCCESS)


async def send_urgently(upgrade_stage: ProcessStage, bands: int) -> str:
    """Send a workload in the highest band; `airflow nats check` tells if no worker serves that."""
    dispatch_id = str(uuid.uuid4())
    highest = upgrade_stage.settings.lanes("default")[0]
    body = task_body("succeed", dispatch_id)
    await upgrade_stage.post.send(body, dispatch_id, band=highest.band)
    if bands <= highest.band:
        rows = check_rows(
            await take_survey(upgrade_stage.post.broker, upgrade_stage.settings),
            upgrade_stage.settings,
        )
        statuses = {row["check"]: row["status"] for row in rows}
        assert statuses[f"queue default, priority band {highest.band}"] == "unserved"
    return dispatch_id


async def ask_for_log(settings: Settings, dispatch_id: str) -> None:
    """Either there is a log, or a remark that says why not; never an error."""
    logs = TaskLogs(lambda: settings)
    try:
        source, lines = await asyncio.to_thread(logs.read, dispatch_id, "default")
    finally:
        await asyncio.to_thread(logs.close)
    assert source or lines


async def give_order(upgrade_stage: ProcessStage) -> None:
    (answer,) = await give_orders(
        upgrade_stage.post.broker, upgrade_stage.settings, [OLD], Verb.SET_CONCURRENCY, "3"
    )
    assert answer.is_obeyed or "cannot change while it runs" in answer.text


async def send_from_the_future(upgrade_stage: ProcessStage) -> tuple[str, str]:
    """Send a workload with an unknown field, and one of a format that no release reads."""
    sent = []
    for changes in ({"mood": "fine"}, {"v": FORMAT + 1}):
        dispatch_id = str(uuid.uuid4())
        workload = Workload(
            dispatch_id=dispatch_id, queue="default", kind=Kind.TASK,
            body=task_body("succeed", dispatch_id), key=[dispatch_id], sender="test",
        )  # fmt: skip
        body = bytes(msgpack.packb(msgpack.unpackb(encode(workload)) | changes))
        await upgrade_stage.post.broker.publish(
            upgrade_stage.settings.names.task("default", dispatch_id), body
        )
        sent.append(dispatch_id)
    return sent[0], sent[1]


async def command(
    upgrade_stage: ProcessStage, release: Release, *words: str
) -> list[dict[str, Any]]:
    """Run `airflow nats ... -o json` of the last release."""
    values = {
        "SERVERS": ",".join(upgrade_stage.settings.servers),
        "SUBJECT_PREFIX": upgrade_stage.settings.subject_prefix,
    }
    environment = {f"AIRFLOW__NATS_EXECUTOR__{name}": value for name, value in values.items()}
    process = await asyncio.to_thread(
        subprocess.run,
        release.command("airflow", "nats", *words),
        env={**os.environ, **environment, **release.environment},
        capture_output=True,
        check=True,
    )
    rows: list[dict[str, Any]] = json.loads(process.stdout)
    return rows

"""A network that is cut between a worker and one of its two partners only."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from nats_executor.wire.messages import State
from tests.faults.stage import FaultStage, lasts, open_stage
from tests.support.cable import Cable
from tests.support.execution_api import Answer
from tests.support.nats_server import NatsServer
from tests.support.process_stage import QUICK, is_alive
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.execution_api import ExecutionApi
    from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.anyio, pytest.mark.integration, pytest.mark.chaos, pytest.mark.slow]

DEAF = "NATS does not answer; next: a new connection"
GIVEN_UP = "Too many failed heartbeats"
# Airflow's supervisor: SIGTERM, then SIGKILL after five seconds; and one heartbeat before.
ESCALATION_SECONDS = 5.0


@dataclass
class Sea:
    """A worker at the ends of two cables, and one that is connected directly."""

    stage: FaultStage
    near: WorkerProcess
    far: WorkerProcess
    to_nats: Cable
    to_api: Cable


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    try:
        yield server.start()
    finally:
        server.kill()


@pytest.fixture(scope="module")
async def sea(
    server: NatsServer,
    home: Path,  # noqa: ARG001 - its environment
    api: ExecutionApi,
    marks: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Sea]:
    with ExitStack() as exits:
        to_nats, to_api = (exits.enter_context(Cable(port)) for port in (server.port, api.port))
        prefix = f"sea{secrets.token_hex(4)}"
        output = tmp_path_factory.mktemp("sea")
        async with open_stage(server.url, prefix, api, marks, output) as stage:
            near = stage.launch("--skip-serve-logs", name="near")
            direct = stage.settings
            stage.settings = replace(direct, servers=(f"nats://127.0.0.1:{to_nats.port}",))
            with pytest.MonkeyPatch.context() as patch:
                url = f"http://127.0.0.1:{to_api.port}/execution/"
                patch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", url)
                far = stage.launch("--skip-serve-logs", name="far")
            stage.settings = direct
            for worker in (near, far):
                await worker.said("is ready")
            yield Sea(stage, near, far, to_nats, to_api)


async def test_a_worker_that_is_cut_off_from_the_broker_stops_its_lost_task(sea: Sea) -> None:
    """Reported lost by another one, told so by the API server, it kills the task and goes on."""
    stage = sea.stage
    lost = await stage.running_on(sea.far, "stubborn")
    kept = await stage.running_on(sea.near)
    pid = await stage.pid_of(lost)

    sea.to_nats.cut()
    try:
        report = await stage.failed(lost)
        assert (report.worker_name, report.info[:15]) == ("near", "worker far lost")
        assert is_alive(pid)  # only the API server can tell its worker
        # As it answers once the scheduler has handled the report.
        stage.api.script(lost, "heartbeat", Answer(409, {"reason": "not_running"}))
        limit = 1 + ESCALATION_SECONDS + 10  # the rest is for a busy machine
        await wait_until(lambda: not is_alive(pid), limit, "the loser's task to be gone")
    finally:
        sea.to_nats.mend()

    await stage.works(sea.far)
    assert await stage.is_running(kept)
    assert stage.starts(lost) == 1
    assert stage.states(lost)[-1] is State.FAILED
    assert State.SUCCESS not in stage.states(lost)
    assert stage.final_states(lost) == []
    await stage.carry_out(kept)


async def test_a_worker_that_is_cut_off_from_the_broker_for_a_moment(sea: Sea) -> None:
    """What it runs stays its own: it is back before the broker offers it to others."""
    stage = sea.stage
    task = await stage.running_on(sea.far)

    sea.to_nats.cut()
    try:
        await lasts(QUICK["ack_wait_seconds"] / 2)
        assert await stage.is_running(task)
    finally:
        sea.to_nats.mend()

    await stage.works(sea.far)
    assert await stage.is_running(task)
    await stage.carry_out(task)


async def test_a_connection_that_is_deaf_is_replaced(sea: Sea) -> None:
    """It stays open and nothing arrives any more: the worker gives it up for a new one."""
    stage = sea.stage
    task = await stage.running_on(sea.far)
    before = sea.far.text.count(DEAF)

    sea.to_nats.deafen()
    await stage.says_again(sea.far, DEAF, before)

    await stage.works(sea.far)
    assert stage.starts(task) == 1


async def test_a_worker_that_is_cut_off_from_the_api_server_delivers_later(sea: Sea) -> None:
    """A task that ends in the outage keeps its success; it is neither repeated nor failed."""
    stage = sea.stage
    task = await stage.running_on(sea.far)
    said = sea.far.text.count("cannot deliver a task's state")
    # The first request arrives late, its answer never: Airflow has the state when asked again.
    stage.api.script(task, "state", Answer(200), Answer(409, {"reason": "invalid_state"}))

    sea.to_api.cut()
    try:
        await stage.end(task)
        await stage.says_again(sea.far, "cannot deliver a task's state", said)
        assert State.SUCCESS not in stage.states(task)
    finally:
        sea.to_api.mend()

    await stage.succeeded(task)


async def test_a_task_without_an_api_server_runs_as_long_as_airflow_allows(sea: Sea) -> None:
    """Airflow ends it after its own number of heartbeats; the failure is delivered afterwards."""
    stage = sea.stage
    task = await stage.running_on(sea.far, "stubborn")
    pid = await stage.pid_of(task)
    said = sea.far.text.count(GIVEN_UP)  # for the task of the test before, in an outage of its own

    sea.to_api.cut()
    try:
        await stage.says_again(sea.far, GIVEN_UP, said)
        await wait_until(lambda: not is_alive(pid), ESCALATION_SECONDS + 15, "its end")
        assert State.FAILED not in stage.states(task)
    finally:
        sea.to_api.mend()

    assert "SIGKILL" in (await stage.failed(task)).info
    assert stage.final_states(task) == ["failed"]
    assert stage.starts(task) == 1
    await stage.works(sea.far)

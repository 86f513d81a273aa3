"""A worker in a network that lets nothing in, and out to NATS and the API server alone."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from nats_executor.wire.messages import State
from tests.faults.stage import FaultStage, open_stage
from tests.logs.log_stage import ApiServer, api_server_fixture, read
from tests.support.execution_api import ExecutionApi
from tests.support.far_network import FarNetwork, require_namespaces
from tests.support.nats_server import NatsServer, free_port
from tests.support.process_stage import make_home
from tests.support.waiting import wait_until
from tests.support.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

__all__ = ["api_server_fixture"]

pytestmark = [pytest.mark.anyio, pytest.mark.integration, pytest.mark.chaos]

DEAF = "NATS does not answer; next: a new connection"
PREFIX = "farnetwork"
LISTEN = (
    "import socket; kept = socket.create_server(('{host}', {port})); print(flush=True); input()"
)
REACH = "import socket; socket.create_connection(('{host}', {port}), 5)"


@pytest.fixture(scope="module")
def network() -> Iterator[FarNetwork]:
    require_namespaces()
    with FarNetwork() as network:
        yield network


@pytest.fixture(scope="module")
def server(network: FarNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.host = network.nats
    try:
        yield server.start()
    finally:
        server.kill()


@dataclass
class FarStage:
    """The far worker, and both sides around it."""

    network: FarNetwork
    stage: FaultStage
    worker: WorkerProcess
    folder: Path


@pytest.fixture(scope="module")
async def far(
    network: FarNetwork,
    server: NatsServer,
    marks: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[FarStage]:
    home, output = (tmp_path_factory.mktemp(name) for name in ("home", "output"))
    with pytest.MonkeyPatch.context() as patch, ExecutionApi(network.api) as api:
        for name, value in make_home(home, api, marks).items():
            patch.setenv(name, value)
        async with open_stage(server.url, PREFIX, api, marks, output) as stage:
            worker = WorkerProcess.launch(
                output, stage.settings, "--skip-serve-logs", name="far", prefix=network.prefix
            )
            stage.workers.append(worker)
            await worker.said("is ready")
            yield FarStage(network, stage, worker, home / "logs")


async def test_a_worker_that_nothing_can_connect_to(far: FarStage, api_server: ApiServer) -> None:
    """Its task runs to the end, and its log is read while it runs."""
    stage, network = far.stage, far.network
    task = await stage.running("talk")
    pid = await stage.pid_of(task)
    file = far.folder / f"{task}.log"
    await wait_until(lambda: "the first words" in file.read_text(), 30, "the first words")

    executor = api_server(stage.settings.servers[0], PREFIX)
    sources, logs = await read(executor, task)

    assert sources == [f"{file} on worker far, read over NATS"]
    assert "the first words" in "".join(logs)
    assert network.holds(far.worker.pid)
    assert network.holds(pid)
    assert network.listening(far.worker.pid) == []
    await stage.carry_out(task)
    assert network.peers(far.worker.pid) == {network.nats, network.api}
    assert network.listening(far.worker.pid) == []


def test_its_network_is_as_closed_as_it_claims(network: FarNetwork, server: NatsServer) -> None:
    """Else the test above would show nothing."""
    assert network.routes() == {network.nats, network.api}
    port = free_port()
    listen = [*network.prefix, sys.executable, "-c", LISTEN.format(host=network.far, port=port)]
    with subprocess.Popen(listen, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        listener.stdout.readline()
        assert network.listening(listener.pid) != []
        assert reach(network, network.far, port)
        assert not network.lets_in(port)
        listener.kill()

    assert reach(network, network.nats, server.port)
    assert not reach(network, "198.51.100.1", 80)
    assert not reach(network, socket.gethostbyname(socket.gethostname()), 80)


def reach(network: FarNetwork, host: str, port: int) -> bool:
    """Whether its processes can connect to an address."""
    command = [*network.prefix, sys.executable, "-c", REACH.format(host=host, port=port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "unreachable" in done.stderr or "refused" in done.stderr
    return done.returncode == 0


@pytest.mark.slow
async def test_a_link_that_is_down_and_up_again_loses_nothing(far: FarStage) -> None:
    """With the worker's default settings, by which it looks after its connection every 5 s."""
    stage = far.stage
    running, ended = [await stage.running() for _ in range(2)]
    said = far.worker.text.count(DEAF)

    far.network.disconnect()
    try:
        await stage.end(ended)
        await stage.says_again(far.worker, DEAF, said)
        queued = await stage.send("sleep")
        assert await stage.is_running(running)
        assert stage.final_states(ended) == []
    finally:
        far.network.connect()

    await stage.succeeded(ended)
    await stage.post.reported(queued, State.RUNNING)
    for task in (running, queued):
        assert await stage.is_running(task)
        await stage.carry_out(task)
        assert stage.states(task) == [State.CLAIMED, State.RUNNING, State.SUCCESS]

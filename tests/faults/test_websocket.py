"""Workers that speak WebSocket to NATS: with TLS, and through a reverse proxy."""

from __future__ import annotations

import asyncio
import secrets
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from nats_executor.operations.orders import give_orders
from nats_executor.wire.messages import State
from nats_executor.wire.names import Verb
from tests.faults.stage import FaultStage, open_stage
from tests.support.cable import Cable, Wire
from tests.support.certificates import Authority
from tests.support.nats_server import NatsServer, free_port
from tests.support.shipped import NATS, here
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.execution_api import ExecutionApi
    from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.anyio, pytest.mark.integration, pytest.mark.chaos]

SHIPPED = (NATS / "websocket.conf").read_text()
PATH = b"/nats"


class ReverseProxy(Cable):
    """Passes on what is asked for below one path, as if it had been asked for at the root."""

    async def carry(self, wire: Wire, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"GET " + PATH + b" HTTP/1.1\r\n"):
            wire.ends[0].write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            await wire.ends[0].drain()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        wire.ends.append(far_writer)
        far_writer.write(head.replace(PATH, b"/", 1))
        async with asyncio.TaskGroup() as group:
            group.create_task(self.pump(wire, reader, far_writer))
            group.create_task(self.pump(wire, far_reader, wire.ends[0]))


@dataclass
class WebSocketStage:
    """A server, and a worker that knows its WebSocket's address only."""

    server: NatsServer
    stage: FaultStage
    worker: WorkerProcess
    port: int  # of the server's WebSocket


@pytest.fixture(scope="module", params=["with TLS", "through a proxy"])
async def websocket_stage(
    request: pytest.FixtureRequest,
    home: Path,  # noqa: ARG001 - its environment
    api: ExecutionApi,
    marks: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[WebSocketStage]:
    pytest.importorskip("aiohttp", reason="the extra `websocket` is not installed")
    directory, port = tmp_path_factory.mktemp("web"), free_port()
    ca = Authority(directory)
    shown = ca.issue("server")
    config = here(
        SHIPPED,
        {
            "0.0.0.0:443": f"127.0.0.1:{port}",
            "/etc/nats/certs/server.pem": str(shown.certificate_file),
            "/etc/nats/certs/server.key": str(shown.key_file),
        },
    )
    options = {"servers": f"wss://127.0.0.1:{port}", "tls_ca_file": str(ca.ca_file)}
    with ExitStack() as exits:
        if request.param == "through a proxy":
            proxy = exits.enter_context(ReverseProxy(port))
            config = f"websocket {{ listen: 127.0.0.1:{port}, no_tls: true }}"
            options = {"servers": f"ws://127.0.0.1:{proxy.port}{PATH.decode()}"}
        server = NatsServer(directory / "nats", config=config)
        exits.callback(server.kill)
        server.start()
        output = directory / "output"
        output.mkdir()
        prefix = f"web{secrets.token_hex(4)}"
        async with open_stage(server.url, prefix, api, marks, output) as stage:
            yield WebSocketStage(server, stage, await stage.start("-c", "2", **options), port)


async def test_a_task_runs_to_its_end(websocket_stage: WebSocketStage) -> None:
    await websocket_stage.stage.works(websocket_stage.worker)

    [worker] = [
        c
        for c in websocket_stage.server.monitor("/connz")["connections"]
        if c["name"].startswith("worker ")
    ]
    assert worker["type"] == "websocket"


@pytest.mark.slow
async def test_a_server_that_is_restarted_loses_nothing(websocket_stage: WebSocketStage) -> None:
    stage = websocket_stage.stage
    running, ended = [await stage.running() for _ in range(2)]
    connected = websocket_stage.worker.text.count("connected to NATS")

    websocket_stage.server.end(signal.SIGKILL)
    await stage.end(ended)
    await wait_until(lambda: stage.final_states(ended), 30, "its state at the API server")
    await asyncio.to_thread(websocket_stage.server.start)
    await stage.post.broker.ready(20)

    await stage.says_again(websocket_stage.worker, "connected to NATS", connected)
    await stage.succeeded(ended)
    assert await stage.is_running(running)
    await stage.carry_out(running)
    assert State.FAILED not in stage.states(running)


async def test_it_is_changed_while_it_runs(websocket_stage: WebSocketStage) -> None:
    broker, settings = websocket_stage.stage.post.broker, websocket_stage.stage.settings

    [answer] = await give_orders(broker, settings, ["w1"], Verb.SET_CONCURRENCY, "5")

    assert answer.is_obeyed, answer
    presence = await websocket_stage.stage.post.presence("w1")
    assert presence is not None
    assert presence.concurrency == 5

"""Probes are told whether a worker is alive and ready, and why not, however they ask."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.broker import connection as broker_module
from nats_executor.broker.connection import connect
from nats_executor.broker.pulls import Pull
from nats_executor.errors import BrokerUnavailable, ConfigError
from nats_executor.topology import setup
from nats_executor.wire.messages import State
from nats_executor.wire.names import Lane
from nats_worker import worker as worker_module
from nats_worker.control.presence import Announcer
from nats_worker.health import health, probes
from nats_worker.intake.memory_guard import Guard
from nats_worker.processes.memory import MemoryReading
from nats_worker.state import Plan
from nats_worker.worker import Worker
from tests.support.cable import Cable
from tests.support.fake_broker import FakePulls
from tests.support.fake_pool import FakePool
from tests.support.fixtures import settings_for
from tests.support.nats_server import free_port
from tests.support.probing import Answer, ask, ask_now, samples
from tests.support.process_stage import QUICK, ProcessStage
from tests.support.waiting import block_until, wait_until
from tests.support.worker_process import Post
from tests.support.worker_stage import WorkerStage, worker_stage_fixture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from nats_executor.broker.port import Broker
    from nats_executor.settings import Settings
    from nats_executor.wire.names import Names
    from tests.support.execution_api import ExecutionApi
    from tests.support.nats_server import NatsServer

__all__ = ["worker_stage_fixture"]

pytestmark = pytest.mark.anyio


@pytest.fixture
def port(worker_stage: WorkerStage, monkeypatch: pytest.MonkeyPatch) -> int:
    """Have the workers of a test answer probes."""
    monkeypatch.setattr(health, "TICK_SECONDS", 0.01)
    chosen = free_port()
    worker_stage.settings = replace(
        worker_stage.settings, health_port=chosen, health_address="127.0.0.1"
    )
    worker_stage.pool.preloaded.set()
    return chosen


async def launch(worker_stage: WorkerStage, port: int) -> Worker:
    """Start a worker that may not come far, and return once it can be asked."""
    worker = worker_stage.launch()
    await wait_until(lambda: is_open(port), 5, "the port")
    return worker


async def becomes_ready(port: int) -> None:
    answers: list[Answer] = []

    async def is_ready() -> bool:
        answers.append(await ask(port, "/readyz"))
        return answers[-1][:2] == (200, "ready\n")

    try:
        await wait_until(is_ready, 60, "the worker to be ready")
    except TimeoutError:
        pytest.fail(f"never ready: {answers[-1]}")


async def says(port: int, reason: str) -> None:
    """Wait until a worker that lives is not ready for this reason."""
    answers: list[Answer] = []

    async def is_said() -> bool:
        answers.append(await ask(port, "/readyz"))
        status, text, headers = answers[-1]
        assert headers["Content-Type"] == "text/plain; charset=utf-8"
        return status == 503 and text.startswith(f"not ready: {reason}") and text.count("\n") == 1

    try:
        await wait_until(is_said, 60, reason)
    except TimeoutError:
        pytest.fail(f"not {reason!r}: {answers[-1]}")
    assert (await ask(port, "/livez"))[:2] == (200, "live\n")


# Ready, and everything that may be missing


async def test_a_worker_that_waits_for_work_is_ready(worker_stage: WorkerStage, port: int) -> None:
    await worker_stage.start(queues=("default", "heavy"))

    await becomes_ready(port)

    assert (await ask(port, "/livez"))[:2] == (200, "live\n")


async def test_without_its_fork_server_it_is_not_ready(
    worker_stage: WorkerStage, port: int
) -> None:
    """At the start, and when the fork server has died and the next one imports Airflow."""
    worker_stage.pool.preloaded.clear()
    await worker_stage.start()
    await says(port, "its fork server has not imported Airflow yet")

    worker_stage.pool.preloaded.set()
    await becomes_ready(port)

    worker_stage.pool.preloaded.clear()
    await says(port, "its fork server has not imported Airflow yet")


async def test_while_a_start_hangs_it_is_not_ready(
    worker_stage: WorkerStage, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await worker_stage.start()
    await becomes_ready(port)

    with monkeypatch.context() as patch:
        patch.setattr(worker.health.pool, "longest_start", lambda: health.HUNG_START_SECONDS + 1)
        await says(port, "a start hangs: no process has asked the API server for it in 31 s")
    await becomes_ready(port)


async def test_without_nats_it_is_not_ready(worker_stage: WorkerStage, port: int) -> None:
    worker_stage.server.stop()
    worker = await launch(worker_stage, port)
    await says(port, "no connection to NATS")
    worker_stage.server.start()
    await becomes_ready(port)

    worker_stage.server.stop()
    await says(port, "no connection to NATS")
    worker_stage.server.start()

    await becomes_ready(port)
    assert worker_stage.is_seen(worker)


async def test_without_its_name_it_is_not_ready(
    worker_stage: WorkerStage, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_name = Announcer.claim_name

    async def fail(_: Announcer) -> None:
        raise BrokerUnavailable("no streams yet")

    monkeypatch.setattr(Announcer, "claim_name", fail)
    monkeypatch.setattr(worker_module, "ENTER_RETRY_SECONDS", 0.01)
    await launch(worker_stage, port)
    await says(port, "NATS has not confirmed its name yet")

    monkeypatch.setattr(Announcer, "claim_name", claim_name)

    await becomes_ready(port)


async def test_while_it_drains_it_is_not_ready(worker_stage: WorkerStage, port: int) -> None:
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await becomes_ready(port)

    worker.ask_to_stop(signal.SIGTERM)
    await says(port, "it drains and stops then")

    async def is_counted_as_draining() -> bool:  # once its pulls are closed
        return (await samples(port))["airflow_nats_worker_draining", ()] == 1

    await wait_until(is_counted_as_draining, 30, "the metric")
    run.finish()
    await worker_stage.done()

    await asyncio.wait_for(asyncio.shield(worker_stage.lives[worker.state.id]), 10)
    with pytest.raises(ConnectionRefusedError):
        await ask(port, "/livez")


async def test_while_it_is_paused_it_is_not_ready(worker_stage: WorkerStage, port: int) -> None:
    used = 95.0
    worker_stage.settings = replace(worker_stage.settings, heartbeat_seconds=0.01)
    worker = worker_stage.launch()
    worker.state.guard = Guard(
        worker_stage.settings, lambda: MemoryReading(used_percent=used, where="the machine")
    )
    await wait_until(lambda: is_open(port), 5, "the port")
    await says(port, "paused: memory is 95.0% used (the machine), memory_high_percent is 90")
    assert (await samples(port))["airflow_nats_worker_paused", ()] == 1

    used = 10.0

    await becomes_ready(port)


async def test_a_full_worker_is_ready_though_it_asks_for_nothing(
    worker_stage: WorkerStage, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "QUIET_SECONDS", 0.3)
    began = time.monotonic()
    monkeypatch.setattr(FakePulls, "heard_at", property(lambda _: began))
    await worker_stage.start(concurrency=1)
    await says(port, "no answer to pulls of queue 'default' for ")
    worker_stage.send()
    run = await worker_stage.pool.run()

    await becomes_ready(port)
    assert (await samples(port))["airflow_nats_worker_pull_silence_seconds", ("default",)] == 0
    run.begin()
    run.finish()
    await worker_stage.done()

    # Free again: now it is owed an answer, after the time that one may take.
    await says(port, "no answer to pulls of queue 'default' for ")


async def test_while_its_loop_hangs_it_is_neither_live_nor_ready(
    worker_stage: WorkerStage, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "STALL_SECONDS", 0.5)
    await worker_stage.start()
    await becomes_ready(port)

    def ask_until_dead() -> tuple[Answer, Answer]:
        block_until(lambda: ask_now(port, "/livez").status == 503, 10, "the hang to be seen")
        return ask_now(port, "/livez"), ask_now(port, "/readyz")

    with ThreadPoolExecutor(1) as pool:
        live, ready = pool.submit(ask_until_dead).result()  # here is the hang

    assert (live.status, ready.status) == (503, 503)
    assert live.text.startswith("not live: its event loop has not moved for ")
    assert ready.text.startswith("not ready: its event loop has not moved for ")
    await becomes_ready(port)


# On a real server


@dataclass
class HealthStage:
    """A worker on a real server, whose processes are not the point."""

    settings: Settings
    broker: Broker
    pool: FakePool
    lives: list[asyncio.Task[None]]

    @property
    def port(self) -> int:
        return self.settings.health_port

    async def launch(self) -> None:
        plan = Plan(
            name="me", queues=("default", "gpu"), concurrency=2, team=None, cleanup_seconds=0.0,
            version="1",
        )  # fmt: skip
        worker = Worker(self.settings, plan)
        self.lives.append(asyncio.create_task(worker.run()))
        await wait_until(lambda: is_open(self.port), 5, "the port")

    async def is_connected(self) -> bool:
        return (await samples(self.port))["airflow_nats_worker_connected", ()] == 1


@pytest.fixture
def cable(nats_server: NatsServer) -> Iterator[Cable]:
    with Cable(nats_server.port) as cable:
        yield cable


@pytest.fixture
async def health_stage(
    nats_server: NatsServer, cable: Cable, names: Names, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[HealthStage]:
    # Longer than the two seconds between the server's heartbeats.
    monkeypatch.setattr(health, "QUIET_SECONDS", 4.0)
    pool = FakePool()
    pool.preloaded.set()
    monkeypatch.setattr(worker_module, "ProcessPool", lambda **_: pool.branch())
    monkeypatch.setattr(Worker, "listen_to_signals", lambda _: None)
    settings = settings_for(
        f"nats://127.0.0.1:{cable.port}",
        subject_prefix=names.prefix,
        health_port=free_port(),
        health_address="127.0.0.1",
        priority_bands="none",
    )
    direct = replace(settings, servers=(nats_server.url,))
    async with connect(direct, role="test") as broker:
        await broker.ready(5)
        await setup.apply(broker, settings, ["default", "gpu"])
        made = HealthStage(settings, broker, pool, [])
        yield made
        for life in made.lives:
            life.cancel()
        await asyncio.gather(*made.lives, return_exceptions=True)


@pytest.mark.integration
async def test_a_consumer_that_was_deleted_is_no_answer(health_stage: HealthStage) -> None:
    await health_stage.launch()
    await becomes_ready(health_stage.port)

    names = health_stage.settings.names
    place = f"{names.tasks_stream}.{names.consumer(*Lane('gpu'))}"
    await health_stage.broker.request(f"$JS.API.CONSUMER.DELETE.{place}", b"", timeout=5)

    await says(health_stage.port, "no answer to pulls of queue 'gpu' for ")
    assert await health_stage.is_connected()
    found = await samples(health_stage.port)
    silences = [found["airflow_nats_worker_pull_silence_seconds", (q,)] for q in ("default", "gpu")]
    assert silences[1] > max(4, silences[0])
    assert found["airflow_nats_worker_ready", ()] == 0
    await setup.apply(health_stage.broker, health_stage.settings, ["default", "gpu"])
    await becomes_ready(health_stage.port)


@pytest.mark.integration
async def test_pulls_that_are_lost_are_noticed(
    health_stage: HealthStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Pull.request
    lost: list[Any] = []

    async def lose(_: Pull, request: Any) -> None:
        lost.append(request)

    monkeypatch.setattr(Pull, "request", lose)
    await health_stage.launch()
    await says(health_stage.port, "no answer to pulls of queue 'default' yet")
    assert await health_stage.is_connected()
    await wait_until(lambda: lost, 5, "a pull")

    monkeypatch.setattr(Pull, "request", request)

    await becomes_ready(health_stage.port)


@pytest.mark.integration
async def test_a_connection_that_swallows_everything_is_noticed(
    health_stage: HealthStage, cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the connection itself is given up, which takes longer here."""
    monkeypatch.setattr(broker_module, "WATCH_SECONDS", 600.0)
    health_stage.settings = replace(health_stage.settings, worker_lost_seconds=6000.0)
    await health_stage.launch()
    await becomes_ready(health_stage.port)

    cable.cut()

    await says(health_stage.port, "no answer to pulls of queue 'default' for ")
    assert await health_stage.is_connected()
    cable.mend()
    await becomes_ready(health_stage.port)


# Whatever comes to the port


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/livez/../readyz", 404),
        ("POST", "/nowhere", 404),
        ("POST", "/livez", 405),
        ("HEAD", "/readyz", 405),
        ("DELETE", "/metrics", 405),
        ("GET", "/livez?verbose=1", 200),
    ],
)
async def test_there_is_nothing_else_to_get(
    worker_stage: WorkerStage, port: int, method: str, path: str, status: int
) -> None:
    await worker_stage.start()

    answer = await ask(port, path, method)

    assert answer.status == status
    assert (answer.headers.get("Allow") == "GET") == (status == 405)


async def test_garbage_and_slow_clients_end_and_do_no_harm(
    worker_stage: WorkerStage,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(probes, "REQUEST_SECONDS", 1.0)
    await worker_stage.start()
    with contextlib.ExitStack() as exits:

        def client(data: bytes = b"") -> socket.socket:
            connection = socket.create_connection(("127.0.0.1", port), 10)
            exits.enter_context(connection)
            connection.sendall(data)
            return connection

        clients = [client(b"\x16\x03\x01\x00garbage\r\n\r\n"), client(b"GET /" + b"x" * 70_000)]
        # More than there is room for: the oldest go, a probe gets through.
        clients += [client(b"GET /li") for _ in range(100)]
        assert (await ask(port, "/livez")).status == 200
        drips = client()

        def drip() -> None:
            """Send a byte now and then, so that no read takes long."""
            with contextlib.suppress(OSError):
                while True:
                    drips.sendall(b"x")
                    time.sleep(0.05)

        await asyncio.to_thread(drip)
        for connection in clients:
            await asyncio.to_thread(until_closed, connection)
    await wait_until(
        lambda: not [t for t in threading.enumerate() if "process_request" in t.name],
        10,
        "the threads to end",
    )

    await becomes_ready(port)
    assert capfd.readouterr().err == ""


async def test_one_connection_too_many_ends_the_oldest(
    worker_stage: WorkerStage, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "REQUEST_SECONDS", 60.0)
    monkeypatch.setattr(probes.Request, "timeout", 60.0)
    await worker_stage.start()
    with contextlib.ExitStack() as exits:
        clients = [
            exits.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            for _ in range(probes.MOST_CONNECTIONS + 1)
        ]

        assert await asyncio.to_thread(clients[0].recv, 1) == b""

        clients[1].setblocking(False)
        with pytest.raises(BlockingIOError):
            clients[1].recv(1)


def until_closed(connection: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):
        while connection.recv(4096):
            pass


async def test_a_defect_in_a_page_is_logged_and_answered(
    worker_stage: WorkerStage,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: object) -> str:
        raise RuntimeError("a defect")

    worker = await worker_stage.start()
    monkeypatch.setattr(health.Health, "missing", fail)

    assert (await ask(port, "/readyz")).status == 500
    assert (await ask(port, "/metrics")).status == 500
    assert (await ask(port, "/livez")).status == 200

    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert ["/readyz failed" in r.getMessage() for r in errors] == [True, False]
    assert not worker_stage.lives[worker.state.id].done()


# The port


async def test_without_a_port_there_is_nothing(worker_stage: WorkerStage) -> None:
    await worker_stage.start()
    worker_stage.send()
    (await worker_stage.pool.run()).finish()
    await worker_stage.done()

    assert not [thread for thread in threading.enumerate() if thread.name == "probes"]


def test_without_a_port_nothing_is_loaded() -> None:
    """A worker's main process is small."""
    code = (
        "import sys, nats_worker.main\n"
        "print({m.partition('.')[0] for m in sys.modules} & {'prometheus_client', 'wsgiref'})"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("address", "option", "remedy"),
    [
        ("127.0.0.1", "health_port", "something listens there already; choose a free port"),
        ("203.0.113.1", "health_address", "write an IP address that it has"),
    ],
)
async def test_a_port_that_cannot_be_had_ends_the_start(
    worker_stage: WorkerStage, port: int, address: str, option: str, remedy: str
) -> None:
    worker_stage.settings = replace(worker_stage.settings, health_address=address)
    with socket.create_server(("127.0.0.1", port)):
        worker = worker_stage.launch()
        with pytest.raises(ConfigError) as caught:
            await worker_stage.lives[worker.state.id]

    assert str(caught.value).startswith(f"[nats_executor] {option} = ")
    assert str(getattr(worker_stage.settings, option)) in str(caught.value)
    assert remedy in str(caught.value)
    assert worker_stage.pool.own == []


async def test_an_ipv6_address(worker_stage: WorkerStage, port: int) -> None:
    worker_stage.settings = replace(worker_stage.settings, health_address="::1")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    await worker_stage.start()

    answer = await asyncio.to_thread(ask_now, port, "/livez", "GET", "::1")

    assert answer.status == 200


# A whole worker, as operators start it


@pytest.mark.integration
async def test_a_real_worker_from_start_to_end(
    nats_server: NatsServer,
    names: Names,
    airflow_home: Path,  # noqa: ARG001 - its environment
    api: ExecutionApi,
    marks: Path,
    tmp_path: Path,
) -> None:
    port = free_port()
    options = QUICK | {"health_port": port, "health_address": "127.0.0.1"}
    settings = settings_for(nats_server.url, subject_prefix=names.prefix, **QUICK)
    async with connect(settings, role="test") as broker:
        await broker.ready(5)
        await setup.apply(broker, settings, ["default"])
        process_stage = ProcessStage(settings, Post(broker, settings), api, marks, tmp_path)
        try:
            worker = process_stage.launch("--skip-serve-logs", "-c", "3", **options)
            await wait_until(lambda: is_open(port), 60, "the port, before anything else")
            await becomes_ready(port)
            second = process_stage.launch("--skip-serve-logs", name="w2", **options)
            await process_stage.post.reported(await process_stage.send("succeed"), State.SUCCESS)
            running = await process_stage.send("sleep")
            task = await process_stage.pid_of(running)
            assert await second.ended() == 1
            errors = [line for line in second.text.splitlines() if "error:" in line]
            assert len(errors) == 1, second.text
            assert f"[nats_executor] health_port = {port}: something listens there" in errors[0]

            found = await samples(port)
            expected = {
                ("workloads_finished_total", ("default", "success")): 1,
                ("deliveries_total", ("default",)): 2,
                ("run_seconds_count", ("default",)): 1,
                ("pickup_seconds_count", ()): 2,
                ("slots", ()): 3,
                ("slots_in_use", ()): 1,
                ("workloads_running", ()): 1,
            }
            assert {
                (n, labels): found[f"airflow_nats_worker_{n}", labels] for n, labels in expected
            } == expected
            assert found["airflow_nats_worker_supervisors", ()] >= 1
            worker.tell(signal.SIGTERM)
            await says(port, "it drains and stops then")
            os.kill(task, signal.SIGTERM)
            assert await worker.ended() == 0
            assert "Traceback" not in worker.text
        finally:
            process_stage.clear_away()


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False

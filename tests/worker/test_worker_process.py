"""`nats-worker` as operators know it: real processes, real signals, a real nats-server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import uuid
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import requests

from nats_executor.broker.connection import connect
from nats_executor.topology import setup
from nats_executor.wire.messages import State
from nats_worker.processes.linux import children_of
from tests.support.fixtures import settings_for
from tests.support.nats_server import NatsServer, free_port
from tests.support.process_stage import QUICK, ProcessStage, is_alive, task_body
from tests.support.waiting import wait_until
from tests.support.worker_process import Post, WorkerProcess, descendants

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats_executor.wire.names import Names
    from tests.support.execution_api import ExecutionApi

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


def title(pid: int) -> str:
    """Return what a process list shows."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").strip()
    return ""


def log_servers(fork_server: int) -> set[int]:
    return {pid for pid in children_of(fork_server) if title(pid) == "airflow serve-logs"}


async def log_server_of(fork_server: int, port: int) -> int:
    """Ask for a log, and return the process that answers."""
    url = f"http://127.0.0.1:{port}/log/a"

    async def is_answered() -> bool:
        try:
            answer = await asyncio.to_thread(requests.get, url, timeout=30)
        except requests.ConnectionError:  # the port is not open yet
            return False
        return answer.status_code == 403

    await wait_until(is_answered, 60, "the log server")
    (found,) = log_servers(fork_server)
    return found


def maps(pid: int) -> str:
    """Return what a process has loaded."""
    return Path(f"/proc/{pid}/maps").read_text()


@pytest.fixture
async def process_stage(
    nats_server: NatsServer,
    names: Names,
    airflow_home: Path,  # noqa: ARG001 - its environment
    api: ExecutionApi,
    marks: Path,
    tmp_path: Path,
) -> AsyncIterator[ProcessStage]:
    settings = settings_for(nats_server.url, subject_prefix=names.prefix, **QUICK)
    async with connect(settings, role="test") as broker:
        await broker.ready(5)
        await setup.apply(broker, settings, ["default"])
        made = ProcessStage(settings, Post(broker, settings), api, marks, tmp_path)
        yield made
        made.clear_away()


# One worker that all of these share, because each one takes seconds to start


@dataclass
class EarlyStage:
    process_stage: ProcessStage
    worker: WorkerProcess
    log_port: int


@pytest.fixture(scope="module")
async def early_stage(
    airflow_home: Path,  # noqa: ARG001 - its environment
    api: ExecutionApi,
    marks: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[EarlyStage]:
    """A worker that was started before its broker; its end is checked as well."""
    directory = tmp_path_factory.mktemp("early")
    server = NatsServer(directory / "nats")
    settings = settings_for(server.url, subject_prefix="early", connect_timeout_seconds=0.5)
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT", str(port))
        patch.setenv("AIRFLOW__API__SECRET_KEY", "the signature of logs " * 3)
        (directory / "output").mkdir()
        worker = WorkerProcess.launch(
            directory / "output", settings, "--serve-logs", connect_timeout_seconds=0.5, **QUICK
        )
        try:
            await worker.said("next: trying again until it works")
            server.start()
            async with connect(settings, role="test") as broker:
                await broker.ready(10)
                await setup.apply(broker, replace(settings, ack_wait_seconds=2), ["default"])
                await worker.said("is ready")
                made = ProcessStage(
                    settings, Post(broker, settings), api, marks, directory / "output"
                )
                yield EarlyStage(made, worker, port)
                below = descendants(worker.pid)
                worker.tell(signal.SIGINT)
                assert await worker.ended() == 0, worker.text
                assert not any(map(is_alive, below))
                assert not is_open(port)
        finally:
            worker.clear_away()
            server.kill()


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


async def test_a_worker_waits_for_its_broker_and_says_so(early_stage: EarlyStage) -> None:
    text = early_stage.worker.text

    assert "cannot reach NATS at nats://127.0.0.1" in text
    assert "check [nats_executor] servers" in text
    assert "worker w1 is ready: queues default, 16 slots" in text


async def test_a_task_runs_and_its_log_is_served_to_whoever_may_read_it(
    early_stage: EarlyStage,
) -> None:
    process_stage = early_stage.process_stage
    task = await process_stage.send("succeed")
    report = await process_stage.post.reported(task, State.SUCCESS, State.FAILED)
    assert report.state is State.SUCCESS, report.info
    await wait_until(lambda: process_stage.post.is_acked(task), 5, "the ack")
    from airflow.utils.log.file_task_handler import _fetch_logs_from_service

    url = f"http://127.0.0.1:{early_stage.log_port}/log/{task}.log"
    await wait_until(lambda: is_open(early_stage.log_port), 30, "the log server")
    answer = await asyncio.to_thread(_fetch_logs_from_service, url, f"{task}.log")
    stranger = await asyncio.to_thread(requests.get, url, timeout=5)

    assert answer.status_code == 200
    assert f'"ti_id":"{task}"' in answer.text
    assert stranger.status_code == 403


async def test_a_second_worker_of_the_same_name_does_not_start(early_stage: EarlyStage) -> None:
    second = early_stage.process_stage.launch("--serve-logs")

    assert await second.ended() == 1
    errors = [line for line in second.text.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "a worker named 'w1' runs already on" in errors[0]
    assert "another name with --hostname" in errors[0]
    # It shares the host's log server, which is not its own to end.
    assert "is taken" in second.text
    assert is_open(early_stage.log_port)
    assert "Traceback" not in second.text


# Stopping


async def test_a_drain(process_stage: ProcessStage) -> None:
    """A task that runs, or may have been accepted, has its time; no signal but ours hits it."""
    worker = await process_stage.start("-c", "2")
    running = await process_stage.send("sleep")
    task = await process_stage.pid_of(running)
    waiting = str(uuid.uuid4())
    process_stage.api.hold(waiting, "run")
    await process_stage.post.send(task_body("succeed", waiting), waiting)
    await wait_until(lambda: process_stage.api.bodies(waiting, "run"), 30, "/run to be asked")

    # As Ctrl-C in a terminal, or a supervisor of services that signals whole groups.
    os.killpg(worker.pid, signal.SIGTERM)
    await worker.said("draining: ")
    process_stage.api.let_go()
    await process_stage.post.reported(waiting, State.SUCCESS)
    presence = await process_stage.post.presence("w1")
    assert presence
    assert presence.draining
    assert is_alive(task)
    os.kill(task, signal.SIGTERM)

    assert await worker.ended() == 0
    assert (await process_stage.post.reported(running, State.SUCCESS)).info == ""
    assert await process_stage.post.is_acked(running)
    assert await process_stage.post.is_acked(waiting)
    assert await process_stage.post.presence("w1") is None


async def test_an_impatient_drain(process_stage: ProcessStage) -> None:
    worker = await process_stage.start("-c", "2")
    gentle, stubborn = await process_stage.send("sleep"), await process_stage.send("stubborn")
    pids = [await process_stage.pid_of(task) for task in (gentle, stubborn)]
    below = descendants(worker.pid)
    worker.tell(signal.SIGINT)
    await worker.said("SIGINT: stop request 1")
    assert all(map(is_alive, pids))

    worker.tell(signal.SIGTERM)
    await process_stage.post.reported(gentle, State.SUCCESS)
    assert is_alive(pids[1])
    worker.tell(signal.SIGINT)

    report = await process_stage.post.reported(stubborn, State.FAILED)
    assert "SIGKILL" in report.info
    assert await worker.ended() == 0
    assert not any(map(is_alive, below))
    assert [body["state"] for body in process_stage.api.bodies(stubborn, "state")] == ["failed"]


async def test_a_worker_that_is_killed(
    process_stage: ProcessStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it lives on, its log server included, and another one reports its task."""
    workers, ports = [], {name: free_port() for name in ("w1", "w2")}
    for name, port in ports.items():
        monkeypatch.setenv("AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT", str(port))
        workers.append(process_stage.launch("--serve-logs", name=name))
    for worker in workers:
        await worker.said("is ready")
    lost = await process_stage.send("parent")
    child = await process_stage.pid_of(lost)
    report = await process_stage.post.reported(lost, State.RUNNING)
    victim = next(worker for worker in workers if worker.name == report.worker_name)
    below = descendants(victim.pid)
    assert {child, report.pid} <= below
    (fork_server,) = children_of(victim.pid)
    await log_server_of(fork_server, ports[victim.name])

    victim.tell(signal.SIGKILL)

    await wait_until(lambda: not any(map(is_alive, below)), 15, f"the end of {below}")
    report = await process_stage.post.reported(lost, State.FAILED)
    assert f"worker {victim.name} lost" in report.info
    assert report.worker_name != victim.name
    await wait_until(lambda: process_stage.post.is_acked(lost), 5, "the ack")


async def serving_logs(
    process_stage: ProcessStage, monkeypatch: pytest.MonkeyPatch
) -> tuple[WorkerProcess, int, int]:
    """Start a worker; return it with its fork server and the port that logs are asked for on."""
    port = free_port()
    monkeypatch.setenv("AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT", str(port))
    worker = process_stage.launch("--serve-logs")
    await worker.said("is ready")
    (fork_server,) = children_of(worker.pid)
    return worker, fork_server, port


async def test_a_log_server_starts_when_it_is_asked_and_again_after_its_end(
    process_stage: ProcessStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is forked from the fork server, which shares its memory, and dies with it."""
    worker, fork_server, port = await serving_logs(process_stage, monkeypatch)
    assert not log_servers(fork_server)
    first = await log_server_of(fork_server, port)

    os.kill(first, signal.SIGKILL)

    await worker.said("the log server has ended; next: another when a log is asked for")
    assert not log_servers(fork_server)
    second = await log_server_of(fork_server, port)

    os.kill(fork_server, signal.SIGKILL)

    await wait_until(lambda: not is_alive(second), 15, "its end")
    await wait_until(lambda: children_of(worker.pid) - {fork_server}, 15, "the next fork server")
    (fork_server,) = children_of(worker.pid)
    await log_server_of(fork_server, port)
    worker.tell(signal.SIGTERM)
    assert await worker.ended() == 0
    assert not is_open(port)


async def test_whoever_waits_for_a_dead_log_server_is_hung_up_on(
    process_stage: ProcessStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left waiting, it would start another server, which may end for the same reason, and so on."""
    _, fork_server, port = await serving_logs(process_stage, monkeypatch)
    server = await log_server_of(fork_server, port)
    os.kill(server, signal.SIGSTOP)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as reader:
        os.kill(server, signal.SIGKILL)

        assert await asyncio.to_thread(reader.recv, 1) == b""
    assert not log_servers(fork_server)


async def test_a_supervisor_does_not_hold_the_port_of_the_logs(
    process_stage: ProcessStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that a task leaves behind might keep it from the worker that comes next."""
    _, fork_server, port = await serving_logs(process_stage, monkeypatch)
    running = await process_stage.send("sleep")
    await process_stage.pid_of(running)
    supervisors = children_of(fork_server)

    assert supervisors
    assert holders({fork_server}, port) == {fork_server}
    assert not holders(descendants(fork_server) - {fork_server}, port)


def holders(pids: set[int], port: int) -> set[int]:
    """Return the processes that have a port open to listen on."""
    return {
        pid
        for pid in pids
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }


async def test_the_main_process_imports_nothing_of_airflow(process_stage: ProcessStage) -> None:
    worker = await process_stage.start()

    assert title(worker.pid) == "airflow nats worker w1"
    mapped = maps(worker.pid)
    assert "msgpack" in mapped
    assert not any(library in mapped for library in ("pydantic_core", "sqlalchemy", "lxml"))


async def test_modules_are_preloaded_as_far_as_they_may_be(process_stage: ProcessStage) -> None:
    """None of them stops the worker, and each has its line."""
    modules = "no_such_module,xmlrpc.server"
    worker = await process_stage.start(preload_modules=modules)

    option = "[nats_executor] preload_modules:"
    await worker.said(f"{option} no_such_module is not preloaded: ModuleNotFoundError: ")
    await worker.said(f"{option} xmlrpc.server is preloaded: ")
    ti_id = await process_stage.send("succeed")
    await process_stage.post.reported(ti_id, State.SUCCESS)


async def test_a_daemon(process_stage: ProcessStage) -> None:
    """Its paths, relative ones as well, are those of the directory that it is started in."""
    names = {f"--{name}": f"worker.{name}" for name in ("pid", "log-file", "stdout", "stderr")}
    launcher = process_stage.launch("--skip-serve-logs", "--daemon", *chain(*names.items()))
    pid_file, log, *_ = files = [process_stage.directory / name for name in names.values()]
    pid = int(await wait_until(lambda: pid_file.exists() and pid_file.read_text(), 60, "its pid"))
    process_stage.daemons.append(pid)
    await wait_until(lambda: log.exists() and "is ready" in log.read_text(), 60, "the daemon")
    below = descendants(pid)
    (fork_server,) = children_of(pid)

    assert await launcher.ended() == 0
    assert os.getsid(pid) != launcher.pid
    assert all(file.exists() for file in files)
    assert psutil.Process(fork_server).cwd() == str(process_stage.directory)
    os.kill(pid, signal.SIGTERM)
    await wait_until(lambda: not any(map(is_alive, {pid, *below})), 30, "its end")
    assert not pid_file.exists()
    assert await process_stage.post.presence("w1") is None

"""Logs that cannot be had: workers and brokers that are gone, hang, refuse or lie."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.access.permissions import Role, permissions
from nats_executor.broker import connection as broker_connection
from nats_executor.logs import connection, running
from nats_executor.logs.running import PIECE_BYTES, SHOWN_BYTES
from nats_executor.scheduler.executor import NatsExecutor
from nats_executor.topology import setup
from nats_executor.wire.log_pages import Page, Question, encode_log_message
from nats_executor.wire.messages import Presence, decode
from nats_executor.wire.messages import encode as encode_message
from nats_executor.wire.names import Verb
from tests.faults.stage import open_stage
from tests.logs.log_stage import (
    Answer,
    ApiServer,
    LogStage,
    api_fixture,
    api_server_fixture,
    home_fixture,
    marks_fixture,
    read,
    remarks,
    stage_fixture,
    stage_on,
)
from tests.support.fake_broker import FakeBroker, FakeServer
from tests.support.nats_server import free_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from nats_executor.wire.names import Names
    from tests.support.execution_api import ExecutionApi
    from tests.support.fixtures import MakeNatsServer

__all__ = ["api_fixture", "api_server_fixture", "home_fixture", "marks_fixture", "stage_fixture"]

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

# Far above the budget, as the machine may be busy; without a budget it would be minutes.
PATIENCE_SECONDS = 30.0


async def in_time(executor: NatsExecutor, dispatch_id: str) -> Answer:
    began = time.monotonic()
    answer = await read(executor, dispatch_id)
    assert time.monotonic() - began < PATIENCE_SECONDS
    return answer


async def test_a_worker_that_is_killed_and_one_that_hangs(
    stage: LogStage, api_server: ApiServer
) -> None:
    worker = await stage.fault_stage.start()
    dispatch_id = await stage.talking()
    executor = api_server.of(stage)
    await read(executor, dispatch_id)
    worker.tell(signal.SIGSTOP)

    sources, logs = await in_time(executor, dispatch_id)
    assert "no answer from w1" in sources[0]
    assert remarks(logs) == sources[0]

    worker.tell(signal.SIGCONT)
    await wait_until(lambda: has_words(executor, dispatch_id), 30, "it to answer again")
    worker.clear_away()

    sources, logs = await in_time(executor, dispatch_id)
    assert "no answer from w1" in sources[0]
    assert remarks(logs) == sources[0]


async def test_a_worker_that_is_killed_while_its_log_is_shown(
    stage: LogStage, api_server: ApiServer
) -> None:
    """What is not shown yet is not read yet: neither in memory nor asked for."""
    worker = await stage.fault_stage.start()
    dispatch_id = await stage.talking()
    with stage.file(dispatch_id).open("a") as file:
        file.writelines(f'{{"event": "{number:0100}"}}\n' for number in range(SHOWN_BYTES // 150))
    ti: Any = SimpleNamespace(external_executor_id=dispatch_id, queue="default")
    executor = api_server.of(stage)
    sources, [text] = await asyncio.to_thread(executor.get_streaming_task_log, ti, 1)
    first = await asyncio.to_thread(next, text)

    worker.clear_away()
    lines = await asyncio.to_thread(list, text)

    assert sources == [f"{stage.file(dispatch_id)} on worker w1, read over NATS"]
    whole = stage.file(dispatch_id).read_text().splitlines()
    assert [first, *lines[:-1]] == whole[: len(lines)]
    assert PIECE_BYTES - 2000 < len("\n".join([first, *lines[:-1]])) <= PIECE_BYTES
    assert "worker w1 cannot show the rest of this log now" in lines[-1]


async def has_words(executor: NatsExecutor, dispatch_id: str) -> bool:
    return "the first words" in "".join((await read(executor, dispatch_id))[1])


async def test_a_broker_that_goes_and_comes_back(stage: LogStage, api_server: ApiServer) -> None:
    await stage.fault_stage.start()
    dispatch_id = await stage.talking()
    executor = api_server.of(stage)
    assert await has_words(executor, dispatch_id)
    stage.server.kill()

    sources, logs = await in_time(executor, dispatch_id)
    assert sources == []  # so Airflow asks the log server, if there is one
    assert "NATS could not be asked for this log" in remarks(logs)

    stage.server.start()
    await wait_until(lambda: has_words(executor, dispatch_id), 60, "the log")


async def test_a_broker_that_hangs(stage: LogStage, api_server: ApiServer) -> None:
    await stage.fault_stage.start()
    dispatch_id = await stage.talking()
    executor = api_server.of(stage)
    assert await has_words(executor, dispatch_id)
    stage.server.pause()
    try:
        sources, logs = await in_time(executor, dispatch_id)
    finally:
        stage.server.resume()
    assert sources == [] or "no answer from w1" in sources[0]
    assert remarks(logs)


async def test_no_broker_at_all(api_server: ApiServer) -> None:
    executor = api_server(f"nats://127.0.0.1:{free_port()}", "nowhere")
    for _ in range(2):
        sources, logs = await in_time(executor, "d1")
        assert sources == []
        assert "NATS could not be asked for this log" in remarks(logs)
        assert "no answer within" not in remarks(logs)  # it gives up before, and says why


async def test_settings_that_cannot_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__NATS_EXECUTOR__ACK_WAIT_SECONDS", "never")
    sources, logs = await read(NatsExecutor(), "d1")
    assert sources == []
    assert "ack_wait_seconds" in remarks(logs)


# Workers that answer strangely

Said = Callable[[Question], Page]


async def with_worker(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch, server: FakeServer, say: Said
) -> Answer:
    """Read a log from a worker that answers what a test wants."""
    monkeypatch.setattr(broker_connection, "connect", server.connect)
    executor = api_server("nats://127.0.0.1:1", "strange")
    settings, worker = executor._settings, server.broker()
    await setup.apply(worker, settings, [])
    presence = Presence(
        worker="w1.1", name="w1", host="h", pid=1, queues=["default"], concurrency=1, running=1,
        draining=False, started_at=0.0, at=0.0, version="1",
    )  # fmt: skip
    server.put(settings.names.presence("default", "w1"), encode_message(presence))

    async def answer(body: bytes) -> bytes:
        return encode_log_message(say(decode(Question, body)))

    await worker.serve(settings.names.control("w1.1", Verb.LOG), answer)
    return await read(executor, "d1")


def talking(_: Question) -> Page:
    return Page(runs=True, path="/a", size=6, data=b"words\n")


async def test_a_connection_that_is_lost_meanwhile(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = FakeServer()

    def say(_: Question) -> Page:
        server.stop()
        raise AssertionError("nobody hears it")

    sources, logs = await with_worker(api_server, monkeypatch, server, say)

    assert sources == []
    assert "NATS could not be asked for this log" in remarks(logs)


async def test_a_page_waits_for_the_next_connection(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a moment; without it Airflow asks a port of the worker's host that nothing hears."""
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 60.0)
    monkeypatch.setattr(running, "BUDGET_SECONDS", 90.0)
    limits: list[float] = []
    ready = FakeBroker.ready

    async def noted(broker: FakeBroker, timeout: float) -> None:
        limits.append(timeout)
        await ready(broker, timeout)

    server = FakeServer()
    await with_worker(api_server, monkeypatch, server, talking)
    [executor] = api_server.executors
    server.stop()
    monkeypatch.setattr(FakeBroker, "ready", noted)

    asked = asyncio.create_task(read(executor, "d1"))
    await wait_until(lambda: limits, 60, "the page to find no connection")
    server.start()

    sources, logs = await asked
    assert (sources, logs) == (["/a on worker w1, read over NATS"], ["words\n"])
    assert caplog.records == []
    assert limits[0] > 1.0


async def test_a_question_whose_connection_is_lost_is_asked_again(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = FakeServer()
    asked: list[Question] = []

    def say(question: Question) -> Page:
        asked.append(question)
        if len(asked) == 1:
            server.stop()
            asyncio.get_running_loop().call_soon(server.start)
            raise AssertionError("nobody hears it")
        return talking(question)

    sources, logs = await with_worker(api_server, monkeypatch, server, say)

    assert len(asked) == 3
    assert (sources, logs) == (["/a on worker w1, read over NATS"], ["words\n"])


async def test_an_outage_is_one_line_of_the_api_server(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.05)
    server = FakeServer()
    await with_worker(api_server, monkeypatch, server, talking)
    [executor] = api_server.executors
    for _ in range(2):
        server.stop()
        for _ in range(3):
            await read(executor, "d1")
        server.start()
        assert (await read(executor, "d1"))[0]

    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in said] == ["no task log over NATS"] * 2


async def test_a_worker_that_refuses_in_the_middle(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(question: Question) -> Page:
        refusal = "its disk does not answer" if question.offset else ""
        return Page(runs=True, path="/a", size=2**20, data=b"x" * question.limit, refusal=refusal)

    sources, logs = await with_worker(api_server, monkeypatch, FakeServer(), say)

    assert sources == ["/a on worker w1, read over NATS"]
    assert logs == [logs[0]]
    assert "cannot show the rest of this log now: its disk does not answer" in remarks(logs)


async def test_a_worker_that_claims_and_sends_too_much(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(question: Question) -> Page:
        data = b"x\n" * question.limit
        return Page(runs=True, path="/a", size=2**53, data=data)

    _, logs = await with_worker(api_server, monkeypatch, FakeServer(), say)

    assert 0 < len(logs[1]) <= SHOWN_BYTES


# Small and guarded servers


async def test_a_server_of_small_messages(
    make_nats_server: MakeNatsServer, home: Path, api: ExecutionApi, marks: Path,
    names: Names, tmp_path: Path, api_server: ApiServer,
) -> None:  # fmt: skip
    server = make_nats_server(config="max_payload: 65536")
    async with stage_on(server, names.prefix, home, api, marks, tmp_path) as stage:
        await stage.fault_stage.start()
        dispatch_id = await stage.talking()
        with stage.file(dispatch_id).open("a") as file:
            file.write('{"event": "much"}\n' * 20_000)

        sources, logs = await read(api_server.of(stage), dispatch_id)

        assert sources
        assert "".join(logs) == stage.file(dispatch_id).read_text()


def guarded(names: Names) -> str:
    """A configuration with the user of an API server, one that may less, and one that may all."""

    def user(name: str, granted: tuple[str, ...]) -> str:
        return (
            f"{{ user: {name}, password: p, permissions: {{ publish: {json.dumps(granted)},"
            f' subscribe: "_INBOX_{name}.>" }} }}'
        )

    least = permissions(Role.API_SERVER, names, "_INBOX_shows").publish
    return (
        "authorization { users: [ { user: all, password: p }, "
        f"{user('shows', least)}, {user('nobody', ('nothing',))},"
        f"{user('looks', least[1:])} ] }}"
    )


async def test_the_permissions_of_an_api_server_suffice_and_are_needed(
    make_nats_server: MakeNatsServer, home: Path, api: ExecutionApi, marks: Path,
    names: Names, tmp_path: Path, api_server: ApiServer,
) -> None:  # fmt: skip
    server = make_nats_server(config=guarded(names))
    as_all = server.url.replace("//", "//all:p@")
    async with open_stage(as_all, names.prefix, api, marks, tmp_path) as fault_stage:
        stage = LogStage(fault_stage, home / "logs", server)
        await fault_stage.start()
        dispatch_id = await stage.talking()

        _, logs = await read(api_server.of(stage, user="shows", password="p"), dispatch_id)
        assert "the first words" in "".join(logs)

        for name, subject in (("nobody", "DIRECT.GET"), ("looks", ".log")):
            denied = api_server.of(stage, user=name, password="p")
            sources, logs = await read(denied, dispatch_id)
            assert sources == []
            assert "NATS does not allow user" in remarks(logs)
            assert subject in remarks(logs)

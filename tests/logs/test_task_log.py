"""The log of a running task, as the API server gets it: over NATS, from a real worker process."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.utils.log import file_task_handler
from airflow.utils.log.file_task_handler import FileTaskHandler
from airflow.utils.state import TaskInstanceState

from nats_executor.fleet.workers import seen_workers
from nats_executor.logs.remarks import LINE_BYTES
from nats_executor.logs.running import SHOWN_BYTES, STEP_BYTES, whole_lines
from nats_executor.operations.orders import give_orders
from nats_executor.scheduler.compat import AIRFLOW_V_3_4_PLUS
from nats_executor.wire.log_parts import beginning
from nats_executor.wire.names import Order, Verb
from tests.logs.log_stage import (
    THREAD,
    ApiServer,
    LogStage,
    api_fixture,
    api_server_fixture,
    connections,
    home_fixture,
    marks_fixture,
    read,
    remarks,
    shared_fixture,
)
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["api_fixture", "api_server_fixture", "home_fixture", "marks_fixture", "shared_fixture"]

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


# A task that runs


async def test_a_running_task(shared: LogStage, api_server: ApiServer) -> None:
    dispatch_id = await shared.talking()

    sources, logs = await read(api_server.of(shared), dispatch_id)

    assert sources == [f"{shared.file(dispatch_id)} on worker w1, read over NATS"]
    assert "the first words" in "".join(logs)
    assert not remarks(logs)
    await shared.fault_stage.carry_out(dispatch_id)


async def test_what_is_added_is_there_at_the_next_look(
    shared: LogStage, api_server: ApiServer
) -> None:
    dispatch_id = await shared.talking()
    executor = api_server.of(shared)
    _, before = await read(executor, dispatch_id)
    with shared.file(dispatch_id).open("a") as file:
        file.write('{"event": "a whole line"}\n{"event": "half a li')

    _, after = await read(executor, dispatch_id)

    assert "".join(after).startswith("".join(before))
    assert "".join(after).endswith('{"event": "a whole line"}\n')
    await shared.fault_stage.carry_out(dispatch_id)


async def test_airflow_shows_it_and_does_not_ask_the_log_server(
    shared: LogStage, api_server: ApiServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing here is served on a port; a look at one would cost the page its time-out.

    Airflow 3.4 reads it as a stream, and asks for whole texts where that is not to be had.
    """
    dispatch_id = await shared.talking()
    executor = api_server.of(shared)
    if AIRFLOW_V_3_4_PLUS:
        monkeypatch.setattr(executor, "get_task_log", None)
    monkeypatch.setattr(FileTaskHandler, "executor_instances", {"_default_executor": executor})
    monkeypatch.setattr(FileTaskHandler, "_render_filename", lambda *_: "not/here.log")
    asked: list[object] = []
    monkeypatch.setattr(file_task_handler, "_fetch_logs_from_service", lambda *a: asked.append(a))
    ti: Any = SimpleNamespace(
        external_executor_id=dispatch_id, queue="default", executor=None, try_number=1,
        state=TaskInstanceState.RUNNING, hostname="192.0.2.1", triggerer_job=None,
    )  # fmt: skip

    def look() -> str:
        stream, metadata = FileTaskHandler(str(tmp_path)).read(ti, 1)
        assert metadata["end_of_log"] is False
        return "\n".join(message.event for message in stream)

    text = await asyncio.to_thread(look)

    assert "the first words" in text
    assert "on worker w1, read over NATS" in text
    assert not asked
    await shared.fault_stage.carry_out(dispatch_id)


async def test_a_long_log_is_shown_from_its_last_part(
    shared: LogStage, api_server: ApiServer
) -> None:
    dispatch_id = await shared.talking()
    line = json.dumps({"event": "x" * 1000, "ü": "ü"}, ensure_ascii=False) + "\n"
    with shared.file(dispatch_id).open("a") as file:
        file.write(line * 9000)
    size = shared.file(dispatch_id).stat().st_size

    sources, logs = await read(api_server.of(shared), dispatch_id)

    assert sources
    left_out, text = logs
    start = beginning(size, most=SHOWN_BYTES, step=STEP_BYTES)
    assert remarks([left_out]).startswith(f"the first {start} bytes are left out here")
    assert str(shared.file(dispatch_id)) in left_out
    assert SHOWN_BYTES / 2 - 2000 < len(text.encode()) <= SHOWN_BYTES
    assert set(text.splitlines(keepends=True)) == {line}
    await shared.fault_stage.carry_out(dispatch_id)


@pytest.mark.parametrize(
    ("size", "start"),
    [
        (0, 0),
        (SHOWN_BYTES, 0),
        (SHOWN_BYTES + 1, STEP_BYTES),
        (SHOWN_BYTES + STEP_BYTES, STEP_BYTES),
        (SHOWN_BYTES + STEP_BYTES + 1, 2 * STEP_BYTES),
    ],
)
def test_where_a_long_log_begins(size: int, start: int) -> None:
    assert beginning(size, most=SHOWN_BYTES, step=STEP_BYTES) == start
    assert size - start <= SHOWN_BYTES


@pytest.mark.parametrize(
    ("pieces", "is_beginning", "lines"),
    [
        ([], True, []),
        ([b""], True, []),
        ([b"a\nb\n"], True, [b"a", b"b"]),
        ([b"a\nb"], True, [b"a"]),
        ([b"a\nb\nc"], False, [b"b"]),
        ([b"a\nb"], False, []),
        ([b"no end in sight"], True, [b"no end in sight"]),
        ([b"no end", b" in", b"", b" sight"], True, [b"no end in sight"]),
        ([b"a\nb", b"c\n", b"d\n"], True, [b"a", b"bc", b"d"]),
        ([b"a", b"b\nc", b"\nd"], False, [b"c"]),
        ([b"x" * LINE_BYTES, b"y\n"], True, [b"x" * LINE_BYTES, b"y"]),
    ],
)
def test_halves_of_lines(pieces: list[bytes], is_beginning: bool, lines: list[bytes]) -> None:
    assert list(whole_lines(pieces, is_beginning=is_beginning)) == lines


async def test_a_worker_that_serves_its_queue_no_more(
    shared: LogStage, api_server: ApiServer
) -> None:
    """It keeps a record there while it lives, as its task may run on."""
    dispatch_id = await shared.talking()
    await tell(shared, (Verb.ADD_QUEUE, "another"), (Verb.REMOVE_QUEUE, "default"))
    try:
        _, logs = await read(api_server.of(shared), dispatch_id)
        assert "the first words" in "".join(logs)
    finally:
        await tell(shared, (Verb.ADD_QUEUE, "default"), (Verb.REMOVE_QUEUE, "another"))
    await shared.fault_stage.carry_out(dispatch_id)


async def tell(stage: LogStage, *orders: tuple[Order, str]) -> None:
    post, settings = stage.fault_stage.post, stage.fault_stage.settings
    (worker,) = await seen_workers(post.broker, settings)
    for order, queue in orders:
        (answer,) = await give_orders(post.broker, settings, [worker.presence.name], order, queue)
        assert answer.is_obeyed, answer


async def test_workers_of_another_queue_are_not_asked(
    shared: LogStage, api_server: ApiServer
) -> None:
    """A user that may write their records could show a log of its own making."""
    dispatch_id = await shared.talking()
    _, logs = await read(api_server.of(shared), dispatch_id, queue="unserved")
    assert "no worker says that it runs this task" in "".join(logs)
    await shared.fault_stage.carry_out(dispatch_id)


async def test_many_readers_at_once_share_one_connection(
    shared: LogStage, api_server: ApiServer
) -> None:
    dispatch_ids = [await shared.talking() for _ in range(2)]
    executor = api_server.of(shared)

    answers = await asyncio.gather(*(read(executor, d) for d in dispatch_ids * 8))

    assert all("the first words" in "".join(logs) for _, logs in answers)
    for (sources, _), dispatch_id in zip(answers, dispatch_ids * 8, strict=True):
        assert dispatch_id in sources[0]
    assert [t.name for t in threading.enumerate()].count(THREAD) == 1
    assert connections(shared.server) == 1
    for dispatch_id in dispatch_ids:
        await shared.fault_stage.carry_out(dispatch_id)


async def test_a_connection_is_there_from_the_first_question_to_the_end(
    shared: LogStage, api_server: ApiServer
) -> None:
    executor = api_server.of(shared)
    assert await read(executor, None) == ([], [])
    assert connections(shared.server) == 0
    await read(executor, "unknown")
    assert connections(shared.server) == 1
    executor.end()
    await wait_until(lambda: connections(shared.server) == 0, 10, "the connection to end")


async def test_a_forked_process_has_a_connection_of_its_own(
    shared: LogStage, api_server: ApiServer
) -> None:
    dispatch_id = await shared.talking()
    executor = api_server.of(shared)
    await read(executor, dispatch_id)
    ti: Any = SimpleNamespace(external_executor_id=dispatch_id, queue="default")

    child = os.fork()
    if not child:
        is_right = False
        try:
            _, logs = executor.get_task_log(ti, 1)
            is_right = "the first words" in "".join(logs) and connections(shared.server) == 2
        finally:
            os._exit(not is_right)
    status = await asyncio.to_thread(os.waitpid, child, 0)

    assert os.waitstatus_to_exitcode(status[1]) == 0
    _, logs = await read(executor, dispatch_id)
    assert "the first words" in "".join(logs)
    await shared.fault_stage.carry_out(dispatch_id)


# What no worker runs


async def test_a_task_that_nobody_runs(shared: LogStage, api_server: ApiServer) -> None:
    sources, logs = await read(api_server.of(shared), "unknown")
    assert sources == ["no worker says that it runs this task: it has ended, or its worker is gone"]
    assert remarks(logs) == sources[0]


async def test_a_log_that_a_task_has_replaced_by_a_link(
    shared: LogStage, api_server: ApiServer, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a password")
    dispatch_id = await shared.talking()
    file = shared.file(dispatch_id)
    file.rename(file.with_suffix(".moved"))
    file.symlink_to(secret)

    sources, logs = await read(api_server.of(shared), dispatch_id)

    assert sources
    assert "a symbolic link is in its path" in remarks(logs)
    assert "a password" not in "".join(logs)
    await shared.fault_stage.carry_out(dispatch_id)

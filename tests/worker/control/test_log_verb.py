"""A worker answers a question for a log with pages of what runs, and of nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_executor.errors import DecodeError
from nats_executor.logs.files import Refused
from nats_executor.wire.log_pages import PAGE_BYTES, Page, Question, encode_log_message
from nats_executor.wire.messages import FORMAT, State, decode
from nats_executor.wire.names import Verb
from nats_worker.control import logs
from nats_worker.control.logs import READERS, LogReader, read_page
from tests.support.worker_stage import WorkerStage, task, worker_stage_fixture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nats_executor.wire.messages import Workload
    from nats_worker.delivery.errand import Errand

__all__ = ["worker_stage_fixture"]

pytestmark = pytest.mark.anyio

EVERYTHING = 2**40
PATH = "dag_id=a/run_id=b/task_id=c/attempt=1.log"


@dataclass
class Carried:
    """As much of an errand and its record as the reader looks at."""

    dispatch_id: str
    workload: Workload | None
    run: object | None = "a process"

    @property
    def record(self) -> Carried:
        return self


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A log folder with a secret beside it."""
    (tmp_path / "secret").write_text("a password")
    made = tmp_path / "logs"
    (made / PATH).parent.mkdir(parents=True)
    (made / PATH).write_bytes(b"one\ntwo\n")
    return made


def reader(folder: Path, *errands: Carried) -> LogReader:
    return LogReader(str(folder), cast("tuple[Errand, ...]", errands))


def carried(dispatch_id: str = "d1", log_path: object = PATH) -> Carried:
    return Carried(dispatch_id, replace(task(dispatch_id), body={"log_path": log_path}))


async def ask(
    reader: LogReader, dispatch_id: str = "d1", offset: int = 0, limit: int = EVERYTHING
) -> Page:
    question = Question(dispatch_id=dispatch_id, offset=offset, limit=limit)
    return decode(Page, await reader.answer(encode_log_message(question)))


def refused(folder: Path, relative: str) -> str:
    with pytest.raises(Refused) as caught:
        read_page(str(folder), relative, 0, 100)
    return str(caught.value)


# Files


def test_pages_together_are_the_file(folder: Path) -> None:
    text = os.urandom(1000)
    (folder / PATH).write_bytes(text)

    pages = [read_page(str(folder), PATH, offset, 300) for offset in range(0, 1200, 300)]

    assert [size for size, _ in pages] == [1000] * 4
    assert b"".join(data for _, data in pages) == text


def test_a_file_that_grows(folder: Path) -> None:
    assert read_page(str(folder), PATH, 0, 100) == (8, b"one\ntwo\n")
    with (folder / PATH).open("ab") as file:
        file.write(b"three\n")
    assert read_page(str(folder), PATH, 8, 100) == (14, b"three\n")


def test_a_huge_file_is_read_no_further_than_a_page(folder: Path) -> None:
    with (folder / PATH).open("wb") as file:
        file.truncate(2**40)

    size, data = read_page(str(folder), PATH, 2**39, EVERYTHING)

    assert (size, len(data)) == (2**40, PAGE_BYTES)


def test_beyond_the_end_there_is_nothing(folder: Path) -> None:
    assert read_page(str(folder), PATH, 2**53, 100) == (8, b"")


def test_a_file_that_is_not_there(folder: Path) -> None:
    assert refused(folder, "nowhere/at/all.log") == "there is no log file yet"


@pytest.mark.parametrize(
    "path", ["../secret", "a/../../secret", "dag_id=a/../../secret", "..", "/etc/passwd", "", "."]
)
def test_a_path_that_leads_out_of_the_folder(folder: Path, path: str) -> None:
    assert "is not below the log folder" in refused(folder, path)


@pytest.mark.parametrize("path", ["a\0b", "\ud800.log"])
def test_text_that_is_no_path(folder: Path, path: str) -> None:
    assert "is no path" in refused(folder, path)


def test_a_name_that_is_too_long(folder: Path) -> None:
    assert "cannot be read" in refused(folder, "x" * 5000)


def test_a_link_in_the_place_of_the_log(folder: Path) -> None:
    (folder / "link.log").symlink_to(folder.parent / "secret")
    assert "symbolic link" in refused(folder, "link.log")


def test_a_link_in_the_midst_of_the_path(folder: Path) -> None:
    (folder / "dag_id=x").symlink_to(folder.parent)
    assert "symbolic link" in refused(folder, "dag_id=x/secret")


def test_the_log_folder_itself_may_be_a_link(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert read_page(str(link), PATH, 0, 3) == (8, b"one")


def test_a_directory(folder: Path) -> None:
    assert "no regular file" in refused(folder, "dag_id=a")


def test_a_pipe_without_a_writer(folder: Path) -> None:
    os.mkfifo(folder / "pipe.log")
    assert "no regular file" in refused(folder, "pipe.log")


def test_no_file_stays_open(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted while it is open
    for path in (PATH, "dag_id=a", "nowhere/x.log", "dag_id=a/nowhere/x.log"):
        with contextlib.suppress(Refused):
            read_page(str(folder), path, 0, 1)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


# Questions


async def test_the_log_of_what_runs(folder: Path) -> None:
    page = await ask(reader(folder, carried("d0"), carried("d1")))
    assert page == Page(runs=True, path=str(folder / PATH), size=8, data=b"one\ntwo\n")


async def test_who_runs_it_and_how_much_there_is(folder: Path) -> None:
    page = await ask(reader(folder, carried()), limit=0)
    assert (page.runs, page.size, page.data, page.refusal) == (True, 8, b"", "")


async def test_what_does_not_run_here(folder: Path) -> None:
    page = await ask(reader(folder, carried("d2")), "d1")
    assert page == Page(refusal="it does not run here")


async def test_what_is_here_and_has_no_process(folder: Path) -> None:
    """As a redelivery of what another worker runs."""
    waiting = carried()
    waiting.run = None
    assert not (await ask(reader(folder, waiting))).runs
    assert (await ask(reader(folder, waiting, carried()))).runs


async def test_a_log_path_that_is_no_file_below_the_folder(folder: Path) -> None:
    page = await ask(reader(folder, carried(log_path="../secret")))
    assert (page.runs, page.data) == (True, b"")
    assert "not below" in page.refusal


@pytest.mark.parametrize("log_path", [None, 7, ["a"], b"a"])
async def test_a_workload_without_a_log(folder: Path, log_path: object) -> None:
    page = await ask(reader(folder, carried(log_path=log_path)))
    assert page == Page(runs=True, refusal="it has no log file")


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"dispatch_id": 7},
        {"dispatch_id": "d1", "offset": -1},
        {"dispatch_id": "d1", "limit": "all"},
        {"dispatch_id": "d1", "limit": 2**60},
        {"dispatch_id": "d1", "v": FORMAT + 1},
        {"dispatch_id": "d1", "path": "../secret", "v": "x"},
    ],
)
async def test_a_bad_question(folder: Path, question: dict[str, Any]) -> None:
    body = msgpack.packb({"v": FORMAT, **question})
    page = decode(Page, await reader(folder, carried()).answer(body))
    assert page.refusal
    assert not page.data


async def test_a_path_in_a_question_means_nothing(folder: Path) -> None:
    body = msgpack.packb(
        {"v": FORMAT, "dispatch_id": "d1", "limit": 100, "path": "../secret", "log_path": "x"}
    )
    assert decode(Page, await reader(folder, carried()).answer(body)).data == b"one\ntwo\n"


@given(body=st.binary(max_size=200))
async def test_any_bytes_are_answered(body: bytes) -> None:
    page = decode(Page, await LogReader("/nowhere", ()).answer(body))
    assert page.refusal
    assert not page.runs


@given(body=st.binary(max_size=200))
def test_any_answer_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(DecodeError):
        decode(Page, body)


# Slow disks


class Disk:
    """Reads when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_well = threading.Event()
        self.reads = 0
        real: Callable[..., tuple[int, bytes]] = read_page

        def slow(*arguments: Any) -> tuple[int, bytes]:
            self.reads += 1
            assert self.is_well.wait(60)
            return real(*arguments)

        monkeypatch.setattr(logs, "read_page", slow)


async def test_a_disk_that_hangs_holds_up_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    monkeypatch.setattr(logs, "READ_SECONDS", 0.1)
    asked = reader(folder, carried())
    try:
        pages = await asyncio.gather(*(ask(asked) for _ in range(READERS + 3)))
        assert {page.refusal for page in pages} == {"its disk does not answer"}
        assert disk.reads == READERS
    finally:
        disk.is_well.set()

    monkeypatch.setattr(logs, "READ_SECONDS", 60)
    assert (await ask(asked)).data == b"one\ntwo\n"


# A worker


async def test_a_worker_answers_while_it_runs_it(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()

    async def look() -> Page:
        subject = worker_stage.names.control(worker.state.id, Verb.LOG)
        question = encode_log_message(Question(dispatch_id="d1", limit=100))
        return decode(Page, await worker_stage.broker.request(subject, question, timeout=5))

    assert not (await look()).runs
    worker_stage.send(task("d1", body={"log_path": "a.log", "token": "t"}))
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)
    assert (await look()).runs
    run.finish()
    await worker_stage.done()
    assert not (await look()).runs

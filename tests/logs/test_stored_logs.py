"""Airflow's remote log on both brokers: what a supervisor stores, and what the API server shows."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import pkgutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow._shared.logging.remote import RemoteLogStreamIO
from airflow.utils.log.file_task_handler import _interleave_logs

from nats_executor.broker import connection as broker_module
from nats_executor.errors import ConfigError
from nats_executor.logs import connection, ended
from nats_executor.logs.ended import StoredLogs, of_team, require_bare
from nats_executor.provider import get_provider_info
from nats_executor.topology import setup
from nats_executor.wire.log_parts import CHUNK_BYTES, part_id
from tests.support.fake_broker import FakeServer
from tests.support.fixtures import settings_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nats_executor.broker.port import Broker
    from nats_executor.wire.names import Names

PATH = "dag_id=a/run_id=r/task_id=t/attempt=1.log"
TI: Any = SimpleNamespace(queue="default")
OURS = {
    "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "nats_executor.logging_config.LOGGING_CONFIG",
    "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
}


def line(number: int, text: str = "line") -> str:
    at = f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}.000000Z"
    return json.dumps({"timestamp": at, "event": f"{text} {number}"})


def text_of(numbers: range, text: str = "line") -> str:
    return "".join(f"{line(number, text)}\n" for number in numbers)


LONG = text_of(range(6000))
assert len(LONG) > 2 * CHUNK_BYTES
READERS = 16


class Desk:
    """One `StoredLogs` for both sides, its folder, and its broker."""

    def __init__(self, folder: Path, url: str, names: Names, server: FakeServer | None) -> None:
        self.folder = folder
        self.server = server
        self.settings = settings_for(
            url, subject_prefix=names.prefix, remote_base_log_folder="nats://"
        )
        self.logs = self.open()

    def open(self, *, deletes: bool = False) -> StoredLogs:
        logs = StoredLogs(self.folder, deletes=deletes)
        vars(logs)["_settings"] = self.settings  # as if Airflow's configuration said so
        return logs

    def write(self, text: str, path: str = PATH) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def store(self, text: str, path: str = PATH) -> None:
        self.write(text, path)
        self.logs.upload(path, TI)

    def shown(self, path: str = PATH) -> list[str]:
        """What people see, put together as Airflow does."""
        parts: Any = self.logs.stream(path, TI)[1]
        return [str(message.event) for message in _interleave_logs(*parts)]

    def ask(self, question: Callable[[Broker], Any]) -> Any:
        async def talk() -> Any:
            async with broker_module.connect(self.settings, role="test") as broker:
                await broker.ready(5)
                return await question(broker)

        return asyncio.run(talk())


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
def desk(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Desk]:
    if request.param == "fake":
        server = FakeServer()
        monkeypatch.setattr(broker_module, "connect", server.connect)
        desk = Desk(tmp_path, "nats://127.0.0.1:1", names, server)
    else:
        desk = Desk(tmp_path, request.getfixturevalue("nats_server").url, names, None)
    desk.ask(lambda broker: setup.apply(broker, desk.settings, []))
    yield desk
    desk.logs._connections.close()


@pytest.fixture
def away(tmp_path: Path, names: Names, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """No server listens there."""
    monkeypatch.setattr(ended, "UPLOAD_SECONDS", 0.3)
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.3)
    desk = Desk(tmp_path, "nats://127.0.0.1:1", names, None)
    yield desk
    desk.logs._connections.close()


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


# What is stored is shown


def test_a_log_is_shown_whole(desk: Desk) -> None:
    desk.store(LONG)

    sources, parts = desk.logs.stream(PATH, TI)
    assert ["\n".join(part) + "\n" for part in parts] == [LONG]
    bucket = desk.settings.names.logs_bucket
    part = f"part {part_id(LONG.encode())}, {len(LONG)} bytes"
    assert sources == [f"{PATH} in NATS bucket {bucket}: {part}"]
    assert desk.shown() == [f"line {number}" for number in range(6000)]
    assert desk.logs.read(PATH, TI) == (sources, [LONG.removesuffix("\n")])


def test_the_halves_of_a_deferred_task_are_shown_in_order(desk: Desk) -> None:
    desk.store(text_of(range(3), "on one"))
    desk.store(text_of(range(3, 6), "on another"))

    assert desk.shown() == [
        *(f"on one {number}" for number in range(3)),
        *(f"on another {number}" for number in range(3, 6)),
    ]


def test_on_the_same_worker_the_log_that_goes_on_takes_its_place(desk: Desk) -> None:
    desk.store(text_of(range(3)))
    desk.store(text_of(range(6)))

    assert desk.shown() == [f"line {number}" for number in range(6)]


def test_the_log_of_a_trigger_is_shown_with_its_tasks(desk: Desk) -> None:
    desk.store(text_of(range(1), "task"))
    desk.store(text_of(range(1, 2), "trigger"), f"{PATH}.trigger.7.log")

    assert desk.shown() == ["task 0", "trigger 1"]


def test_many_ask_at_once(desk: Desk) -> None:
    """Each reads what is stored; only putting it together as Airflow does would take seconds."""
    desk.store(LONG)
    start = threading.Barrier(READERS)

    def read(_: int) -> list[str]:
        start.wait()
        return ["\n".join(part) + "\n" for part in desk.logs.stream(PATH, TI)[1]]

    with ThreadPoolExecutor(READERS) as readers:
        found = list(readers.map(read, range(2 * READERS)))

    assert found == [[LONG]] * 2 * READERS


def test_nothing_is_said_of_a_log_that_is_not_there(desk: Desk) -> None:
    """Most that are looked for are those of running tasks."""
    assert desk.logs.stream(PATH, TI) == ([], [])


def test_bytes_that_are_no_text_do_no_harm(desk: Desk) -> None:
    file = desk.write("")
    file.write_bytes(b'{"event": "gr\xf6\xdfe"}\n\n\x00\n' + b"x" * 100)
    desk.logs.upload(PATH, TI)

    _, [part] = desk.logs.stream(PATH, TI)
    assert list(part) == ['{"event": "gr\ufffd\ufffde"}', "\x00", "x" * 100]


# A worker's side


def test_an_upload_leaves_no_thread(desk: Desk) -> None:
    """A supervisor with a thread takes no other workload, and forks nothing safely."""
    # A thread of an earlier test may end only now, so there may be fewer afterwards.
    before = threads(), threading.active_count()

    desk.store(LONG)

    assert threads() <= before[0]
    assert threading.active_count() <= before[1]


def test_a_file_goes_when_it_is_stored(desk: Desk) -> None:
    other = desk.write("another try\n", PATH.replace("attempt=1", "attempt=2"))
    file = desk.write(LONG)

    desk.open(deletes=True).upload(PATH, TI)

    assert not file.exists()
    assert other.exists()
    assert desk.shown()[-1] == "line 5999"
    desk.open(deletes=True).upload(str(other.relative_to(desk.folder)), TI)
    assert list(desk.folder.iterdir()) == []


def test_a_path_below_the_folder_may_be_whole(desk: Desk) -> None:
    desk.logs.upload(desk.write(LONG), TI)

    assert desk.shown()[-1] == "line 5999"


@pytest.mark.parametrize("path", ["not/there.log", "/etc/hostname", "../x.log"])
def test_another_path_is_no_error(desk: Desk, path: str) -> None:
    (desk.folder.parent / "x.log").write_text("not ours\n")

    desk.open(deletes=True).upload(path, TI)

    assert (desk.folder.parent / "x.log").exists()
    assert desk.logs.stream(path, TI) == ([], [])


def test_a_callbacks_log_is_stored_and_shown_for_the_default_queue(desk: Desk) -> None:
    """Airflow has no task instance for it, when it is stored and when it is asked for."""
    path = "executor_callbacks/a/r/4711"
    file = desk.write(LONG, path)

    desk.open(deletes=True).upload(path)

    assert not file.exists()
    sources, parts = desk.logs.stream(path, None)
    assert ["\n".join(part) + "\n" for part in parts] == [LONG]
    assert len(sources) == 1
    other: Any = SimpleNamespace(queue="another")
    assert desk.logs.stream(path, other) == ([], [])


def test_a_teams_log_stays_where_it_is(desk: Desk) -> None:
    file = desk.write(LONG)

    of_team("alpha")
    try:
        desk.open(deletes=True).upload(PATH, TI)
    finally:
        of_team(None)

    assert file.exists()
    assert desk.shown() == []


def test_without_a_broker_a_file_stays_and_a_warning_names_it(
    away: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    file = away.write(LONG)

    away.open(deletes=True).upload(PATH, TI)

    [warning] = [record for record in caplog.records if record.name == ended.__name__]
    assert warning.levelname == "WARNING"
    assert warning.getMessage().startswith(f"{file} is not in NATS and stays here: ")
    assert file.read_text() == LONG


def test_an_outage_is_one_warning_of_a_process_and_a_line_for_each_file(
    away: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """A supervisor stores one log after the other."""
    caplog.set_level("INFO", ended.__name__)
    logs = away.open(deletes=True)
    files = [away.write(LONG, f"{PATH}.{number}") for number in range(3)]

    for file in files:
        logs.upload(file, TI)

    first, *others = [r for r in caplog.records if r.name.startswith("nats_executor")]
    assert first.levelname == "WARNING"
    reason = "cannot reach NATS at nats://127.0.0.1:1: "
    assert first.getMessage().startswith(f"{files[0]} is not in NATS and stays here: {reason}")
    assert [(r.levelname, r.getMessage()) for r in others] == [
        ("INFO", f"{file} is not in NATS and stays here, too") for file in files[1:]
    ]


def test_without_a_bucket_a_file_stays(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ended, "UPLOAD_SECONDS", 0.3)
    desk.settings = dataclasses.replace(desk.settings, subject_prefix="another")
    file = desk.write(LONG)

    desk.open(deletes=True).upload(PATH, TI)

    assert f"{file} is not in NATS and stays here: not stored within 0.3 s" in caplog.text
    assert file.exists()


# What has gone wrong is said in the log


def test_an_nats_that_is_away(away: Desk) -> None:
    sources, parts = away.logs.stream(PATH, TI)
    again = away.shown()

    assert sources == []
    [[text]] = map(list, parts)
    assert text.startswith('{"event": "NATS could not be asked for this log: cannot reach NATS')
    assert len(again) == 1


def remove(desk: Desk, number: int) -> None:
    names = desk.settings.names
    chunk = names.log_chunk(TI.queue, PATH, part_id(LONG.encode()), number)
    assert desk.ask(lambda broker: broker.remove(names.logs_stream, chunk))


def test_a_chunk_that_is_gone(desk: Desk) -> None:
    desk.store(LONG)
    remove(desk, 0)

    shown = desk.shown()

    assert "line 5999" in shown
    assert "line 0" not in shown
    assert [text for text in shown if "131072 bytes of this log are gone" in text]


def test_a_chunk_that_is_another(desk: Desk) -> None:
    desk.store(LONG)
    names = desk.settings.names
    chunk = names.log_chunk(TI.queue, PATH, part_id(LONG.encode()), 1)
    desk.ask(lambda broker: broker.publish(chunk, b"forged\n"))

    assert [text for text in desk.shown() if "its digest is another one" in text]


def test_a_beginning_that_was_not_stored(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nats_executor.logs.store.STORED_BYTES", CHUNK_BYTES)
    desk.store(LONG)

    shown = desk.shown()

    assert "line 5999" in shown
    assert [text for text in shown if text.startswith("the first ") and "not stored" in text]


def test_a_record_that_cannot_be_read(desk: Desk) -> None:
    desk.store(text_of(range(2)))
    subject = desk.settings.names.log_part(TI.queue, PATH, "0" * 16)
    desk.ask(lambda broker: broker.publish(subject, b"rubbish"))

    shown = desk.shown()

    assert "line 1" in shown
    assert [text for text in shown if text.startswith("1 parts of ") and "cannot be read" in text]


def test_more_parts_than_are_shown(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended, "MOST_PARTS", 2)
    for number in range(4):
        desk.store(text_of(range(number, number + 1)))

    shown = desk.shown()

    assert [text for text in shown if text.startswith("line")] == ["line 2", "line 3"]
    assert [text for text in shown if "only the last 2 parts" in text]


def test_a_broker_that_goes_while_a_log_is_read(
    tmp_path: Path, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = FakeServer()
    monkeypatch.setattr(broker_module, "connect", server.connect)
    desk = Desk(tmp_path, "nats://127.0.0.1:1", names, server)
    desk.ask(lambda broker: setup.apply(broker, desk.settings, []))
    many = text_of(range(30_000))  # more than one window
    desk.store(many)

    _, [part] = desk.logs.stream(PATH, TI)
    assert next(part) == line(0)
    server.stop()
    rest = list(part)
    desk.logs._connections.close()

    assert rest[-2] != rest[-1]
    assert "NATS could not be asked" in rest[-1]
    assert len(rest) > 1000


# How Airflow finds it


@pytest.mark.parametrize("folder", ["nats://", "nats:///", "nats:"])
def test_the_folder_names_nothing(folder: str) -> None:
    require_bare(folder)


@pytest.mark.parametrize(
    ("folder", "shown"),
    [
        ("nats://host:4222", "'nats://host:4222'"),
        ("nats://logs/folder", "'nats://logs/folder'"),
        ("nats://user:secret@host", "'***'"),
        ("nats://?replicas=3", "'nats://?replicas=3'"),
        ("s3://bucket", "'s3://bucket'"),
        ("", "''"),
    ],
)
def test_a_folder_that_names_something_is_refused(folder: str, shown: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_bare(folder)

    text = f"[logging] remote_base_log_folder = {shown}: write nats:// and nothing more; "
    assert str(caught.value).startswith(text)


def test_it_is_what_airflow_calls_a_stream(tmp_path: Path) -> None:
    assert isinstance(StoredLogs(tmp_path, deletes=False), RemoteLogStreamIO)


FOUND = """
import json, sys
from airflow import settings
settings.initialize()
from airflow.logging_config import get_remote_task_log
from airflow.sdk.log import load_remote_log_handler
found = [get_remote_task_log(), load_remote_log_handler()]
print(json.dumps([[type(log).__name__, str(log._folder), log._deletes] for log in found]
                 + ["nats" in sys.modules]))
"""


def start_airflow(home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | OURS | {"AIRFLOW_HOME": str(home)} | settings
    return subprocess.run(
        [sys.executable, "-c", FOUND], env=env, capture_output=True, text=True, check=False
    )


def test_airflow_finds_it_by_the_scheme(tmp_path: Path) -> None:
    done = start_airflow(
        tmp_path,
        AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER="nats://",
        AIRFLOW__LOGGING__BASE_LOG_FOLDER=str(tmp_path / "logs"),
        AIRFLOW__LOGGING__DELETE_LOCAL_LOGS="True",
    )

    assert done.returncode == 0, done.stderr
    ours = ["StoredLogs", str(tmp_path / "logs"), True]
    assert json.loads(done.stdout.splitlines()[-1]) == [ours, ours, False]


def test_nonsense_ends_the_start(tmp_path: Path) -> None:
    done = start_airflow(tmp_path, AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER="nats://host/x")

    assert done.returncode != 0
    assert "[logging] remote_base_log_folder = 'nats://host/x': write nats://" in done.stderr


def test_airflow_alone_refuses_the_scheme(tmp_path: Path) -> None:
    """What `logging_config.py` is for; where this fails, it may go."""
    done = start_airflow(
        tmp_path,
        AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS="",
        AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER="nats://",
    )

    assert "Incorrect remote log configuration" in done.stderr


def test_the_path_that_configurations_name_is_still_its_own() -> None:
    """Deployments have it in a logging configuration, and the provider names it for `nats://`."""
    assert pkgutil.resolve_name("nats_executor.remote_logs.StoredLogs") is StoredLogs
    [handler] = get_provider_info()["remote-logging"]
    assert pkgutil.resolve_name(handler["classpath"]) is StoredLogs

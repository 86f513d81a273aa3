"""`airflow nats workers show`: what a worker tells, and what is shown of one that does not."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import pytest

from nats_executor.broker.connection import connect
from nats_executor.cli import commands
from nats_executor.installation import installed
from nats_executor.operations import describing
from nats_executor.wire.descriptions import Carried, Description, encode_description
from nats_executor.wire.names import Verb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats_executor.settings import Settings
    from tests.cli.conftest import Console

pytestmark = pytest.mark.integration

HERE = installed()
MAPPED = Carried(
    dispatch_id="d1", queue="default", kind="ExecuteTask", phase="running", since=60.0, dag="etl",
    run="r1", task="load", map_index=3, try_number=2, id="i1", attempt=2, pid=77,
)  # fmt: skip
UNREAD = Carried(dispatch_id="d2", queue="gpu", kind="", phase="looking", since=98.0)
WORKER = Description(
    worker="w1.1", name="w1", at=100.5, started_at=10.0, connected_at=40.0, version="0.1",
    airflow="3.3.1", python="3.12.1", memory_bytes=5, memory_used_bytes=6, memory_limit_bytes=7,
    memory_of="cgroup", carried=[MAPPED, UNREAD], left_out=3,
)  # fmt: skip


@dataclass
class Answerer:
    """Answers one verb as the worker `w1`, in a thread of its own; None for no answer ever."""

    settings: Settings
    verb: Verb
    answer: bytes | None
    got: list[bytes] = field(default_factory=list)
    is_ready: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self.thread = threading.Thread(target=lambda: asyncio.run(self.live()))
        self.thread.start()
        assert self.is_ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        self.thread.join(10)

    async def live(self) -> None:
        async with connect(self.settings, role="test") as broker:
            await broker.ready(5)
            await broker.serve(self.settings.names.control("w1.1", self.verb), self.reply)
            self.is_ready.set()
            await asyncio.to_thread(self.is_over.wait)

    async def reply(self, body: bytes) -> bytes:
        self.got.append(body)
        if self.answer is None:
            await asyncio.Event().wait()
        return self.answer or b""


@pytest.fixture
def show_stage(console: Console) -> Console:
    console.run(commands.setup)
    console.announce("w1", "default", "gpu", airflow="3.3.1", python=HERE.python)
    return console


@pytest.fixture
def answered(show_stage: Console) -> Iterator[Any]:
    living: list[Answerer] = []

    def start(answer: bytes | None) -> Answerer:
        answerer = Answerer(show_stage.settings, Verb.DESCRIBE, answer)
        living.append(answerer)
        return answerer.__enter__()

    yield start
    for answerer in living:
        answerer.__exit__()


def show(console: Console, worker: str = "w1", **args: Any) -> tuple[int, str]:
    return console.run(commands.workers_show, worker=worker, **args)


def test_all_is_shown_and_typed(show_stage: Console, answered: Any) -> None:
    answerer = answered(encode_description(WORKER))

    code, output = show(show_stage, output="json")

    assert (code, show_stage.error) == (0, "")
    assert answerer.got == [b""]
    [found] = json.loads(output)
    [listed] = json.loads(show_stage.run(commands.workers_list, output="json")[1])
    ages = [row.pop("last_seen_seconds") for row in (found, listed)]
    assert all(type(age) is int for age in ages)
    assert found == listed | {
        "version_here": HERE.version, "airflow_here": HERE.airflow, "python_here": HERE.python,
        "uptime_seconds": 90, "connected_seconds": 60, "memory_bytes": 5, "memory_used_bytes": 6,
        "memory_limit_bytes": 7, "memory_of": "cgroup", "workloads": 5,
        "carried": [
            {
                "dag": "etl", "run": "r1", "task": "load", "map_index": 3, "try": 2,
                "phase": "running", "since": "1970-01-01T00:01:00+00:00", "seconds": 40, "pid": 77,
                "attempt": 2, "queue": "default", "kind": "ExecuteTask", "id": "i1",
                "dispatch_id": "d1",
            },
            {
                "dag": None, "run": None, "task": None, "map_index": None, "try": None,
                "phase": "looking", "since": "1970-01-01T00:01:38+00:00", "seconds": 2,
                "pid": None, "attempt": 1, "queue": "gpu", "kind": None, "id": None,
                "dispatch_id": "d2",
            },
        ],
    }  # fmt: skip


def test_releases_that_differ_are_marked(show_stage: Console) -> None:
    show_stage.announce("w2", "default", version=HERE.version, airflow=HERE.airflow, python="2.7")
    show_stage.announce("w3", "default", version=HERE.version)

    rows = json.loads(show_stage.run(commands.workers_list, output="json")[1])

    assert [row["differs"] for row in rows] == [["version", "airflow"], ["python"], []]
    assert [row["airflow"] for row in rows] == ["3.3.1", HERE.airflow, None]
    assert [row["python"] for row in rows] == [HERE.python, "2.7", None]
    _, output = show_stage.run(commands.workers_list, output="plain")
    assert {len(line.split()) for line in output.splitlines()} == {14}


def test_a_person_sees_two_tables(show_stage: Console, answered: Any) -> None:
    answered(encode_description(WORKER))

    code, output = show(show_stage, output="plain")

    lines = [line.split() for line in output.splitlines()]
    assert code == 0
    assert ["uptime_seconds", "90"] in lines
    assert ["differs", "version,airflow"] in lines
    assert lines[-2][:6] == ["etl", "r1", "load", "3", "2", "running"]
    assert lines[-1][:6] == ["-", "-", "-", "-", "-", "looking"]


def test_a_worker_that_runs_nothing_has_one_table(show_stage: Console, answered: Any) -> None:
    answered(encode_description(replace(WORKER, carried=[], left_out=0, memory_bytes=0)))

    code, output = show(show_stage, output="plain")

    assert code == 0
    lines = [line.split() for line in output.splitlines()]
    assert lines[-1] == ["workloads", "0"]
    assert ["memory_bytes", "-"] in lines


def test_a_worker_of_the_release_before_is_shown_and_named(show_stage: Console) -> None:
    code, output = show(show_stage, output="json")

    assert code == 1
    assert show_stage.error == (
        "error: worker w1 does not tell what it runs: it is gone, or its release 0.1 does not tell "
        "what it runs\n"
    )
    [found] = json.loads(output)
    assert (found["worker"], found["running"], found["carried"]) == ("w1", 1, None)
    assert [found[name] for name in describing.ASKED_COLUMNS] == [None] * 7


def test_a_worker_that_is_silent_is_named(
    show_stage: Console, answered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(describing, "DESCRIBE_SECONDS", 0.1)
    answered(None)

    assert show(show_stage)[0] == 1
    assert show_stage.error.endswith("does not tell what it runs: it did not answer within 0.1 s\n")


def test_an_answer_that_cannot_be_read_is_named(show_stage: Console, answered: Any) -> None:
    answered(b"\xc1")

    assert show(show_stage)[0] == 1
    assert "its answer cannot be read: not a msgpack message" in show_stage.error


@pytest.mark.parametrize("at", [float("nan"), float("inf"), -1e300, 1e18])
def test_times_of_no_calendar_are_shown_as_none(
    show_stage: Console, answered: Any, at: float
) -> None:
    carried = [replace(MAPPED, since=at)]
    answered(encode_description(replace(WORKER, started_at=at, carried=carried)))

    code, output = show(show_stage, output="json")

    assert code == 0
    [found] = json.loads(output)
    assert found["carried"][0]["since"] is None


def test_an_unknown_worker_and_one_of_two_are_refused(show_stage: Console, answered: Any) -> None:
    assert show(show_stage, "w9") == (2, "")
    assert show_stage.error == "error: no worker is named 'w9'; there are: w1\n"

    show_stage.announce("w1", "other", worker="w1.2")
    assert show(show_stage)[0] == 2
    assert "say which one with --serving QUEUE" in show_stage.error
    answered(encode_description(WORKER))
    assert show(show_stage, serving="gpu")[0] == 0


def test_an_answer_gives_a_terminal_no_orders(show_stage: Console, answered: Any) -> None:
    evil = "\x1b[2J\x9b31m\nworker good"
    texts: dict[str, Any] = dict.fromkeys(
        ("dispatch_id", "queue", "kind", "phase", "dag", "run", "task", "id"), evil
    )
    answered(
        encode_description(replace(WORKER, memory_of=evil, carried=[Carried(since=1.0, **texts)]))
    )

    for kind in ("plain", "table", "json", "yaml"):
        _, output = show(show_stage, output=kind)
        shown = output + show_stage.error
        assert not {c for c in shown if not c.isprintable()} - {"\n"}
        assert "\nworker good" not in shown

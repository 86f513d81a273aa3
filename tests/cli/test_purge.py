"""`airflow nats purge`: it says what goes, asks, removes that and nothing else."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.broker.jetstream import JetStream
from nats_executor.cli import arguments, commands
from nats_executor.cli.definitions import STORES
from nats_executor.errors import BrokerUnavailable
from nats_executor.operations.purging import Store
from nats_executor.text import number_of

if TYPE_CHECKING:
    from nats_executor.broker.port import Broker
    from tests.cli.conftest import Console


def run(console: Console, store: str, **args: Any) -> tuple[int, str]:
    given: dict[str, Any] = {"store": store, "queue": None, "yes": True, "output": "json"}
    return console.run(commands.purge, **given | args)


@pytest.fixture
def full_console(console: Console) -> Console:
    """Two messages of queue `a` and one of `b` in every stream, and a task."""
    console.patch.setenv("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", "nats://")
    console.run(commands.setup, queues="a,b")
    names = console.settings.names
    for queue, number in (("a", 1), ("a", 2), ("b", 3)):
        console.publish(names.result(queue, f"d{number}"), b"report")
        console.publish(names.dead_letter(queue, f"d{number}"), b"letter")
        console.publish(names.log_chunk(queue, f"{number}.log", "p", 0), b"log")
    console.announce("w1", "a")
    console.announce("w2", "a", "b")
    console.send("a")
    return console


def left(console: Console) -> list[int]:
    names = console.settings.names
    streams = (
        names.results_stream, names.dead_letters_stream, names.workers_stream, names.logs_stream,
        names.tasks_stream,
    )  # fmt: skip

    async def count(broker: Broker) -> list[int]:
        found = [await broker.stream_info(stream) for stream in streams]
        return [info.messages if info else -1 for info in found]

    return arguments.ask(console.settings, count)


def test_the_words_of_the_command_line_are_those_of_the_code() -> None:
    assert set(STORES) == set(Store)


@pytest.mark.parametrize(
    ("store", "queue", "after"),
    [
        ("results", "a", [1, 3, 3, 3, 1]),
        ("results", None, [0, 3, 3, 3, 1]),
        ("dead-letters", "b", [3, 2, 3, 3, 1]),
        ("dead-letters", None, [3, 0, 3, 3, 1]),
        ("workers", "a", [3, 3, 1, 3, 1]),
        ("workers", None, [3, 3, 0, 3, 1]),
        ("logs", "a", [3, 3, 3, 1, 1]),
        ("logs", None, [3, 3, 3, 0, 1]),
    ],
)
def test_a_purge_removes_what_it_is_told_and_nothing_else(
    full_console: Console, store: str, queue: str | None, after: list[int]
) -> None:
    before = left(full_console)
    assert before == [3, 3, 3, 3, 1]

    code, output = run(full_console, store, queue=queue)

    assert code == 0
    (row,) = json.loads(output)
    gone = sum(before) - sum(after)
    assert left(full_console) == after
    assert int(row["removed_messages"]) == gone
    assert int(row["freed_bytes"]) > 0
    assert row["queue"] == (queue or "-")
    stream = row["stream"]
    messages = number_of(gone + int(row["left_messages"]), "message")
    of_queue = f" of queue {queue!r}" if queue else ""
    assert f"To remove{of_queue}: {gone} of {messages} in stream {stream}, " in full_console.error


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("yes\n", 0), ("n\n", 1), ("", 1)])
def test_a_purge_asks_before_it_removes_anything(
    full_console: Console, answer: str, code: int
) -> None:
    full_console.patch.setattr("sys.stdin", io.StringIO(answer))

    found, output = run(full_console, "results", yes=False)

    assert found == code
    assert left(full_console)[0] == (0 if code == 0 else 3)
    assert "its end is reported" in full_console.error
    assert "Remove them? [y/N]" in full_console.error
    if code:
        assert output == ""
        assert full_console.error.endswith("nothing was removed\n")


def test_a_stream_that_is_not_there_is_said(console: Console) -> None:
    for store in STORES:
        assert run(console, store) == (2, "")
        assert "does not exist: there is nothing to purge" in console.error


def test_an_empty_queue_is_refused(full_console: Console) -> None:
    """As a script writes it whose variable is not set; it is not the same as no queue."""
    for store in STORES:
        code, output = run(full_console, store, queue="")

        assert (code, output) == (2, "")
        assert "--queue '': name a queue" in full_console.error


def test_what_nats_does_not_count_is_purged_all_the_same(
    full_console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a client has made its subjects as long as may be, their list fits in no answer."""

    async def subjects(*_: object) -> None:
        raise BrokerUnavailable("no answer")

    monkeypatch.setattr(JetStream, "subjects", subjects)

    code, output = run(full_console, "dead-letters", queue="a")

    assert code == 0
    assert "an unknown number of 3 messages" in full_console.error
    assert json.loads(output)[0]["removed_messages"] == 2

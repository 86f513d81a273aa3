"""`airflow nats dead-letters list|show|purge`, and what `check` says, on a real nats-server."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.broker.port import Outgoing
from nats_executor.cli import arguments, commands
from nats_executor.operations import letters, survey
from nats_executor.wire.messages import Kind, Workload, encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nats_executor.broker.port import Broker
    from tests.cli.conftest import Console

pytestmark = pytest.mark.integration

GIVEN: dict[str, Any] = {
    "queue": None, "dag": None, "older_than": 0.0, "limit": None, "sequences": [],
    "dry_run": False, "yes": True, "output": "json",
}  # fmt: skip
SECRET = "eyJsecret.of.a-task"


def run(console: Console, what: str, **args: Any) -> tuple[int, Any]:
    """Return a command's exit code, and the rows that it printed as JSON."""
    code, output = console.run(getattr(commands, f"dead_letters_{what}"), **(GIVEN | args))
    return code, json.loads(output) if output else None


def body(queue: str, dispatch_id: str, dag: str = "etl", **more: Any) -> bytes:
    instance = {
        "id": f"i-{dispatch_id}", "dag_id": dag, "run_id": "r1", "task_id": "load",
        "map_index": -1, "try_number": 1,
    }  # fmt: skip
    return encode(
        Workload(
            dispatch_id=dispatch_id, queue=queue, kind=Kind.TASK, sender="s", key=[],
            body={"token": SECRET, "ti": instance | more, "arguments": "private"},
        )
    )  # fmt: skip


def bury(console: Console, queue: str, dispatch_id: str, **more: Any) -> None:
    """Set a workload aside as a worker of the release before did, with its token."""
    names = console.settings.names
    message = more.pop("message", None) or body(queue, dispatch_id, **more)
    headers = {"Airflow-Reason": f"{dispatch_id} was claimed 5 times"}

    async def publish(broker: Broker) -> int:
        return await broker.publish(names.dead_letter(queue, dispatch_id), message, headers=headers)

    arguments.ask(console.settings, publish)


def sequences(rows: Iterable[dict[str, Any]]) -> list[int]:
    return [row["sequence"] for row in rows]


@pytest.fixture
def letter_box(console: Console) -> Console:
    """Four letters: of queue `a`, `b`, `a` of another Dag, and one that cannot be read."""
    console.run(commands.setup, queues="a,b")
    bury(console, "a", "d1", map_index=4)
    bury(console, "b", "d2")
    bury(console, "a", "d3", dag="other")
    bury(console, "b", "d4", message=b"garbage")
    return console


def test_letters_are_listed_the_newest_first(letter_box: Console) -> None:
    code, rows = run(letter_box, "list")

    assert code == 0
    assert all(0 <= row.pop("age_seconds") < 600 for row in rows)
    task = {"run": "r1", "task": "load", "map_index": None, "try": 1}
    nothing = dict.fromkeys(("dag", *task))
    assert rows == [
        {"sequence": 4, "queue": "b", "reason": "d4 was claimed 5 times"} | nothing,
        {"sequence": 3, "queue": "a", "dag": "other", "reason": "d3 was claimed 5 times"} | task,
        {"sequence": 2, "queue": "b", "dag": "etl", "reason": "d2 was claimed 5 times"} | task,
        {"sequence": 1, "queue": "a", "dag": "etl", "reason": "d1 was claimed 5 times"}
        | task | {"map_index": 4},
    ]  # fmt: skip


@pytest.mark.parametrize("output", ["table", "json", "yaml", "plain"])
def test_neither_a_token_nor_a_body_is_printed(letter_box: Console, output: str) -> None:
    for what, args in (("list", {}), ("show", {"sequence": 1}), ("purge", {"dry_run": True})):
        function = getattr(commands, f"dead_letters_{what}")
        code, printed = letter_box.run(function, **(GIVEN | args | {"output": output}))

        assert code == 0
        assert "claimed" in printed
        assert not any(text in printed for text in ("eyJ", SECRET, "private", "garbage"))


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ({"queue": "a"}, [3, 1]),
        ({"dag": "etl"}, [2, 1]),
        ({"queue": "a", "dag": "etl"}, [1]),
        ({"queue": "*"}, []),
        ({"older_than": 3600.0}, []),
        ({"limit": 4}, [4, 3, 2, 1]),
    ],
)
def test_options_choose_letters(
    letter_box: Console, args: dict[str, Any], found: list[int]
) -> None:
    code, rows = run(letter_box, "list", **args)

    assert (code, sequences(rows)) == (0, found)
    assert letter_box.error == ""


def test_a_limit_says_that_there_are_more(letter_box: Console) -> None:
    assert sequences(run(letter_box, "list", limit=1, queue="a")[1]) == [3]
    assert letter_box.error.startswith("these are the newest 1; there are more")


def test_many_letters_are_read_page_by_page(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With gaps, and more letters than one look takes in."""
    console.run(commands.setup)
    names = console.settings.names
    many = [
        Outgoing(names.dead_letter("a", f"d{number}"), body("a", f"d{number}"))
        for number in range(1, 3001)
    ]

    async def fill(broker: Broker) -> None:
        assert set(await broker.publish_all(many, timeout=30)) == {None}
        for number in (1, 2, 1500, 2000, 2001, 3000):
            await broker.purge(names.dead_letters_stream, names.dead_letter("a", f"d{number}"))

    arguments.ask(console.settings, fill)
    gone = {1, 2, 1500, 2000, 2001, 3000}
    there = [number for number in range(3000, 0, -1) if number not in gone]

    assert sequences(run(console, "list")[1]) == there[:100]
    assert sequences(run(console, "list", limit=20_000)[1]) == there
    assert console.error == ""
    monkeypatch.setattr(letters, "SEQUENCES_AT_ONCE", 7)
    assert sequences(run(console, "list", limit=2000)[1]) == there[:2000]
    assert run(console, "purge", limit=2500) == (0, [{"removed_letters": 2500}])
    assert sequences(run(console, "list", limit=1000)[1]) == there[2500:]


def test_one_letter_is_shown(letter_box: Console) -> None:
    code, [row] = run(letter_box, "show", sequence=2)

    assert code == 0
    assert (row["sequence"], row["dispatch_id"], row["task_instance_id"]) == (2, "d2", "i-d2")
    assert row["kind"] == "ExecuteTask"


@pytest.mark.parametrize("sequence", [3, 5, 2**62])
def test_a_letter_that_is_not_there_is_told(letter_box: Console, sequence: int) -> None:
    run(letter_box, "purge", sequences=[3])

    assert run(letter_box, "show", sequence=sequence) == (2, None)
    assert letter_box.error == f"error: no dead letter has the sequence {sequence}\n"


@pytest.mark.parametrize("what", ["list", "purge", "retry", "show"])
def test_without_a_stream_setup_is_the_remedy(console: Console, what: str) -> None:
    assert run(console, what, sequence=1) == (2, None)
    assert console.error.endswith("_DEAD_LETTERS does not exist; run: airflow nats setup\n")


# purge


@pytest.mark.parametrize(
    ("args", "left"),
    [
        ({"sequences": [1, 4]}, [3, 2]),
        ({"queue": "a"}, [4, 2]),
        ({"dag": "etl"}, [4, 3]),
        ({"limit": 1}, [3, 2, 1]),
        ({"older_than": 3600.0}, [4, 3, 2, 1]),
        ({}, []),
    ],
)
def test_a_purge_removes_what_it_is_told_and_nothing_else(
    letter_box: Console, args: dict[str, Any], left: list[int]
) -> None:
    _, before = run(letter_box, "purge", dry_run=True, **args)
    assert len(run(letter_box, "list")[1]) == 4

    assert run(letter_box, "purge", **args) == (0, [{"removed_letters": 4 - len(left)}])

    assert sequences(run(letter_box, "list")[1]) == left
    assert sorted([*sequences(before), *left]) == [1, 2, 3, 4]


@pytest.mark.parametrize(("answer", "left"), [("y\n", 2), ("n\n", 4), ("\n", 4), ("", 4)])
def test_a_purge_asks(
    letter_box: Console, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))

    code, rows = run(letter_box, "purge", queue="a", yes=False)

    said = letter_box.error
    assert "2 dead letters to go: their tasks are not run again\nRemove them? [y/N] " in said
    assert (code, rows) == ((0, [{"removed_letters": 2}]) if left == 2 else (1, None))
    assert ("nothing was removed" in said) == (left == 4)
    assert len(run(letter_box, "list")[1]) == left


def test_a_purge_of_nothing_asks_nothing(letter_box: Console) -> None:
    assert run(letter_box, "purge", dag="none", yes=False) == (0, [{"removed_letters": 0}])


@pytest.mark.parametrize("args", [{"queue": "a"}, {"limit": 1}, {"older_than": 1.0}, {"dag": "x"}])
@pytest.mark.parametrize("what", ["purge", "retry"])
def test_letters_are_named_in_one_way(letter_box: Console, what: str, args: dict[str, Any]) -> None:
    assert run(letter_box, what, sequences=[1], **args) == (2, None)
    assert "by their sequences or by options, not by both" in letter_box.error
    assert len(run(letter_box, "list")[1]) == 4


# check


def checked(console: Console) -> tuple[str, str]:
    _, output = console.run(commands.check, output="json")
    [row] = [row for row in json.loads(output) if row["check"] == "dead letters"]
    return row["status"], row["details"]


def test_check_tells_of_new_letters_and_the_reason_of_the_newest(letter_box: Console) -> None:
    status, details = checked(letter_box)

    assert status == "new"
    assert details.startswith("4 kept, the newest for ")
    assert details.endswith(" (d4 was claimed 5 times); run: airflow nats dead-letters list")
    run(letter_box, "purge", sequences=[4])
    assert "d3 was claimed" in checked(letter_box)[1]
    run(letter_box, "purge")
    assert checked(letter_box) == ("ok", "none")


@pytest.mark.parametrize("user", ["admin", "monitor"])
def test_check_does_not_ask_where_it_is_not_allowed(letter_box: Console, user: str) -> None:
    letter_box.configure(user=user, password="p")

    status, details = checked(letter_box)

    assert (status, "claimed" in details) == ("new", False)


def test_letters_of_the_day_before_need_no_attention(
    letter_box: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "NEW_SECONDS", -1.0)

    status, details = checked(letter_box)

    assert status == "ok"
    assert details.startswith("4 kept, the newest for ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (172800, "2 d")],
)
def test_an_age_is_written_in_one_unit(seconds: float, text: str) -> None:
    assert survey.age_in_words(seconds) == text

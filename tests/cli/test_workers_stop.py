"""`airflow nats workers stop`, `ping` and `forget`: what they send, say, remove and return."""

from __future__ import annotations

import io
import json
import sys
from getpass import getuser
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.cli import arguments, commands
from nats_executor.fleet import liveness
from nats_executor.operations import pinging, stopping
from nats_executor.wire.messages import ShutDown, decode
from nats_executor.wire.names import Verb
from tests.cli.test_orders import Pretender, order_stage, outcome, pretend
from tests.cli.test_workers_show import Answerer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats_executor.broker.port import Broker
    from nats_executor.settings import Settings
    from tests.cli.conftest import Console

__all__ = ["order_stage", "pretend"]

pytestmark = pytest.mark.integration


def stop(console: Console, workers: str | None, **args: Any) -> tuple[int, list[str]]:
    given = {"queue": None, "reason": "", "all": False, "now": False, "yes": False} | args
    code, output = console.run(commands.workers_stop, workers=workers, **given)
    return code, output.splitlines()


def orders_in(pretender: Pretender) -> list[tuple[str, str, ShutDown]]:
    return [(name, order, decode(ShutDown, body)) for name, order, body in pretender.got]


def test_workers_are_told_to_stop(order_stage: Console, pretend: Any) -> None:
    pretender = pretend({"w1": outcome(), "w2": outcome(is_changed=False)})

    told = stop(order_stage, "w?", reason="new kernel")

    assert (told, order_stage.error) == (
        (0, ["worker w1 stops; 1 running may end first",
             "worker w2 stops already; 1 running may end first"]), ""
    )  # fmt: skip
    order = ShutDown(by=getuser(), reason="new kernel")
    assert orders_in(pretender) == [("w1", "shut-down", order), ("w2", "shut-down", order)]


def test_a_stop_at_once_says_what_it_ends(order_stage: Console, pretend: Any) -> None:
    pretender = pretend({"w1": outcome()})

    told = stop(order_stage, "w1", now=True)

    assert told == (0, ["worker w1 stops; ends its tasks: 1 running"])
    assert [order.is_now for *_, order in orders_in(pretender)] == [True]


def test_only_those_of_a_queue(order_stage: Console, pretend: Any) -> None:
    order_stage.announce("x", "etl")
    pretender = pretend({"w1": outcome(), "w2": outcome(), "x": outcome()})

    assert stop(order_stage, None, queue="etl")[0] == 0

    assert [name for name, *_ in pretender.got] == ["x"]


@pytest.mark.parametrize(
    ("answer", "code", "stopped"), [("y\n", 0, ["w1", "w2"]), ("\n", 1, []), ("", 1, [])]
)
def test_all_are_stopped_only_after_a_yes(
    order_stage: Console, pretend: Any, monkeypatch: pytest.MonkeyPatch, answer: str, code: int,
    stopped: list[str],
) -> None:  # fmt: skip
    pretender = pretend({"w1": outcome(), "w2": outcome()})
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))

    assert stop(order_stage, None, all=True)[0] == code

    assert [name for name, *_ in pretender.got] == stopped
    assert order_stage.error.startswith("2 workers to stop, with 2 slots in use\nStop them? [y/N] ")
    assert order_stage.error.endswith("" if stopped else "none was stopped\n")


def lost(settings: Settings, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have the records of these workers look old."""
    for module in (pinging, stopping):
        seen_workers = module.seen_workers

        async def seen(broker: Broker, *args: Any, real: Any = seen_workers) -> Any:
            age = settings.worker_lost_seconds + 1
            return [
                type(one)(one.presence, age, one.keys) if one.presence.name in names else one
                for one in await real(broker, *args)
            ]

        monkeypatch.setattr(module, "seen_workers", seen)


def test_all_leaves_out_those_that_are_lost(
    order_stage: Console, pretend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretender = pretend({"w1": outcome()})
    lost(order_stage.settings, monkeypatch, "w2")

    assert stop(order_stage, None, all=True, yes=True)[0] == 0

    assert [name for name, *_ in pretender.got] == ["w1"]
    assert order_stage.error == "1 worker to stop, with 1 slot in use\n"


@pytest.mark.parametrize("args", [{"workers": "w1"}, {"workers": None, "queue": "gpu"}])
def test_all_and_a_name_contradict_each_other(order_stage: Console, args: dict[str, Any]) -> None:
    assert stop(order_stage, all=True, yes=True, **args) == (2, [])
    assert "not both" in order_stage.error


def test_what_does_not_stop_is_named(order_stage: Console, pretend: Any) -> None:
    pretend({"w1": outcome(refusal="no")})

    assert stop(order_stage, "w1,w2")[0] == 1

    first, second = order_stage.error.splitlines()
    assert first == "error: worker w1 refuses: no"
    assert second.endswith(f"it is gone, or its release 0.1 {stopping.NO_STOP}")
    assert stop(order_stage, "w9") == (2, [])
    assert "no worker is named 'w9' or matches it; there are: w1,w2" in order_stage.error


# ping


@pytest.fixture
def alive(order_stage: Console) -> Iterator[Answerer]:
    """Have w1 answer pings."""
    with Answerer(order_stage.settings, Verb.PING, b"pong") as answerer:
        yield answerer


def ping(console: Console, workers: str | None = None, **args: Any) -> tuple[int, list[Any]]:
    code, output = console.run(
        commands.workers_ping, **{"workers": workers, "queue": None, "output": "json"} | args
    )
    return code, json.loads(output)


@pytest.mark.usefixtures("alive")
def test_a_worker_that_answers_has_its_milliseconds(order_stage: Console) -> None:
    code, [row] = ping(order_stage, "w1")

    assert code == 0
    assert type(row["milliseconds"]) is float
    assert 0 < row["milliseconds"] < 2000
    expected = {"worker": "w1", "host": "host-7", "answer": "alive", "state": "running"}
    assert {name: row[name] for name in expected} == expected


@pytest.mark.usefixtures("alive")
def test_all_are_asked_and_one_that_is_gone_is_an_error(order_stage: Console) -> None:
    code, rows = ping(order_stage)

    assert code == 1
    assert [(row["worker"], row["answer"]) for row in rows] == [("w1", "alive"), ("w2", "gone")]
    assert rows[1]["milliseconds"] is None
    assert ping(order_stage, None, queue="gpu")[0] == 1
    assert ping(order_stage, "w*", queue="gpu")[0] == 1


def test_a_worker_that_is_silent_is_an_error(
    order_stage: Console, alive: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinging, "PATIENT_SECONDS", 0.1)
    alive.answer = None

    code, [row] = ping(order_stage, "w1")

    assert (code, row["answer"], row["milliseconds"]) == (1, "silent", None)


def test_where_no_worker_is_there_is_nothing_to_ask(console: Console) -> None:
    console.run(commands.setup)

    assert ping(console) == (0, [])
    code, output = console.run(commands.workers_ping, workers="w1", queue=None)
    assert (code, output) == (2, "")


# forget


def forget(console: Console, workers: str | None, queue: str | None = None) -> tuple[int, str]:
    return console.run(commands.workers_forget, workers=workers, queue=queue)


def records(console: Console) -> list[str]:
    names = console.settings.names

    async def look(broker: Broker) -> list[str]:
        found = await broker.scan(names.workers_stream, names.presences())
        return [message.subject.removeprefix(f"$KV.{names.workers_bucket}.") for message in found]

    return sorted(arguments.ask(console.settings, look))


def test_a_lost_worker_is_forgotten_and_check_names_it_no_more(
    order_stage: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost(order_stage.settings, monkeypatch, "w1")

    assert forget(order_stage, "w1") == (0, "worker w1 is forgotten: 2 records removed\n")

    assert [key for key in records(order_stage) if "w2" in key] == ["default.w2", "gpu.w2"]
    assert [key for key in records(order_stage) if key.endswith(".w1")] == []
    _, output = order_stage.run(commands.workers_list, output="json")
    assert [row["worker"] for row in json.loads(output)] == ["w2"]


@pytest.mark.usefixtures("alive")
def test_a_worker_that_answers_is_not_forgotten(
    order_stage: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "PING_PAUSE_SECONDS", 0.0)
    lost(order_stage.settings, monkeypatch, "w1", "w2")
    before = records(order_stage)

    assert forget(order_stage, "w*") == (1, "worker w2 is forgotten: 2 records removed\n")

    assert order_stage.error == "error: worker w1 answers: it lives, and is not forgotten\n"
    assert records(order_stage) == [key for key in before if key.endswith(".w1")]


def test_a_worker_that_was_seen_a_moment_ago_is_not_forgotten(order_stage: Console) -> None:
    before = records(order_stage)

    assert forget(order_stage, "w1") == (1, "")

    assert "it may come back; try again later" in order_stage.error
    assert records(order_stage) == before


def test_a_worker_that_is_subscribed_and_silent_has_twice_the_time(
    order_stage: Console, alive: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "PING_SECONDS", 0.05)
    alive.answer = None
    lost(order_stage.settings, monkeypatch, "w1")

    assert forget(order_stage, "w1")[0] == 1
    assert "it may come back" in order_stage.error


def test_who_is_to_be_forgotten_has_to_be_said(order_stage: Console) -> None:
    assert forget(order_stage, None)[0] == 2
    assert "say which workers" in order_stage.error
    assert forget(order_stage, "w9")[0] == 2

"""`airflow nats workers drain` and `undrain`: what they write, say and return."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from getpass import getuser
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.cli import arguments, commands
from nats_executor.fleet.drains import seen_notes
from nats_executor.fleet.workers import seen_workers
from nats_executor.operations import draining, idleness
from nats_executor.wire.messages import Drain, decode, encode
from tests.cli.test_orders import Pretender, order_stage, outcome, pretend
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from nats_executor.broker.port import Broker
    from tests.cli.conftest import Console

__all__ = ["order_stage", "pretend"]

pytestmark = pytest.mark.integration

DRAINED = "worker {0} takes nothing more: 1 running; to undo it: airflow nats workers undrain {0}"
BY: dict[str, Any] = {"draining": True, "drained_by": "ann", "drain_reason": "new driver"}


def drain(console: Console, workers: str | None, **args: Any) -> tuple[int, list[str]]:
    given = {"queue": None, "reason": "", "wait": False, "timeout": None} | args
    code, output = console.run(commands.workers_drain, workers=workers, **given)
    return code, output.splitlines()


def undrain(console: Console, workers: str | None, queue: str | None = None) -> tuple[int, str]:
    return console.run(commands.workers_undrain, workers=workers, queue=queue)


def notes(console: Console) -> dict[str, Drain]:
    names = console.settings.names
    found = arguments.ask(console.settings, lambda broker: seen_notes(broker, names))
    prefix = names.worker_holds().removesuffix(">")
    return {note.subject.removeprefix(prefix): note.drain for note in found}


def test_a_worker_is_told_and_a_note_is_left_for_each_of_its_queues(
    order_stage: Console, pretend: Any
) -> None:
    pretender: Pretender = pretend({"w1": outcome(), "w2": outcome()})

    told = drain(order_stage, "w1", reason="new driver")

    assert (told, order_stage.error) == ((0, [DRAINED.format("w1")]), "")
    assert set(notes(order_stage)) == {"default.w1", "gpu.w1"}
    [(name, order, body)] = pretender.got
    assert (name, order) == ("w1", "drain")
    said = decode(Drain, body)
    assert (said.worker, said.by, said.reason) == ("w1", getuser(), "new driver")
    assert set(notes(order_stage).values()) == {said}


def test_a_worker_that_was_drained_already_has_the_new_reason_noted(
    order_stage: Console, pretend: Any
) -> None:
    pretend({"w1": outcome(is_changed=False)})
    drain(order_stage, "w1", reason="old")

    code, (line,) = drain(order_stage, "w1", reason="new")

    assert code == 0
    assert line.startswith("worker w1 was drained already: 1 running; ")
    assert {note.reason for note in notes(order_stage).values()} == {"new"}


@pytest.mark.parametrize(
    ("workers", "queue", "expected"),
    [
        ("w*", None, ["w1", "w2"]),
        ("w1,w2", None, ["w1", "w2"]),
        (None, "gpu", ["w1", "w2"]),
        ("w?,x", "default", ["w1", "w2", "x"]),
        (None, "etl", ["x"]),
    ],
)
def test_patterns_and_queues(
    order_stage: Console, pretend: Any, workers: str | None, queue: str | None, expected: list[str]
) -> None:
    order_stage.announce("x", "etl", "default")
    pretend({"w1": outcome(), "w2": outcome(), "x": outcome()})

    assert drain(order_stage, workers, queue=queue) == (
        0,
        [DRAINED.format(name) for name in expected],
    )
    assert {key.partition(".")[2] for key in notes(order_stage)} == set(expected)

    code, output = undrain(order_stage, workers, queue)
    again = [f"worker {name} takes workloads again: 1 running" for name in expected]
    assert (code, output.splitlines()) == (0, again)
    assert notes(order_stage) == {}


def test_no_worker_is_drained_if_one_is_unknown(order_stage: Console, pretend: Any) -> None:
    pretender: Pretender = pretend({"w1": outcome()})

    assert drain(order_stage, "w1,w3") == (2, [])

    assert order_stage.error == "error: no worker is named 'w3' or matches it; there are: w1,w2\n"
    assert (notes(order_stage), pretender.got) == ({}, [])
    assert undrain(order_stage, "w3") == (2, "")
    assert "no worker is named 'w3' or matches it" in order_stage.error


def test_a_worker_of_the_release_before_is_named_and_noted(order_stage: Console) -> None:
    code, lines = drain(order_stage, "w1")

    assert (code, lines) == (1, [])
    (line,) = order_stage.error.splitlines()
    assert line.startswith("error: worker w1 does not answer, last seen ")
    assert line.endswith(f"it is gone, or its release 0.1 {draining.NO_DRAIN}")
    assert set(notes(order_stage)) == {"default.w1", "gpu.w1"}

    code, output = undrain(order_stage, "w1")
    assert (code, output) == (1, "")
    assert order_stage.error.endswith(f"its release 0.1 {draining.NO_UNDRAIN}\n")
    assert notes(order_stage) == {}


def test_a_worker_that_starts_meanwhile_is_told(
    order_stage: Console, pretend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked for a note before there was one, and its record was not there yet."""
    pretender: Pretender = pretend({"w1": outcome()})
    order_stage.announce("w1", "default", "gpu", worker="old.1")
    looks = []

    async def seen(broker: Broker, *args: Any) -> Any:
        looks.append(1)
        if len(looks) == 2:
            await asyncio.to_thread(order_stage.announce, "w1", "default", "gpu")
        return await seen_workers(broker, *args)

    monkeypatch.setattr(draining, "seen_workers", seen)

    assert drain(order_stage, "w1") == (0, [DRAINED.format("w1")])
    assert [order for _, order, _ in pretender.got] == ["drain"]


def test_a_worker_that_is_gone_is_undrained(order_stage: Console) -> None:
    drain(order_stage, "w1")
    for queue in ("default", "gpu"):
        order_stage.publish(order_stage.settings.names.presence(queue, "w1"), b"")

    assert undrain(order_stage, "w[1]") == (
        0, "worker w1 is not there; once it starts, it takes workloads\n"
    )  # fmt: skip

    assert notes(order_stage) == {}


def test_a_note_that_cannot_be_read_goes_as_well(order_stage: Console) -> None:
    order_stage.publish(order_stage.settings.names.worker_hold("etl", "x1"), b"\xc1")

    assert undrain(order_stage, "x1")[0] == 0

    assert notes(order_stage) == {}


def test_the_note_of_another_queues_worker_stays(order_stage: Console) -> None:
    for at, queue in ((1.0, "default"), (1.0, "gpu"), (2.0, "etl")):
        body = encode(Drain(worker="w9", by="ann", at=at))
        order_stage.publish(order_stage.settings.names.worker_hold(queue, "w9"), body)

    assert undrain(order_stage, "w9", "gpu")[0] == 0

    assert set(notes(order_stage)) == {"etl.w9"}


def test_who_looks_sees_a_drain(console: Console) -> None:
    console.run(commands.setup)
    console.announce("w 1", "default", **BY)
    console.announce("w2", "default", draining=True)

    _, output = console.run(commands.workers_list, output="json")
    first, second = json.loads(output)
    shown = [(row["state"], row["drained_by"], row["reason"]) for row in (first, second)]
    assert shown == [("draining", "ann", "new driver"), ("draining", None, None)]
    code, output = console.run(commands.check, output="json")
    rows = {row["check"]: row for row in json.loads(output)}
    assert code == 1
    assert rows["worker w 1"]["status"] == "draining"
    assert rows["worker w 1"]["details"] == (
        "1 running, drained by ann (new driver); to let it take workloads again: "
        "airflow nats workers undrain 'w 1'"
    )
    assert "worker w2" not in rows


# --wait


@pytest.fixture
def busy(order_stage: Console, pretend: Any, monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setattr(idleness, "IDLE_LOOK_SECONDS", 0.01)
    pretend({"w1": outcome(), "w2": outcome()})
    for name in ("w1", "w2"):
        order_stage.announce(name, "default", "gpu", running=2, **BY)
    return order_stage


def shrinking(console: Console, monkeypatch: pytest.MonkeyPatch, *counts: int) -> None:
    """Have w1 run less from look to look."""
    left = list(counts)

    async def seen(broker: Broker, *args: Any) -> Any:
        if left:
            changes = {"running": left.pop(0), **BY}
            await asyncio.to_thread(console.announce, "w1", "default", "gpu", **changes)
        return await seen_workers(broker, *args)

    monkeypatch.setattr(idleness, "seen_workers", seen)


def test_a_wait_ends_once_nothing_runs(busy: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    shrinking(busy, monkeypatch, 2, 1, 0)

    code, (_, *lines) = drain(busy, "w1", wait=True)

    assert (code, busy.error) == (0, "")
    assert lines == [
        "worker w1: 2 running", "worker w1: 1 running", "worker w1 runs nothing any more"
    ]  # fmt: skip


def test_a_wait_ends_with_its_time(busy: Console) -> None:
    code, lines = drain(busy, "w*", wait=True, timeout=0.001)

    assert code == 1
    rest = "w1 (2 running), w2 (2 running)"
    assert lines[-1] == f"the time is over; no longer waiting for {rest}; they stay drained"
    assert set(notes(busy)) == {"default.w1", "default.w2", "gpu.w1", "gpu.w2"}


def test_a_wait_that_is_interrupted_says_what_it_stops_waiting_for(
    busy: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(commands, "say_now", said.append)
    # A shell starts what runs in the background deaf to it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> None:
        block_until(lambda: len(said) > 1, 20, "the first look")
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()

    try:
        code, _ = drain(busy, "w*", wait=True)
        interrupting.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 1
    rest = "w1 (2 running), w2 (2 running)"
    assert said[-1] == f"no longer waiting for {rest}; they stay drained, and what runs goes on"


def test_a_worker_that_refuses_is_not_waited_for(order_stage: Console, pretend: Any) -> None:
    pretend({"w1": outcome(refusal="no")})

    assert drain(order_stage, "w1", wait=True) == (1, [])

    assert order_stage.error == "error: worker w1 refuses: no\n"

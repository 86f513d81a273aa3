"""A worker's login writes escape sequences into every text that a terminal may show."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import unicodedata
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.cli import commands
from nats_executor.wire import messages
from nats_executor.wire.messages import Drain, Hold, Obeyed, Presence, ShutDown, encode
from nats_executor.wire.names import Verb
from nats_executor.wire.queue_names import as_text
from nats_worker.log_lines import Text
from tests.cli.conftest import Console
from tests.support.user_stage import NAMES, PASSWORD, UserStage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats_executor.broker.port import Broker

pytestmark = pytest.mark.integration

# Control characters, those of eight bits as well, what turns a line around or hides, line ends.
UNSEEN = "".join(
    c for c in map(chr, range(0x11000)) if unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"}
)
EVIL = f"\x1b]0;owned\x07\x1b[2J\x9b31m{UNSEEN}\nworker good running"
# What each text of a worker's is shown by; a new one belongs here.
TEXTS = {
    Presence: {
        "worker", "name", "host", "queues", "version", "paused", "lacks", "drained_by",
        "drain_reason", "airflow", "python",
    },
    Hold: {"queue", "by", "reason"},
    # A worker reads it and tells of it in its record.
    Drain: {"worker", "by", "reason"},
    # Only a worker's log shows it: see `test_shut_downs.py`.
    ShutDown: {"by", "reason"},
    Obeyed: {"queues", "refusal"},
}  # fmt: skip
# They reach no command: the database and the page get them through `presentable`.
UNSHOWN = {"Report", "Workload"}


def unseen(text: str) -> str:
    return "".join(sorted({c for c in text if not (c.isprintable() or c == "\n")}))


def record(**changes: Any) -> Presence:
    harmless = Presence(
        worker="w1.1", name="w1", host="h", pid=7, queues=["a"], concurrency=4, running=1,
        draining=False, started_at=0.0, at=0.0, version="0.1",
    )  # fmt: skip
    return replace(harmless, **changes)


def evil_record(field: str) -> Presence:
    return record(**{field: [EVIL, "a"] if field in {"queues", "lacks"} else EVIL})


@pytest.fixture
def console(
    user_stage: UserStage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Console:
    console = Console(monkeypatch, capsys, user_stage.settings("admin"))
    console.configure(user="admin", password=PASSWORD, replicas=len(user_stage.servers))
    return console


def announce(user_stage: UserStage, presence: Presence) -> None:
    subject = NAMES.presence("a", presence.name)
    user_stage.ask("worker_a", lambda broker: broker.publish(subject, encode(presence)))


def test_every_text_is_in_the_table() -> None:
    """A new message, or a new text in one, is fed to the commands below as well."""
    kinds = [
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__")
    ]
    texts = {
        kind: {f.name for f in fields(kind) if str(f.type) in {"str", "list[str]"}}
        for kind in kinds
        if kind.__name__ not in UNSHOWN
    }

    assert texts == TEXTS


@pytest.mark.parametrize("output", ["table", "plain", "json", "yaml"])
@pytest.mark.parametrize("field", sorted(TEXTS[Presence]))
def test_a_record_gives_a_terminal_no_orders(
    user_stage: UserStage, console: Console, field: str, output: str
) -> None:
    announce(user_stage, evil_record(field))

    for command in (commands.workers_list, commands.check, commands.queues_list):
        _, printed = console.run(command, output=output)

        assert printed
        assert unseen(printed + console.error) == ""
        if output == "plain":
            # A row of its own would be another worker's.
            assert "\nworker good running" not in printed
            assert "\nworker good" not in printed


@pytest.mark.parametrize("output", ["table", "plain", "json", "yaml"])
@pytest.mark.parametrize("field", ["by", "reason"])
def test_what_is_said_of_a_pause_gives_a_terminal_no_orders(
    user_stage: UserStage, console: Console, field: str, output: str
) -> None:
    """Another operator wrote it; its queue is that of its key, or it does not count."""
    until = 4e9
    harmless = Hold(queue="a", by="ann", at=0.0, until=until, reason="why")
    evil = {"by": replace(harmless, by=EVIL), "reason": replace(harmless, reason=EVIL)}[field]

    async def pause(broker: Broker, until: float) -> None:
        await broker.publish(NAMES.queue_hold("a"), encode(evil))
        for info in await broker.consumer_infos(NAMES.tasks_stream):
            await broker.pause_consumer(NAMES.tasks_stream, info.name, until)

    user_stage.ask("operator", lambda broker: pause(broker, until))
    for command in (commands.check, commands.queues_list):
        _, printed = console.run(command, output=output)

        assert "worker good running" in " ".join(printed.split())  # YAML folds long lines
        assert unseen(printed + console.error) == ""
        if output == "plain":
            assert "\nworker good running" not in printed
    user_stage.ask("operator", lambda broker: pause(broker, 0.0))


@pytest.mark.parametrize("field", sorted(TEXTS[Obeyed]))
def test_an_answer_to_an_order_gives_a_terminal_no_orders(
    user_stage: UserStage, console: Console, field: str
) -> None:
    announce(user_stage, record())
    outcome = Obeyed(queues=["a"], concurrency=2, running=0, is_changed=True)
    changes: dict[str, Any] = {field: [EVIL] if field == "queues" else EVIL}
    evil = replace(outcome, **changes)

    with answering(user_stage, NAMES.control("w1.1", Verb.SET_CONCURRENCY), encode(evil)):
        _, said = console.run(commands.workers_set_concurrency, workers="w1", concurrency=2)

    said += console.error
    assert "worker w1" in said
    assert unseen(said) == ""


def test_a_worker_that_is_gone_gives_a_terminal_no_orders(
    user_stage: UserStage, console: Console
) -> None:
    announce(user_stage, evil_record("version"))

    code, _ = console.run(commands.workers_set_concurrency, workers="w1", concurrency=2)

    assert code == 1
    assert "cannot change while it runs" in console.error
    assert unseen(console.error) == ""


def test_a_queue_of_any_name_gives_a_terminal_no_orders(
    user_stage: UserStage, console: Console
) -> None:
    """A user that may make consumers names queues."""
    evil = as_text([EVIL.replace("\n", "")])

    for command in (commands.setup, commands.check, commands.queues_list):
        _, printed = console.run(command, queues=evil)

        assert printed
        assert unseen(printed + console.error) == ""
    user_stage.clear()


def test_a_fault_gives_a_terminal_no_orders(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(EVIL)

    monkeypatch.setattr(commands, "ask", fail)

    code, _ = console.run(commands.check)

    assert code == 1
    assert "RuntimeError" in console.error
    assert unseen(console.error.replace("\t", "")) == ""


def test_a_line_of_a_workers_log_is_one_line() -> None:
    fault = RuntimeError(EVIL)
    trace = RuntimeError, fault, None
    plain = logging.LogRecord("nats_worker.x", logging.INFO, "x.py", 1, "a %s", (EVIL,), None)
    failed = logging.LogRecord("nats_worker.x", logging.INFO, "x.py", 1, "a", (), trace)

    line, lines = Text().format(plain), Text().format(failed)

    assert unseen(line + lines.replace("\t", "")) == ""
    assert "\n" not in line


def test_what_ends_a_worker_gives_a_terminal_no_orders() -> None:
    program = (
        "import ast, sys\n"
        "from nats_worker import log_lines\n"
        "log_lines.set_up(is_verbose=False, is_json=False, file=None)\n"
        "raise RuntimeError(ast.literal_eval(sys.stdin.read()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=ascii(EVIL),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "RuntimeError" in done.stderr
    assert unseen(done.stderr.replace("\t", "")) == ""


@contextmanager
def answering(user_stage: UserStage, subject: str, body: bytes) -> Iterator[None]:
    """Be a worker that answers one order."""
    with user_stage.raw("worker_a") as worker:
        assert worker.subscribe(subject) == ""

        def answer() -> None:
            worker.publish(worker.next().reply, body)

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()

"""The `airflow nats` command line itself: its parser, its exit codes, its streams."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.cli.cli_config import ActionCommand, GroupCommand
from rich.markup import escape

from nats_executor.cli import commands
from nats_executor.cli.defining import unmarked
from nats_executor.cli.definitions import get_nats_cli_commands
from nats_executor.cli.worker_definitions import WORKER_ARGS, WORKER_EPILOG
from nats_worker.cli import main
from tests.cli.conftest import WELL

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from airflow.cli.cli_config import CLICommand

    from tests.cli.conftest import Console


BRACKETED = re.compile(r"\[[a-z_]+\]")

# What some commands need.
VALUES = {
    "accounts": ("w=q",),
    "auth": ("--user", "w"),
    "purge": ("results",),
    "queues delete": ("gpu", "--yes"),
    "queues purge": ("gpu", "--yes"),
    "set-concurrency": ("w1", "4"),
    "add-queue": ("w1", "gpu"),
    "remove-queue": ("w1", "gpu"),
    "pause": ("gpu", "--for", "2h"),
    "resume": ("gpu",),
    "dead-letters show": ("17",),
    "dead-letters retry": ("17", "18", "--dry-run"),
    "dead-letters purge": ("17", "--yes"),
    "peek": ("gpu",),
    "show": ("gpu",),
    "why": ("a_dag", "a_run", "t"),
    "workers show": ("w1",),
    "workers stop": ("w1", "--now"),
}


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    from airflow.cli import cli_parser

    return cli_parser.get_parser()


def shown_help(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str], *words: str
) -> str:
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["nats", *words, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        ("", ["worker", "setup", "check", "queues", "workers", "standalone", "demo"]),
        ("worker", ["airflow nats worker -q default,gpu -c 4", "--skip-serve-logs", "--daemon"]),
        ("worker", [" [nats_executor] worker_concurrency", "([core] multi_team)"]),
        ("worker", ["may go on for [nats_executor] drain_seconds"]),
        ("auth", ["[nats_executor] inbox_prefix of"]),
        ("setup", ["airflow nats setup --check", "--queues", "safe to repeat"]),
        ("standalone", ["without it [api] port, or that of the last start"]),
        ("demo", ["Airflow's UI; without it any free one\n"]),
        ("workers remove-queue", ["1  a worker did not serve it, refused"]),
        ("check", ["exit codes:\n  0  all is well\n  1", "airflow nats check -o json", "--output"]),
        ("queues list", ["List queues with their backlog", "--output"]),
        ("workers list", ["List workers with their load", "--output"]),
        ("auth", ["airflow nats auth --user scheduler --role scheduler", "--certificate"]),
        (
            "purge",
            ["airflow nats purge dead-letters --queue gpu", "1  you did not confirm", "--yes"],
        ),
        ("dead-letters list", ["airflow nats dead-letters list -q gpu --older-than 1d", "--limit"]),
        (
            "dead-letters show",
            ["airflow nats dead-letters show 17", "neither its body nor a token"],
        ),
        ("dead-letters retry", ["retry --dag etl --dry-run", "1  you did not confirm, or some"]),
        (
            "dead-letters purge",
            ["purge --older-than 2d --dry-run", "1  you did not confirm", "--yes"],
        ),
        ("accounts", ["airflow nats accounts worker-gpu=gpu worker-etl=default,etl"]),
        *[
            (f"workers {name}", [example, "lasts until the worker restarts", "exit codes:\n  0"])
            for name, example in (
                ("set-concurrency", "airflow nats workers set-concurrency etl-1 32"),
                ("add-queue", "airflow nats workers add-queue etl-1 backfill"),
                ("remove-queue", "airflow nats workers remove-queue etl-1 backfill"),
            )
        ],
    ],
)
def test_the_help(
    parser: argparse.ArgumentParser,
    capsys: pytest.CaptureFixture[str],
    words: str,
    texts: list[str],
) -> None:
    shown = shown_help(parser, capsys, *words.split())

    for text in texts:
        assert text in shown


def test_every_bracketed_word_of_the_help_is_printed(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    """Airflow shows help by rich, which takes what is in square brackets for markup."""
    found = set()
    for words, command in actions_of(get_nats_cli_commands()):
        texts = [command.help, command.epilog, *(arg.kwargs.get("help") for arg in command.args)]
        bracketed = {word for text in texts if text for word in BRACKETED.findall(str(text))}
        shown = shown_help(parser, capsys, *words)

        assert {word for word in bracketed if word not in shown} == set(), words
        assert "\\[" not in shown
        found |= bracketed

    assert {"[operators]", "[api]", "[core]", "[nats_executor]"} <= found


def test_every_bracketed_word_of_the_workers_own_help_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [WORKER_EPILOG, *(arg.kwargs.get("help") for arg in WORKER_ARGS)]
    bracketed = {word for text in texts if text for word in BRACKETED.findall(str(text))}
    monkeypatch.setattr(sys, "argv", ["nats-worker", "--help"])

    with pytest.raises(SystemExit):
        main()

    shown = capsys.readouterr().out
    assert bracketed >= {"[operators]", "[core]", "[nats_executor]"}
    assert {word for word in bracketed if word not in shown} == set()
    assert "\\[" not in shown


def test_an_escaped_text_is_the_one_of_rich() -> None:
    for text in ("[core] a", "\\[core] b", "[4] [A] [/x] [", "none"):
        assert unmarked(text) == escape(text)


def test_every_command_leads_to_its_function(parser: argparse.ArgumentParser) -> None:
    """The functions are imported when they are called; a wrong path would only show then."""
    for words, _ in actions_of(get_nats_cli_commands()):
        values = VALUES.get(" ".join(words)) or VALUES.get(words[-1], ())
        function = parser.parse_args(["nats", *words, *values]).func
        name = "_".join(words).replace("-", "_")
        assert callable(getattr(commands, name))
        assert function.__name__ == name or callable(function)


# What starts a long run says itself what it logs.
LONG = {"worker", "standalone", "demo"}


def test_every_function_of_a_command_is_decorated() -> None:
    """Without `command` an error is a traceback; without `quiet` log lines stand in its table."""
    folder = Path(str(commands.__file__)).parent
    trees = [ast.parse(path.read_text()) for path in folder.glob("*commands.py")]
    decorated = {
        node.name: [ast.unparse(decorator) for decorator in node.decorator_list]
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name in commands.__all__
    }
    expected = {name: ["command"] if name in LONG else ["command", "quiet"] for name in decorated}
    assert decorated == expected
    assert decorated.keys() == set(commands.__all__)


def actions_of(
    group: Iterable[CLICommand], words: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], ActionCommand]]:
    found: list[tuple[tuple[str, ...], ActionCommand]] = []
    for command in group:
        here = (*words, command.name) if command.name != "nats" else words
        if isinstance(command, GroupCommand):
            found += actions_of(command.subcommands, here)
        else:
            found.append((here, command))
    return found


# The worker's own name


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--help"], 0, "nats-worker -q default,gpu -c 4"),
        (["--help"], 0, "may go on for [nats_executor] drain_seconds"),
        (["--what"], 2, "unrecognized arguments: --what"),
        (["-c", "0"], 2, "argument -c/--concurrency"),
        (["-c", "many"], 2, "argument -c/--concurrency"),
    ],
)
def test_nats_worker(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["nats-worker", *args])

    with pytest.raises(SystemExit) as caught:
        main()

    printed = capsys.readouterr()
    assert caught.value.code == code
    assert message in (printed.err if code else printed.out)
    assert "usage: nats-worker" in printed.err + printed.out


def test_a_value_that_cannot_work_is_told_before_a_daemon_starts(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-P", "-m", "nats_worker", "--daemon", "--pid", str(tmp_path / "pid")],
        env=os.environ | {"AIRFLOW__NATS_EXECUTOR__REPLICAS": "two"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert shown.returncode == 2
    last = shown.stderr.strip().splitlines()[-1]
    assert last == "error: [nats_executor] replicas = 'two': write an integer, for example 3"
    assert "Traceback" not in shown.stderr
    assert not list(tmp_path.iterdir())


# Real processes


@pytest.mark.integration
def test_what_a_script_sees(console: Console, tmp_path: Path) -> None:
    """Nothing but the answer on stdout, and an exit code."""
    first = airflow(console, tmp_path, "setup", "--check")
    assert first.returncode == 1
    lines = first.stdout.splitlines()
    assert f"stream {console.settings.names.tasks_stream}: does not exist" in lines
    assert all(line.startswith(("stream ", "consumer ")) for line in lines), first.stdout

    console.run(commands.setup)
    second = airflow(console, tmp_path, "check", "-o", "json")

    assert second.returncode == WELL
    assert json.loads(second.stdout)[0]["check"] == "broker"


def airflow(console: Console, directory: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("airflow")), "nats", *args],
        env=os.environ | console.environment,
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )

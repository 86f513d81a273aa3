"""Which rows of a list are shown, in which order, and how often."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.cli import commands
from nats_executor.cli.durations import interval
from nats_executor.errors import ConfigError
from nats_executor.operations.listing import Choice, chosen
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Console

ROWS: list[dict[str, Any]] = [
    {"worker": "etl-1", "state": "running", "queues": ["default", "etl"], "until": None},
    {"worker": "etl-2", "state": "lost", "queues": [], "until": "b"},
    {"worker": "gpu", "state": "paused", "queues": ["gpu"], "until": "a"},
]


def names(choice: Choice) -> list[str]:
    return [row["worker"] for row in chosen(ROWS, choice)]


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        ({}, ["etl-1", "etl-2", "gpu"]),
        ({"worker": []}, ["etl-1", "etl-2", "gpu"]),
        ({"worker": ["etl-*"]}, ["etl-1", "etl-2"]),
        ({"worker": ["etl-?", "g*"]}, ["etl-1", "etl-2", "gpu"]),
        ({"worker": ["ETL-1"]}, []),
        ({"queues": ["etl"]}, ["etl-1"]),
        ({"queues": ["*"]}, ["etl-1", "gpu"]),
        ({"worker": ["etl-*"], "state": ["lost", "paused"]}, ["etl-2"]),
    ],
)
def test_a_row_is_shown_if_each_column_matches(
    patterns: dict[str, list[str]], found: list[str]
) -> None:
    assert names(Choice(patterns)) == found


@pytest.mark.parametrize(
    ("sort", "is_reversed", "found"),
    [
        (None, False, ["etl-1", "etl-2", "gpu"]),
        (None, True, ["gpu", "etl-2", "etl-1"]),
        ("state", False, ["etl-2", "gpu", "etl-1"]),
        ("state", True, ["etl-1", "gpu", "etl-2"]),
        ("until", False, ["gpu", "etl-2", "etl-1"]),
        ("until", True, ["etl-2", "gpu", "etl-1"]),  # what has no value is last here, too
    ],
)
def test_rows_are_sorted(sort: str | None, *, is_reversed: bool, found: list[str]) -> None:
    assert names(Choice({}, sort, is_reversed)) == found


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="'x': no such column; there are: worker, state, queues"):
        chosen(ROWS, Choice({}, "x"))
    assert chosen([], Choice({}, "x")) == []


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "nan", "inf", "3601", "2s"])
def test_what_is_no_number_of_seconds_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        interval(text)


def test_seconds_are_read() -> None:
    assert (interval("2"), interval("0.1"), interval("3600")) == (2.0, 0.1, 3600.0)


def test_lists_are_filtered_and_sorted(console: Console) -> None:
    console.run(commands.setup, queues="default,etl-1,etl-2")
    console.announce("w1", "etl-1")
    console.announce("w2", "etl-2", running=0)
    console.send("etl-2")

    def queues(**options: Any) -> list[str]:
        _, output = console.run(commands.queues_list, output="json", **options)
        return [row["queue"] for row in json.loads(output)]

    def workers(**options: Any) -> list[str]:
        _, output = console.run(commands.workers_list, output="json", **options)
        return [row["worker"] for row in json.loads(output)]

    assert queues(queue_patterns="etl-*", sort="pending", reverse=True) == ["etl-2", "etl-1"]
    assert queues(queue_patterns="none") == []
    assert workers(sort="running") == ["w2", "w1"]
    assert workers(queue_patterns="etl-1") == workers(worker_patterns="*1") == ["w1"]
    assert workers(state="lost,paused") == []
    assert console.run(commands.workers_list, sort="x") == (2, "")
    assert console.error.startswith("error: --sort 'x': no such column; there are: worker, state,")


@pytest.mark.parametrize("is_away", [False, True], ids=["there", "away for a while"])
def test_a_list_is_shown_until_ctrl_c(console: Console, tmp_path: Path, *, is_away: bool) -> None:
    """Over one connection, and also where NATS is away for a while."""
    console.run(commands.setup)
    words = ["nats", "queues", "list", "--watch", "0.1", "-o", "json"]
    output, errors = tmp_path / "out", tmp_path / "err"
    environment = os.environ | console.environment
    if is_away:
        environment["AIRFLOW__NATS_EXECUTOR__SERVERS"] = "nats://127.0.0.1:1"
        environment["AIRFLOW__NATS_EXECUTOR__CONNECT_TIMEOUT_SECONDS"] = "0.2"
    with output.open("w") as out, errors.open("w") as err:
        # A shell starts what runs in the background deaf to Ctrl-C, and children inherit that.
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", *words], env=environment, stdout=out, stderr=err
            )
        finally:
            signal.signal(signal.SIGINT, before)
    try:
        shown = errors if is_away else output
        word = "error: cannot reach NATS" if is_away else '"queue": "default"'
        block_until(lambda: shown.read_text().count(word) >= 3, 60, "three looks")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in errors.read_text()
    if not is_away:  # the first look has no rate
        looks = output.read_text()
        assert 0 < looks.index('"in_per_s": null') < looks.index('"in_per_s": 0.0')

"""A dead component's last lines; tracebacks are Python's, SQLAlchemy's and rich's own."""

from __future__ import annotations

import io
import sys
import traceback
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel
from rich.console import Console
from rich.traceback import Traceback
from sqlalchemy import create_engine, text

from nats_executor.local.last_words import last_words
from nats_executor.local.process import Process
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOGGED = "2026-11-30T01:13:01.704578Z [error    ] Exception when executing Job [x] loc=x.py:1"
AFTER = "2026-11-30T01:13:01.863910Z [info     ] Exited execute loop [airflow.jobs.x] loc=x.py:2"
REFUSED = "2026-11-30T01:13:02.863910Z [error    ] port 8080 is in use [x] loc=x.py:2"
UNIQUE = "(sqlite3.IntegrityError) UNIQUE constraint failed: t.a"


class Port(BaseModel):
    number: int


def database() -> None:
    """Break a rule of a table: SQLAlchemy tells the statement, the values and a page to read."""
    with create_engine("sqlite://").begin() as connection:
        connection.execute(text("CREATE TABLE t (a INTEGER UNIQUE)"))
        for _ in range(2):
            connection.execute(text("INSERT INTO t VALUES (:a)"), {"a": "error " * 50})


def chained() -> None:
    try:
        database()
    except Exception as exc:
        raise RuntimeError("cannot go on\nrefused by: the database") from exc


def while_handling() -> None:
    try:
        {"a": 1}["cannot"]
    except KeyError:
        raise StopAsyncIteration("nothing left") from None


def group() -> None:
    raise ExceptionGroup("two parts", [KeyError("first"), ValueError("the last part\nnot found")])


def validated() -> None:
    Port.model_validate({"number": "none"})


def noted() -> None:
    exc = LookupError()
    exc.add_note("cannot be found in the error log")
    raise exc


def misspelt() -> None:
    compile("(", "errors.py", "exec")


def caught(raising: Callable[[], None]) -> Exception:
    try:
        raising()
    except Exception as exc:  # noqa: BLE001 - any is a case here
        return exc
    raise AssertionError


def plain(raising: Callable[[], None]) -> str:
    return "".join(traceback.format_exception(caught(raising)))


def rich(raising: Callable[[], None]) -> str:
    exc = caught(raising)
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    console.print(Traceback.from_exception(type(exc), exc, exc.__traceback__, show_locals=True))
    written = console.file
    assert isinstance(written, io.StringIO)
    return written.getvalue()


@pytest.mark.parametrize("written", [plain, rich])
@pytest.mark.parametrize(
    ("raising", "expected"),
    [
        (database, f"IntegrityError: {UNIQUE}"),
        (chained, "RuntimeError: cannot go on"),
        (while_handling, "StopAsyncIteration: nothing left"),
        (validated, "ValidationError: 1 validation error for Port"),
        (misspelt, "SyntaxError: '(' was never closed"),
    ],
)
def test_an_exception_is_told_by_its_name(
    written: Callable[[Callable[[], None]], str], raising: Callable[[], None], expected: str
) -> None:
    log = f"{LOGGED}\n{written(raising)}\n{AFTER}\n"

    words = last_words(log)

    # Python's own have the module in front.
    assert words.removeprefix(words.split(":")[0].rpartition(".")[0] + ".") == expected


@pytest.mark.parametrize(
    ("raising", "expected"), [(noted, "LookupError"), (group, "ValueError: the last part")]
)
def test_of_a_group_the_last_part_is_told_and_a_note_is_not(
    raising: Callable[[], None], expected: str
) -> None:
    assert last_words(f"{LOGGED}\n{plain(raising)}{AFTER}\n") == expected


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", ""),
        ("all is well\nbye\n", "bye"),
        (f"{plain(database)}{REFUSED}\n{AFTER}", "[error ] port 8080 is in use [x] loc=x.py:2"),
        (f"{plain(database)}error: no such queue\n", "error: no such queue"),
        (f"{REFUSED}\n{plain(database)}", f"sqlalchemy.exc.IntegrityError: {UNIQUE}"),
        (f"{plain(database)}{plain(chained)}", "RuntimeError: cannot go on"),
        ("nats-server: /x.conf:3:1: Parse error\n", "nats-server: /x.conf:3:1: Parse error"),
    ],
)
def test_what_came_last_is_told(log: str, expected: str) -> None:
    assert last_words(log) == expected


@pytest.mark.integration
def test_a_process_that_dies_of_a_database_error_tells_which(tmp_path: Path) -> None:
    script = f"from {__name__} import database; database()"
    process = Process("scheduler", [sys.executable, "-c", script], log=tmp_path / "scheduler.log")
    process.start()
    try:
        block_until(lambda: process.exit_code is not None, 60, "its end")
    finally:
        process.stop()

    assert "Background on this error" in process.log.read_text().splitlines()[-1]
    assert str(process.failure()) == (
        f"scheduler ended with exit code 1: sqlalchemy.exc.IntegrityError: {UNIQUE} "
        f"(log: {process.log})"
    )

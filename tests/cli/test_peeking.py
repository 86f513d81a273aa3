"""The tasks that wait in a queue, from a real nats-server and Airflow's real tables."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from nats_executor.cli import commands
from nats_executor.operations import database
from nats_executor.operations.peeking import QueuedTask, waiting_rows
from tests.scheduler.conftest import airflow_database
from tests.scheduler.table import table_fixture
from tests.support.fixtures import settings_for

if TYPE_CHECKING:
    from tests.cli.conftest import Console
    from tests.scheduler.table import Rows

__all__ = ["airflow_database", "table_fixture"]

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
SETTINGS = settings_for("nats://nats-1:4222", priority_bands="10")


def queued(name: str, *, ago: float = 60.0, priority: int = 1, **more: Any) -> QueuedTask:
    values: dict[str, Any] = {
        "dispatch_id": name, "dag_id": "a_dag", "run_id": "a_run", "task_id": name,
        "map_index": -1, "try_number": 1, "priority_weight": priority,
        "queued_at": NOW - timedelta(seconds=ago),
    }  # fmt: skip
    return QueuedTask(**(values | more))


def rows_of(*tasks: QueuedTask, there: set[str] | None = None, limit: int = 9) -> list[Any]:
    dispatches = {task.dispatch_id for task in tasks} if there is None else there
    return waiting_rows(tasks, dispatches, SETTINGS, "gpu", now=NOW, limit=limit)


def test_the_highest_band_is_first_and_in_it_what_was_queued_first() -> None:
    rows = rows_of(
        queued("c", ago=10), queued("b", ago=20), queued("urgent", ago=5, priority=10),
        queued("older", ago=9, priority=99),
    )  # fmt: skip

    assert [(row["position"], row["task"], row["band"]) for row in rows] == [
        (1, "older", 1), (2, "urgent", 1), (3, "b", 0), (4, "c", 0),
    ]  # fmt: skip


def test_a_row_is_this() -> None:
    [row] = rows_of(queued("t", ago=90.9, map_index=3, try_number=2))

    assert row == {
        "position": 1, "dag": "a_dag", "run": "a_run", "task": "t", "map_index": 3, "try": 2,
        "waits_seconds": 90, "priority": 1, "band": 0, "dispatch_id": "t",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "column", "value"),
    [
        ({"map_index": -1}, "map_index", None),
        ({"map_index": 0}, "map_index", 0),
        ({"queued_at": None}, "waits_seconds", None),
        ({"queued_at": NOW + timedelta(seconds=5)}, "waits_seconds", 0),  # another clock
    ],
)
def test_a_value_that_is_not_there_is_none(
    changes: dict[str, Any], column: str, value: int | None
) -> None:
    [row] = rows_of(queued("t")._replace(**changes))

    assert row[column] == value


def test_what_nats_does_not_have_is_not_listed() -> None:
    """It is still in the scheduler, or a worker has just ended it."""
    assert [row["task"] for row in rows_of(queued("a"), queued("b"), there={"b"})] == ["b"]


def test_there_is_an_end_to_the_list() -> None:
    rows = rows_of(*(queued(f"t{number}", ago=9 - number) for number in range(5)), limit=2)

    assert [row["task"] for row in rows] == ["t0", "t1"]


def peeked(console: Console, queue: str, **more: Any) -> tuple[int, str]:
    given = {"limit": 20, "output": "json"} | more
    return console.run(commands.queues_peek, queue=queue, **given)


def test_the_tasks_of_a_queue_are_listed(console: Console, table: Rows) -> None:
    console.run(commands.setup, queues="default,gpu")
    for name, queue in (("first", "gpu"), ("second", "gpu"), ("elsewhere", "default")):
        console.send(queue, table.add_task(name, queue=queue)["dispatch_id"])
    table.add_task("unsent", queue="gpu")
    runs = table.add_task("runs", queue="gpu", state="running")
    console.send("gpu", runs["dispatch_id"])

    code, output = peeked(console, "gpu")

    assert code == 0
    assert [(row["task"], row["run"], row["try"]) for row in json.loads(output)] == [
        ("first", "a_run", 1), ("second", "a_run", 1),
    ]  # fmt: skip
    assert console.error == ""


def test_an_unknown_queue_is_refused(console: Console) -> None:
    console.run(commands.setup)

    assert peeked(console, "gpu") == (2, "")
    assert console.error == "error: no queue is named 'gpu'; there are: default\n"


def test_a_database_that_is_away_is_one_line(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.run(commands.setup)

    def away(**_: object) -> Any:
        return sessionmaker(create_engine("sqlite:////nowhere/airflow.db"))()

    monkeypatch.setattr(database, "create_session", away)

    assert peeked(console, "default") == (2, "")
    [line] = console.error.splitlines()
    assert line.startswith("error: Airflow's database does not answer: ")
    assert line.endswith(
        "unable to open database file; [database] sql_alchemy_conn has to be the scheduler's here"
    )

"""`airflow nats check` with demands, workers that are forgotten, and queues without a consumer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.cli import commands
from nats_executor.errors import ConfigError
from nats_executor.fleet.presences import Seen
from nats_executor.fleet.workers import served_queues
from nats_executor.operations.demands import Demands, demand_rows, demands_in, with_demands
from nats_executor.operations.survey import Survey, check_rows, worker_rows
from nats_executor.wire.messages import Presence
from tests.cli.conftest import WELL
from tests.support.fixtures import settings_for

if TYPE_CHECKING:
    from tests.cli.conftest import Console

SETTINGS = settings_for("nats://nats-1:4222")


def seen(name: str, *queues: str, age: float = 0.0, **changes: Any) -> Seen:
    facts: dict[str, Any] = {
        "worker": f"{name}.1", "name": name, "host": "h", "pid": 7, "queues": list(queues),
        "concurrency": 4, "running": 1, "draining": False, "started_at": 0.0, "at": 0.0,
        "version": "0.1",
    }  # fmt: skip
    return Seen(Presence(**(facts | changes)), age)


WORKERS = [
    seen("w1", "default", "gpu"),
    seen("w2", "default", paused="no memory"),
    seen("w3", "etl", draining=True),
    seen("w4", "etl", age=20.0),
]


@pytest.mark.parametrize(
    ("queues", "least", "statuses"),
    [
        ((), None, []),
        ((), 2, ["ok"]),
        ((), 3, ["too few"]),
        (("default", "gpu", "etl", "none"), None, ["ok", "ok", "unserved", "unserved"]),
        (("default", "gpu", "etl"), 2, ["ok", "too few", "unserved"]),
    ],
)
def test_what_is_demanded(queues: tuple[str, ...], least: int | None, statuses: list[str]) -> None:
    rows = demand_rows(Demands(queues, least), WORKERS, SETTINGS)

    assert [row["status"] for row in rows] == statuses


def test_two_records_of_one_worker_are_not_two_workers() -> None:
    records = [seen("w1", "default"), seen("w1", "default", running=2)]

    (row,) = demand_rows(Demands(("default",), 2), records, SETTINGS)
    (in_all,) = demand_rows(Demands((), 2), records, SETTINGS)

    assert (row["status"], in_all["status"]) == ("too few", "too few")
    assert in_all["details"] == "1 of at least 2 workers"


@pytest.mark.parametrize("queues", ["", " , "])
def test_a_script_whose_variable_is_empty_demands_something(queues: str) -> None:
    with pytest.raises(ConfigError, match="name a queue, or leave --queues out"):
        demands_in(queues, None)
    assert demands_in('"a,b",c', 2) == Demands(("a,b", "c"), 2)
    assert demands_in(None, None) == Demands()


def row(what: str, status: str, details: str = "") -> dict[str, str]:
    return {"check": what, "status": status, "details": details}


@pytest.mark.parametrize(
    ("rows", "demanded", "shown"),
    [
        ([], [row("q", "ok")], [row("q", "ok")]),
        ([row("q", "ok", "1")], [row("q", "ok", "2")], [row("q", "ok", "1")]),
        ([row("q", "ok")], [row("q", "unserved")], [row("q", "unserved")]),
        ([row("q", "unserved", "1")], [row("q", "unserved", "2")], [row("q", "unserved", "1")]),
        ([row("q", "paused")], [row("q", "too few")], [row("q", "paused"), row("q", "too few")]),
        ([row("q", "paused")], [row("q", "ok")], [row("q", "paused")]),
    ],
)
def test_a_demand_and_a_finding_of_one_queue(
    rows: list[Any], demanded: list[Any], shown: list[Any]
) -> None:
    assert with_demands(rows, demanded) == shown


@pytest.mark.parametrize(("age", "is_named"), [(15.5, True), (315.0, True), (316.0, False)])
def test_check_forgets_a_lost_worker_and_the_list_does_not(age: float, is_named: bool) -> None:
    survey = Survey([], [], [seen("w1", "default", age=age)])

    named = [row["status"] for row in check_rows(survey, SETTINGS) if row["check"] == "worker w1"]

    assert named == (["lost"] if is_named else [])
    assert [row["state"] for row in worker_rows(survey, SETTINGS)] == ["lost"]


def test_the_queues_of_workers_that_take_workloads_are_served() -> None:
    assert served_queues(WORKERS, SETTINGS) == {"default", "gpu"}


# On a real server


@pytest.mark.integration
def test_check_with_demands(console: Console) -> None:
    console.run(commands.setup, queues="default")
    console.announce("w1", "default", "gpu")

    def statuses(**args: Any) -> dict[str, str]:
        code, output = console.run(commands.check, output="json", **args)
        rows = {row["check"]: row["status"] for row in json.loads(output)}
        assert code == int(any(status != "ok" for status in rows.values()))
        return rows

    assert console.run(commands.check, queues="default,gpu", min_workers=1)[0] == WELL
    assert statuses(queues="default,gpu")["queue gpu"] == "ok"
    assert statuses(queues="gpo")["queue gpo"] == "unserved"
    assert statuses(queues="default", min_workers=2)["queue default"] == "too few"
    assert statuses(min_workers=2)["workers"] == "too few"
    assert console.run(commands.check, queues="") == (2, "")


@pytest.mark.integration
def test_a_queue_is_listed_before_its_first_task(console: Console) -> None:
    console.run(commands.setup, queues="z")
    console.configure(priority_bands="5")
    console.announce("w1", "gpu")

    code, output = console.run(commands.queues_list, output="json")

    new, old = json.loads(output)
    assert (code, new["queue"], old["queue"]) == (0, "gpu", "z")
    assert (new["workers"], new["slots"], new["pending"]) == (1, 4, 0)
    assert new["pending_by_band"] == [0, 0]
    assert new["paused_until"] is None
    code, output = console.run(commands.queues_show, queue="gpu", output="json")
    assert code == 0
    assert '"queue": "gpu"' in output

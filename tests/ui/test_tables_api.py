"""What the page's three tables are given: pages, filters, states, and what is wrong."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.cli import commands
from nats_executor.fleet import histories
from nats_executor.operations import letters as letters_module
from nats_executor.operations import survey
from nats_executor.ui import asking
from nats_executor.ui.tables import hour_rows, last_full_minute
from nats_executor.wire.bounds import packed
from nats_executor.wire.history import Minute, extended
from nats_executor.wire.messages import Kind, Workload, as_map, encode
from tests.support.fixtures import settings_for
from tests.support.user_stage import PASSWORD, one_account_config

if TYPE_CHECKING:
    from nats_executor.broker.port import Broker
    from nats_executor.wire.names import Names
    from tests.support.fixtures import MakeNatsServer
    from tests.ui.conftest import PageStage

pytestmark = pytest.mark.integration

TABLES = ("queues", "workers", "dead-letters")


def bury(page: PageStage, *dispatches: str, queue: str = "a", dag: str = "daily") -> None:
    names = page.console.settings.names
    for dispatch in dispatches:
        instance = {"dag_id": dag, "run_id": "r 1", "task_id": "load", "id": dispatch}
        workload = Workload(
            dispatch_id=dispatch, queue=queue, kind=Kind.TASK, body={"ti": instance}, key=[],
            sender="test",
        )  # fmt: skip
        page.console.publish(names.dead_letter(queue, dispatch), encode(workload))


def column(answer: dict[str, Any], name: str) -> list[Any]:
    return [row[name] for row in answer["rows"]]


# Who may look


@pytest.mark.parametrize("path", [*TABLES, "me"])
def test_without_a_login_nothing_is_shown(page: PageStage, path: str) -> None:
    assert page.ask(path, None).status_code == 401


@pytest.mark.parametrize("role", ["viewer", "user", "op", "admin"])
def test_every_role_of_airflow_may_look(page: PageStage, role: str) -> None:
    for path in TABLES:
        assert page.look(path, role)["trouble"] is None


@pytest.mark.parametrize(
    ("role", "may"), [("viewer", False), ("user", False), ("op", True), ("admin", True)]
)
def test_only_who_may_order_is_shown_how(page: PageStage, role: str, may: bool) -> None:
    me = page.look("me", role)

    assert me["name"] == f"ann-{role}"
    assert bool(me["actions"]) is may


# Queues


def test_queues_with_their_states(page: PageStage) -> None:
    page.console.run(commands.setup, queues="c,d")
    page.console.announce("w1", "a")
    page.console.send("b")
    page.console.send("c")
    page.ordered("queues pause", targets=["c"], seconds=60)

    answer = page.look("queues")

    states = dict(zip(column(answer, "queue"), column(answer, "state"), strict=True))
    assert states == {"a": "served", "b": "unserved", "c": "paused", "d": "idle"}
    assert answer["states"] == {"served": 1, "unserved": 1, "paused": 1, "idle": 1}
    assert (answer["found"], answer["total"]) == (4, 4)


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({"queue": "etl"}, ["etl-1", "etl-2", "my-etl"]),
        ({"queue": "etl-?"}, ["etl-1", "etl-2"]),
        ({"state": "served"}, ["etl-1"]),
        ({"sort": "pending", "reverse": True, "limit": 1}, ["gpu"]),
        ({"sort": "queue", "reverse": True}, ["my-etl", "gpu", "etl-2", "etl-1"]),
        ({"limit": 2}, ["etl-1", "etl-2"]),
        ({"limit": 2, "offset": 2}, ["gpu", "my-etl"]),
        ({"offset": 9}, []),
    ],
)
def test_filters_order_and_pages(
    bare_page: PageStage, params: dict[str, Any], found: list[str]
) -> None:
    bare_page.console.run(commands.setup, queues="etl-1,etl-2,my-etl,gpu")
    bare_page.console.announce("w1", "etl-1")
    bare_page.console.send("gpu")

    assert column(bare_page.look("queues", **params), "queue") == found


@pytest.mark.parametrize(
    "params",
    [{"limit": 201}, {"limit": 0}, {"offset": -1}, {"queue": "x" * 501}, {"sort": "colour"}],
)
def test_more_than_a_page_and_other_columns_are_refused(
    page: PageStage, params: dict[str, Any]
) -> None:
    answer = page.ask("queues", **params)

    assert answer.status_code == 422


# Workers


def test_workers(page: PageStage) -> None:
    page.console.announce("w1", "a", "b")
    page.console.announce("w2", "a", draining=True, drained_by="ann", drain_reason="new kernel")
    page.console.announce("gpu", "gpu")

    answer = page.look("workers")
    assert column(answer, "worker") == ["gpu", "w1", "w2"]
    assert column(answer, "state") == ["running", "running", "draining"]
    assert answer["rows"][2]["reason"] == "new kernel"
    assert column(page.look("workers", queue="a"), "worker") == ["w1", "w2"]
    assert column(page.look("workers", worker="w", state="draining"), "worker") == ["w2"]


# Dead letters


def test_dead_letters_page_by_page(page: PageStage) -> None:
    bury(page, *(f"d{number}" for number in range(5)))

    first = page.look("dead-letters", limit=2)
    second = page.look("dead-letters", limit=2, before=first["older"])
    third = page.look("dead-letters", limit=2, before=second["older"])

    pages = [column(answer, "sequence") for answer in (first, second, third)]
    assert pages == [[5, 4], [3, 2], [1]]
    assert (first["total"], third["older"]) == (5, None)
    assert first["rows"][0]["dag"] == "daily"


def test_dead_letters_of_a_dag_and_a_queue(page: PageStage) -> None:
    bury(page, "d1", queue="a", dag="daily")
    bury(page, "d2", queue="b", dag="daily")
    bury(page, "d3", queue="b", dag="hourly")

    assert column(page.look("dead-letters", dag="daily"), "sequence") == [2, 1]
    assert column(page.look("dead-letters", queue="b"), "sequence") == [3, 2]
    assert column(page.look("dead-letters", queue="b", dag="daily"), "sequence") == [2]


def test_a_page_of_dead_letters_is_read_again_only_when_there_are_others(
    page: PageStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[None] = []
    real = letters_module.letters_page

    async def counted(*args: Any, **kwargs: Any) -> Any:
        read.append(None)
        return await real(*args, **kwargs)

    monkeypatch.setattr(asking, "letters_page", counted)
    bury(page, "d1")
    for _ in range(3):
        asking.desks.here().forget()
        assert column(page.look("dead-letters"), "sequence") == [1]
    assert len(read) == 1

    bury(page, "d2")
    asking.desks.here().forget()
    assert column(page.look("dead-letters"), "sequence") == [2, 1]


# Nothing, and what is wrong


def test_an_empty_system(page: PageStage) -> None:
    for path in TABLES:
        answer = page.look(path)
        assert (answer["rows"] == [], answer["trouble"]) == (path != "queues", None)


def test_nothing_was_set_up(bare_page: PageStage) -> None:
    assert bare_page.look("queues")["rows"] == []
    answer = bare_page.look("dead-letters")
    assert answer["rows"] == []
    assert "run: airflow nats setup" in answer["trouble"]


def test_many_viewers_cost_one_survey(page: PageStage, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[None] = []
    real = survey.take_survey

    async def counted(broker: Broker, settings: Any) -> Any:
        taken.append(None)
        return await real(broker, settings)

    monkeypatch.setattr(asking, "take_survey", counted)
    monkeypatch.setattr(asking, "FRESH_SECONDS", 3600)
    with ThreadPoolExecutor(10) as viewers:
        found = list(viewers.map(page.look, ["queues", "workers"] * 20))

    assert all(answer["trouble"] is None for answer in found)
    assert len(taken) == 1


def test_nats_is_away(
    bare_page: PageStage, make_nats_server: MakeNatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page shows what it knew, how old that is, and what to do."""
    monkeypatch.setattr(asking, "FRESH_SECONDS", 0)
    server = make_nats_server()
    bare_page.console.configure(servers=server.url, subject_prefix="airflow")
    bare_page.console.settings = settings_for(server.url)
    bare_page.console.run(commands.setup, queues="a,b")
    assert bare_page.look("queues")["found"] == 2

    server.stop()
    answer = bare_page.look("queues")
    assert column(answer, "queue") == ["a", "b"]
    assert server.url.removeprefix("nats://") in answer["trouble"]
    assert answer["age_seconds"] > 0
    refused = bare_page.order("queues pause", targets=["a"])
    assert refused.status_code == 503
    assert server.url.removeprefix("nats://") in refused.json()["detail"]

    server.start()
    again = bare_page.look("queues")
    assert (again["trouble"], again["found"]) == (None, 2)


def test_nats_was_never_there(bare_page: PageStage, make_nats_server: MakeNatsServer) -> None:
    server = make_nats_server()
    server.stop()
    bare_page.console.configure(servers=server.url)

    for path in TABLES:
        answer = bare_page.look(path)
        assert (answer["rows"], answer["age_seconds"]) == ([], None)
        assert server.url.removeprefix("nats://") in answer["trouble"]


def test_the_user_of_the_api_server_lacks_a_permission(
    bare_page: PageStage, make_nats_server: MakeNatsServer
) -> None:
    server = make_nats_server(config=one_account_config())
    bare_page.console.configure(
        servers=server.url, user="triggerer", password=PASSWORD, subject_prefix="airflow"
    )

    answer = bare_page.look("queues")

    assert "does not allow" in answer["trouble"]
    assert "`airflow nats auth --user triggerer --role api-server`" in answer["trouble"]


# The last hour


def test_the_last_hour_of_a_queue(page: PageStage) -> None:
    page.console.run(commands.setup, queues="busy,idle")
    last = last_full_minute(time.time())
    history = None
    for minute, seen in [
        (last - 100, Minute(9, 9, 9, 9)),
        (last - 2, Minute(7, 4, 6000, 3)),
        (last, Minute(5, 0, 0, 1)),
    ]:
        history = extended(history, "busy", minute, seen)
    page.console.publish(page.console.settings.names.queue_history("busy"), packed(as_map(history)))

    rows = {row["queue"]: row for row in page.look("queues")["rows"]}
    minutes = page.look("queues/hour", queue="busy")["minutes"]

    assert {len(row["hour"]) for row in rows.values()} == {len(minutes)} == {60}
    # A minute may have gone by.
    assert [depth for depth in rows["busy"]["hour"] if depth] == [7, 5]
    assert set(rows["idle"]["hour"]) == {0}
    told = [(m["depth"], m["ended"], m["wait_seconds"]) for m in minutes if any(m.values())]
    assert [each for each in told if each != (0, 0, None)] == [(7, 3, 1.5), (5, 1, None)]
    assert 60 * last in {minute["at"] for minute in minutes}


def test_the_minutes_of_an_hour_end_with_the_last_full_one() -> None:
    assert last_full_minute(59.9) == -1
    assert last_full_minute(120.0) == 1
    minutes = hour_rows(extended(None, "q", 100, Minute(1, 0, 0, 0)), 100)
    assert [minute["at"] for minute in minutes] == [60 * number for number in range(41, 101)]
    assert [minute["depth"] for minute in minutes] == [0] * 59 + [1]


def test_a_look_at_the_last_hour_is_shown_for_twenty_seconds(
    page: PageStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    look = histories.seen_histories

    async def counted(broker: Broker, names: Names) -> Any:
        nonlocal looks
        looks += 1
        return await look(broker, names)

    monkeypatch.setattr(asking, "seen_histories", counted)
    monkeypatch.setattr(asking, "FRESH_SECONDS", 0.0)
    for _ in range(3):
        page.look("queues")

    assert looks == 1


# One worker


def test_a_worker_that_does_not_tell_what_it_runs(page: PageStage) -> None:
    page.console.announce("w1", "a", version="0.0.1")

    answer = page.look("workers/show", worker="w1")

    assert answer["carried"] is None
    assert answer["trouble"] == (
        "worker w1 does not tell what it runs: it is gone, or its release 0.0.1 does not tell what "
        "it runs"
    )
    assert answer["details"]["worker"] == "w1"
    assert answer["details"]["uptime_seconds"] is None


def test_an_unknown_worker(page: PageStage) -> None:
    answer = page.ask("workers/show", "viewer", worker="w2")

    assert answer.status_code == 404
    assert answer.json()["detail"] == "no worker has that name"

"""What the page orders: who may, what it does, what it leaves in Airflow's audit log."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.sdk import timezone
from airflow.utils.state import TaskInstanceState
from sqlalchemy.exc import OperationalError

from nats_executor.cli import arguments
from nats_executor.cli.definitions import get_nats_cli_commands
from nats_executor.fleet.drains import seen_notes
from nats_executor.fleet.holds import seen_holds
from nats_executor.operations.peeking import peek
from nats_executor.ui import asking, ordering
from nats_executor.ui.actions import ACTIONS
from nats_executor.wire.messages import Drain, ShutDown, decode
from tests.cli.test_orders import outcome
from tests.ui.test_tables_api import bury, column

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.test_orders import Pretender
    from tests.cli.test_retry import Deployment
    from tests.ui.conftest import PageStage

pytestmark = pytest.mark.integration

FAILED = TaskInstanceState.FAILED
COMMANDS = [action.command for action in ACTIONS]
# Whoever sees the page sees what these print; `dead-letters show` is a row of the table.
READING = {
    "queues list", "queues show", "queues peek", "workers list", "workers show",
    "dead-letters list", "dead-letters show", "top", "why",
}  # fmt: skip
# They set up, start or look at a deployment, and are of no use to its UI; `purge` empties streams
# whatever is in them, and `queues delete` removes consumers: the API server may do neither.
ELSEWHERE = {
    "accounts", "auth", "check", "demo", "doctor", "limits", "migrate check", "ping", "purge",
    "queues delete", "setup", "standalone", "worker",
}  # fmt: skip


def all_commands() -> set[str]:
    [group] = get_nats_cli_commands()
    return {
        f"{command.name} {one.name}" if hasattr(command, "subcommands") else command.name
        for command in group.subcommands
        for one in getattr(command, "subcommands", [command])
    }


def test_every_command_that_orders_something_is_on_the_page() -> None:
    assert set(COMMANDS) == all_commands() - READING - ELSEWHERE


# Who may


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("role", "status"), [(None, 401), ("viewer", 403), ("user", 403)])
def test_a_viewer_may_order_nothing(
    page: PageStage, command: str, role: str | None, status: int
) -> None:
    bury(page, "d1")

    answer = page.order(command, role, targets=["1"], number=1, queue="a")

    assert answer.status_code == status
    assert role is None or "pools" in answer.json()["detail"]
    assert page.audit() == []
    assert page.look("dead-letters")["total"] == 1


# Queues


@pytest.mark.parametrize("role", ["op", "admin"])
def test_a_queue_is_paused_and_resumed_by_name(page: PageStage, role: str) -> None:
    page.order("queues pause", role, targets=["a"], seconds=60, reason="new driver")

    names = page.console.settings.names
    [hold] = arguments.ask(page.console.settings, lambda broker: seen_holds(broker, names))
    assert (hold.queue, hold.by, hold.reason) == ("a", f"ann-{role}", "new driver")
    [row] = page.look("queues", queue="a")["rows"]
    assert (row["state"], row["paused_by"]) == ("paused", f"ann-{role}")
    [(event, owner, extra)] = page.audit()
    assert (event, owner) == ("nats queues pause", f"ann-{role}")
    assert json.loads(extra or "") == {"targets": ["a"], "seconds": 60, "reason": "new driver"}

    answer = page.order("queues resume", role, targets=["a"]).json()

    assert answer["lines"] == [{"is_well": True, "text": "queue a goes on: 0 pending, 0 running"}]
    assert page.look("queues", queue="a")["rows"][0]["state"] == "idle"
    assert page.audit()[1][0] == "nats queues resume"


def test_a_pause_may_have_no_end(page: PageStage) -> None:
    page.ordered("queues pause", targets=["a", "b"])

    assert column(page.look("queues"), "paused_until") == ["resumed", "resumed"]


def test_a_queue_that_is_not_there(page: PageStage) -> None:
    answer = page.order("queues pause", targets=["a", "x"])

    assert answer.status_code == 404
    assert answer.json()["detail"] == "no queue is named 'x'; there are: a,b"
    assert column(page.look("queues"), "paused_until") == [None, None]


def waiting_task(page: PageStage, deployment: Deployment, task: str) -> None:
    row = deployment.add(task, "queued", queued_dttm=timezone.utcnow())
    page.console.send("a", row["external_executor_id"])


def test_what_waits_in_a_queue(page: PageStage, deployment: Deployment) -> None:
    waiting_task(page, deployment, "load")
    waiting_task(page, deployment, "after")
    deployment.add("apart", "queued")  # of another executor: NATS does not have it

    answer = page.look("queues/waiting", queue="a")

    assert [row["task"] for row in answer["rows"]] == ["load", "after"]
    assert (answer["total"], answer["is_whole"]) == (2, True)
    assert page.look("queues/waiting", queue="b") == {"rows": [], "total": 0, "is_whole": True}
    refused = page.ask("queues/waiting", queue="x")
    assert refused.json()["detail"].startswith("no queue is named 'x'")


def test_a_queue_with_many_tasks_shows_the_next_ones_and_their_number(
    page: PageStage, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MOST_WAITING", 1)
    waiting_task(page, deployment, "load")
    waiting_task(page, deployment, "after")

    answer = page.look("queues/waiting", queue="a")

    assert ([row["task"] for row in answer["rows"]], answer["total"]) == (["load"], 2)


def test_what_waits_is_read_once_in_ten_seconds(
    page: PageStage, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every message of the queue is listed for it, whatever the number of viewers."""
    waiting_task(page, deployment, "load")
    assert page.look("queues/waiting", queue="a")["total"] == 1
    waiting_task(page, deployment, "after")
    assert page.look("queues/waiting", queue="a")["total"] == 1

    monkeypatch.setattr(asking, "WAITING_SECONDS", 0.0)
    assert page.look("queues/waiting", queue="b")["total"] == 0
    assert page.look("queues/waiting", queue="a")["total"] == 2


def test_viewers_of_several_queues_cost_one_look_at_each(
    page: PageStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str | None] = []

    async def counted(broker: Any, settings: Any, queue: str | None) -> Any:
        looked.append(queue)
        return await peek(broker, settings, queue)

    monkeypatch.setattr(asking, "peek", counted)
    page.look("queues")  # opens the connection

    async def ask_together() -> None:
        desk = asking.desks.here()
        await asyncio.gather(*(desk.waiting(queue) for queue in ("a", "b", "a", "b")))

    for _ in range(2):
        asyncio.run(ask_together())
    assert sorted(map(str, looked)) == ["a", "b"]


def test_the_tasks_of_a_queue_are_failed(page: PageStage, deployment: Deployment) -> None:
    waiting_task(page, deployment, "load")
    deployment.add("after", "queued")  # of another executor: NATS does not have it

    trial = page.ordered("queues purge", targets=["a", "b"], is_trial=True)

    assert [line["text"] for line in trial["lines"]] == [
        "queue a: 1 task (1 queued): 1 of retrying would be failed",
        "queue b: no task would be failed",
    ]
    assert trial["count"] == 1
    assert deployment.states()[("load", -1)] == "queued"

    done = page.ordered("queues purge", targets=["a"], reason="gone")

    assert done["lines"][0]["text"] == "queue a: 1 task (1 queued): 1 of retrying failed"
    assert deployment.states() == {("load", -1): FAILED, ("after", -1): "queued"}
    assert page.audit() == [
        ("nats queues purge", "ann-op", json.dumps({"targets": ["a"], "reason": "gone"}))
    ]


def test_one_task_is_cancelled(page: PageStage, deployment: Deployment) -> None:
    waiting_task(page, deployment, "load")
    waiting_task(page, deployment, "after")
    place = {"dag": "retrying", "run": "r 1", "task": "load", "map_index": -1}

    assert page.ordered("tasks cancel", **place, is_trial=True)["count"] == 1
    page.ordered("tasks cancel", **place)

    assert deployment.states() == {("load", -1): FAILED, ("after", -1): "queued"}
    refused = page.order("tasks cancel")
    assert (refused.status_code, refused.json()["detail"][:15]) == (422, "say which tasks")


def test_tasks_of_a_dag_that_the_user_may_not_change_go_on(
    page: PageStage, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", lambda *_, **__: False)
    waiting_task(page, deployment, "load")

    done = page.ordered("queues purge", targets=["a"])

    assert done["lines"] == [
        {"is_well": True, "text": "queue a: no task failed"},
        {"is_well": False, "text": "queue a: 1 task kept: you may not change its Dag"},
    ]
    assert deployment.states() == {("load", -1): "queued"}


# The tab of a task instance


def test_what_a_task_waits_for(page: PageStage, deployment: Deployment) -> None:
    waiting_task(page, deployment, "load")
    place = {"dag_id": "retrying", "run_id": "r 1", "task_id": "load"}

    answer = page.look("delivery", **place)

    assert answer["cause"] == "no worker"
    assert answer["sentence"] == "No worker serves queue 'a', in which 1 wait."
    assert answer["needs_person"]
    assert answer["facts"]["dispatch_id"]
    assert page.ask("delivery", **(place | {"task_id": "x"})).status_code == 404
    assert page.ask("delivery", None, **place).status_code == 401


def test_a_tab_is_for_those_who_may_see_the_dag(
    page: PageStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", lambda *_, **__: False)

    answer = page.ask("delivery", dag_id="secret", run_id="r 1", task_id="load")

    assert answer.status_code == 403


# Workers


def test_workers_are_drained_and_undrained_by_name(
    page: PageStage, order_stage: Any, pretend: Callable[..., Pretender]
) -> None:
    pretender = pretend({"w1": outcome(), "w2": outcome()})

    done = page.ordered("workers drain", targets=["w1", "w2"], reason="new kernel")

    assert [line["is_well"] for line in done["lines"]] == [True, True]
    assert done["count"] == 2
    said = [decode(Drain, body) for _, verb, body in pretender.got if verb == "drain"]
    assert {(drain.worker, drain.by, drain.reason) for drain in said} == {
        ("w1", "ann-op", "new kernel"), ("w2", "ann-op", "new kernel")
    }  # fmt: skip
    names = order_stage.settings.names
    assert arguments.ask(order_stage.settings, lambda broker: seen_notes(broker, names))

    page.ordered("workers undrain", targets=["w1", "w2"])

    assert arguments.ask(order_stage.settings, lambda broker: seen_notes(broker, names)) == []
    assert [event for event, *_ in page.audit()] == ["nats workers drain", "nats workers undrain"]


def test_a_name_with_a_star_means_no_other_worker(
    page: PageStage, order_stage: Any, pretend: Callable[..., Pretender]
) -> None:
    order_stage.announce("w*", "default")
    pretender = pretend({"w1": outcome(), "w*": outcome()})

    page.ordered("workers drain", targets=["w*"])
    assert [name for name, *_ in pretender.got] == ["w*"]
    assert page.order("workers drain", targets=["*"]).status_code == 404


@pytest.mark.parametrize(
    ("command", "body", "sent"),
    [
        ("workers set-concurrency", {"number": 8}, b"8"),
        ("workers add-queue", {"queue": "größe *"}, "größe *".encode()),
        ("workers remove-queue", {"queue": "gpu"}, b"gpu"),
    ],
)
def test_a_worker_is_changed_while_it_runs(
    page: PageStage,
    order_stage: Any,  # noqa: ARG001 - its workers
    pretend: Callable[..., Pretender],
    command: str,
    body: dict[str, Any],
    sent: bytes,
) -> None:
    pretender = pretend({"w1": outcome()})

    done = page.ordered(command, targets=["w1"], **body)

    assert pretender.got == [("w1", command.partition(" ")[2], sent)]
    [line] = done["lines"]
    assert line["is_well"]
    assert line["text"].startswith("worker w1 now has concurrency 8")


@pytest.mark.parametrize("is_now", [False, True])
def test_a_worker_is_stopped_by_name(
    page: PageStage,
    order_stage: Any,  # noqa: ARG001 - its workers
    pretend: Callable[..., Pretender],
    is_now: bool,
) -> None:
    pretender = pretend({"w1": outcome()})

    done = page.ordered("workers stop", targets=["w1"], reason="new kernel", is_now=is_now)

    [(name, verb, body)] = pretender.got
    assert (name, verb) == ("w1", "shut-down")
    assert decode(ShutDown, body) == ShutDown(by="ann-op", reason="new kernel", is_now=is_now)
    assert done["lines"][0]["text"].startswith("worker w1 stops; ")


def test_a_worker_is_asked_whether_it_lives(page: PageStage, order_stage: Any) -> None:  # noqa: ARG001
    done = page.ordered("workers ping", targets=["w1"])

    assert done["lines"] == [{"is_well": False, "text": "worker w1 does not answer: it is gone"}]


def test_a_worker_that_may_live_is_not_forgotten(page: PageStage, order_stage: Any) -> None:  # noqa: ARG001
    page.console.announce("old", "default")
    [line] = page.ordered("workers forget", targets=["old"])["lines"]

    assert "old" in line["text"]
    assert [event for event, *_ in page.audit()] == ["nats workers forget"]


def test_a_worker_that_does_not_answer_is_told_of(page: PageStage, order_stage: Any) -> None:  # noqa: ARG001
    done = page.ordered("workers set-concurrency", targets=["w1"], number=2)

    [line] = done["lines"]
    assert (line["is_well"], "does not answer" in line["text"]) == (False, True)


# Dead letters


def test_chosen_dead_letters_are_removed(page: PageStage) -> None:
    bury(page, "d1", "d2", "d3")

    assert page.ordered("dead-letters purge", targets=["1", "3"], is_trial=True)["count"] == 2
    assert page.audit() == []
    assert page.look("dead-letters")["total"] == 3

    done = page.ordered("dead-letters purge", targets=["1", "3"], reason="seen")

    assert done["lines"] == [{"is_well": True, "text": "2 dead letters removed"}]
    assert column(page.look("dead-letters"), "sequence") == [2]
    assert page.audit()[0][0] == "nats dead-letters purge"


def test_dead_letters_of_a_filter_are_removed(page: PageStage) -> None:
    bury(page, "d1", dag="daily")
    bury(page, "d2", dag="hourly")

    assert page.ordered("dead-letters purge", dag="hourly", is_trial=True)["count"] == 1
    page.ordered("dead-letters purge", dag="hourly")

    assert column(page.look("dead-letters"), "dag") == ["daily"]


def test_a_dead_letter_is_retried(page: PageStage, deployment: Deployment) -> None:
    deployment.bury(deployment.add("load", FAILED))
    deployment.bury(deployment.add("apart", "success"))

    trial = page.ordered("dead-letters retry", is_trial=True)
    assert trial["count"] == 1
    assert trial["lines"][0]["text"] == "1 of 2 dead letters can be retried"
    assert deployment.letters() == 2

    done = page.ordered("dead-letters retry", reason="the disk was full")

    first, kept = done["lines"]
    assert first == {"is_well": False, "text": "1 of 2 dead letters retried"}
    assert kept["text"].endswith(
        "is kept: Airflow no longer wants it: the task instance is success"
    )
    assert deployment.states()[("load", -1)] is None
    assert deployment.letters() == 1


def test_a_dag_that_the_user_may_not_change_is_left_alone(
    page: PageStage, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may order here has no right to every Dag, where an auth manager tells them apart."""
    asked: list[str] = []

    def refuse(self: object, *, method: str, details: Any, **_: Any) -> bool:  # noqa: ARG001
        asked.append(details.id)
        return method == "GET"

    monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", refuse)
    deployment.bury(deployment.add("load", FAILED))

    done = page.ordered("dead-letters retry")

    assert asked == ["retrying"]
    assert done["lines"][1]["text"] == "1 (retrying) is kept: you may not clear tasks of its Dag"
    assert (deployment.states()[("load", -1)], deployment.letters()) == (FAILED, 1)


# What is refused


@pytest.mark.parametrize(
    ("command", "body", "text"),
    [
        ("queues pause", {}, "say which queues"),
        ("workers drain", {}, "say which workers"),
        ("workers set-concurrency", {"targets": ["w1"]}, "workers set-concurrency needs a number"),
        ("workers add-queue", {"targets": ["w1"]}, "workers add-queue needs a queue"),
        ("dead-letters purge", {"targets": ["x"]}, "name dead letters by their sequences"),
        ("queues pause", {"targets": ["a"], "is_trial": True}, "queues pause cannot be tried"),
    ],
)
def test_an_order_that_lacks_something(
    page: PageStage, command: str, body: dict[str, Any], text: str
) -> None:
    answer = page.order(command, **body)

    assert (answer.status_code, answer.json()["detail"]) == (422, text)
    assert page.audit() == []


@pytest.mark.parametrize(
    "body",
    [
        {"targets": ["a"] * 201},
        {"targets": [""]},
        {"targets": ["a"], "reason": "x" * 501},
        {"targets": ["a"], "seconds": 0},
        {"targets": ["a"], "unknown": 1},
    ],
)
def test_an_order_that_is_too_large_or_unknown(page: PageStage, body: dict[str, Any]) -> None:
    assert page.order("queues pause", **body).status_code == 422
    assert page.order("queues forget", targets=["a"]).status_code == 404


def test_a_form_of_another_site_orders_nothing(page: PageStage) -> None:
    """A browser sends the cookie with a form, but no form says that it is JSON."""
    answer = page.client.post(
        "/api/orders/queues/pause",
        content=json.dumps({"targets": ["a"]}),
        headers=page.headers("op") | {"Content-Type": "text/plain"},
    )

    assert answer.status_code == 422
    assert page.audit() == []


def test_what_cannot_be_written_down_is_not_ordered(
    page: PageStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise OperationalError("insert", {}, Exception("locked"))

    monkeypatch.setattr(ordering, "create_session", fail)
    answer = page.order("queues pause", targets=["a"])

    assert answer.status_code == 503
    assert answer.json()["detail"].endswith("(OperationalError); nothing was ordered")
    assert page.look("queues", queue="a")["rows"][0]["paused_until"] is None

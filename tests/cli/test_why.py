"""`airflow nats why`, on a real nats-server and Airflow's real tables."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.exceptions import UnknownExecutorException
from airflow.executors.executor_loader import ExecutorLoader
from airflow.executors.executor_utils import ExecutorName
from airflow.models.log import Log
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from nats_executor.broker.connection import connect
from nats_executor.cli import arguments, commands
from nats_executor.operations import database, instances
from nats_executor.operations.instances import WhichTask
from nats_executor.operations.situations import explain
from nats_executor.wire.messages import Kind, Report, State, encode
from tests.scheduler.conftest import airflow_database
from tests.scheduler.table import JOB, table_fixture
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from tests.cli.conftest import Console
    from tests.scheduler.table import Rows

__all__ = ["airflow_database", "table_fixture"]

NOW = datetime.now(UTC)


def why(console: Console, task: str = "t", **more: Any) -> tuple[int, dict[str, Any]]:
    """Return the exit code, and the one object of the answer."""
    given = {"dag": "a_dag", "run": "a_run", "task": task, "map_index": -1} | more
    code, output = console.run(commands.why, output="json", **given)
    assert code != 2, console.error
    [answer] = json.loads(output)
    return code, answer


def conclusion(console: Console, task: str = "t", **more: Any) -> tuple[int, str, str]:
    code, answer = why(console, task, **more)
    return code, answer["cause"], answer["reason"]


def queue_task(
    console: Console,
    table: Rows,
    name: str = "t",
    *,
    ago: float = 90.0,
    queue: str = "gpu",
    **more: Any,
) -> str:
    """Have a task wait in NATS; returns its dispatch id."""
    queued_at = NOW - timedelta(seconds=ago)
    dispatch_id: str = table.add_task(name, queue=queue, queued_dttm=queued_at, **more)[
        "dispatch_id"
    ]
    console.send(queue, dispatch_id)
    return dispatch_id


def pull(console: Console, queue: str = "gpu") -> None:
    """Take one message as a worker does, and keep it."""

    async def take(broker: Any) -> None:
        names = console.settings.names
        pulls = await broker.pull(names.tasks_stream, names.consumer(queue))
        await pulls.wait()

    arguments.ask(console.settings, take)


def report(console: Console, dispatch_id: str, state: State = State.CLAIMED) -> None:
    made = Report(
        dispatch_id=dispatch_id, queue="gpu", state=state, kind=Kind.TASK, key=[], worker="w1.1",
        worker_name="w1",
    )  # fmt: skip
    console.publish(console.settings.names.result("gpu", dispatch_id), encode(made))


@pytest.fixture
def ready(console: Console, table: Rows, monkeypatch: pytest.MonkeyPatch) -> Console:  # noqa: ARG001
    """Streams with the queue `gpu`, and a Dag run."""
    # Airflow reads its executors once in each process.
    monkeypatch.setattr(instances, "is_of_nats", lambda name, _: name != "LocalExecutor")
    console.configure(worker_lost_seconds="600", heartbeat_seconds="1")  # the table's are quick
    console.run(commands.setup, queues="default,gpu")
    return console


# What NATS has, and no worker


def test_no_worker_serves_the_queue(ready: Console, table: Rows) -> None:
    queue_task(ready, table)
    ready.announce("other", "default")

    code, answer = why(ready)

    assert (code, answer["cause"]) == (1, "no worker")
    assert answer["reason"] == "No worker serves queue 'gpu', in which 1 wait."
    assert answer["remedy"] == "start one: airflow nats worker -q gpu"
    assert (answer["in_nats"], answer["pending"], answer["workers"]) == (True, 1, [])
    assert 90 <= answer["waits_seconds"] < 3600


def test_the_queue_is_paused(ready: Console, table: Rows) -> None:
    queue_task(ready, table)
    ready.announce("w1", "gpu")
    ready.run(commands.queues_pause, paused_queues="gpu", duration=None, reason="upgrade")

    code, answer = why(ready)

    assert (code, answer["cause"]) == (1, "queue paused")
    assert answer["reason"].startswith("Queue 'gpu' is paused by ")
    assert answer["reason"].endswith(" until it is resumed (upgrade); 1 wait in it.")
    assert answer["paused_for"] == "upgrade"


def test_another_client_has_paused_it(ready: Console, table: Rows) -> None:
    queue_task(ready, table)
    names = ready.settings.names
    arguments.ask(
        ready.settings, lambda b: b.pause_consumer(names.tasks_stream, "gpu", NOW.timestamp() + 9e6)
    )

    code, cause, reason = conclusion(ready)

    assert (code, cause) == (1, "queue paused")
    assert reason.startswith("Queue 'gpu' is paused until 2")


def test_all_workers_are_full(ready: Console, table: Rows) -> None:
    queue_task(ready, table)
    ready.announce("w1", "gpu", running=4)
    ready.announce("w2", "gpu", running=5)

    code, cause, reason = conclusion(ready)

    assert (code, cause) == (0, "workers full")
    assert reason.startswith("It is next in queue 'gpu', and all 8 slots of 2 workers are taken;")


@pytest.mark.parametrize(
    ("facts", "cause", "why_not"),
    [
        ({"paused": "memory is at 95 %"}, "workers paused", "w1: memory is at 95 %"),
        ({"draining": True, "drained_by": "ann"}, "workers draining", "w1: drained by ann"),
        ({"draining": True}, "workers draining", "w1: it stops"),
    ],
)
def test_the_only_worker_takes_nothing(
    ready: Console, table: Rows, facts: dict[str, Any], cause: str, why_not: str
) -> None:
    queue_task(ready, table)
    ready.announce("w1", "gpu", **facts)

    code, found, reason = conclusion(ready)

    assert (code, found) == (1, cause)
    assert reason.endswith(f"({why_not}).")


def test_the_only_worker_is_lost(ready: Console, table: Rows) -> None:
    queue_task(ready, table)
    ready.announce("w1", "gpu", running=4)
    ready.configure(worker_lost_seconds="0.3", heartbeat_seconds="0.1")

    block_until(lambda: conclusion(ready)[1] != "workers full", 30, "the record to be old")

    assert conclusion(ready)[:2] == (1, "workers lost")


def test_its_band_is_not_served(ready: Console, table: Rows) -> None:
    """The message stands where the scheduler, which has other bands, has sent it."""
    ready.configure(priority_bands="10")
    ready.run(commands.setup, queues="gpu")
    dispatch_id = table.add_task("t", queue="gpu", priority_weight=10)["dispatch_id"]
    ready.publish(ready.settings.names.task("gpu", dispatch_id, 1), b"")
    ready.announce("w1", "gpu", bands=1)
    ready.configure(priority_bands="")

    code, answer = why(ready)

    assert (code, answer["cause"], answer["band"]) == (1, "band unserved", 1)
    assert answer["pending"] == 1


def test_the_limit_of_the_queue_is_reached(ready: Console, table: Rows) -> None:
    ready.configure(queue_limits="gpu=1")
    ready.run(commands.setup, queues="gpu")
    queue_task(ready, table, "runs", state="running", hostname="host-7")
    pull(ready)
    queue_task(ready, table)
    ready.announce("w1", "gpu")

    code, answer = why(ready)

    assert (code, answer["cause"], answer["limit"]) == (0, "queue limit", 1)
    assert answer["reason"] == (
        "Queue 'gpu' has reached its limit: 1 of 1 are with workers: a_dag.runs on host-7."
    )


def test_no_worker_has_as_many_slots_as_it_weighs(ready: Console, table: Rows) -> None:
    queue_task(ready, table, pool_slots=5)
    ready.announce("w1", "gpu")

    assert conclusion(ready)[:2] == (0, "waits its turn")
    ready.configure(pool_slots_as_weight="True")
    assert conclusion(ready)[:2] == (1, "weight")


# Its place in the queue


def test_it_waits_its_turn(ready: Console, table: Rows) -> None:
    for number in range(3):
        queue_task(ready, table, f"first{number}", ago=100 + number)
    queue_task(ready, table)
    queue_task(ready, table, "later", ago=10)
    queue_task(ready, table, "elsewhere", ago=200, queue="default")
    table.add_task("has run", queue="gpu", state="success", start_date=NOW, last_heartbeat_at=NOW)
    long_ago = NOW - timedelta(hours=1)
    table.add_task("ran", queue="gpu", state="success", start_date=long_ago, last_heartbeat_at=NOW)
    ready.announce("w1", "gpu", running=4)

    code, answer = why(ready)

    assert (code, answer["cause"]) == (0, "waits its turn")
    assert answer["reason"] == (
        "It waits its turn in queue 'gpu': 3 tasks are ahead of it (3 of a_dag), all 4 slots of 1 "
        "worker are taken; 0.2 a minute have started, so it starts in about 20 min."
    )
    assert (answer["ahead_least"], answer["ahead_most"]) == (3, 3)
    assert answer["ahead_by_dag"] == ["a_dag=3"]


def test_what_was_queued_at_the_same_moment_may_be_ahead(ready: Console, table: Rows) -> None:
    for name in ("a", "b", "t"):
        queue_task(ready, table, name)
    queue_task(ready, table, "first", ago=91)
    ready.announce("w1", "gpu")

    _, answer = why(ready)

    assert (answer["ahead_least"], answer["ahead_most"]) == (1, 3)


def test_what_a_worker_has_by_now_is_not_ahead(ready: Console, table: Rows) -> None:
    """Airflow still shows it queued, because its process is about to start."""
    queue_task(ready, table, "first", ago=100)
    pull(ready)
    queue_task(ready, table)
    ready.announce("w1", "gpu")

    _, answer = why(ready)

    assert (answer["in_flight"], answer["ahead_most"]) == (1, 0)


@pytest.mark.parametrize(
    ("priority", "ahead"), [(1, (5, 5)), (10, (2, 3)), (15, (2, 3)), (20, (0, 0))]
)
def test_the_bands_above_are_ahead(
    ready: Console, table: Rows, priority: int, ahead: tuple[int, int]
) -> None:
    ready.configure(priority_bands="10,20")
    ready.run(commands.setup, queues="gpu")
    others = {"low": (1, 100), "middle": (12, 100), "same": (12, 90), "high": (20, 5)}
    for name, (weight, ago) in others.items():
        queue_task(ready, table, name, ago=ago, priority_weight=weight)
    queue_task(ready, table, "later", ago=10, priority_weight=12)
    queue_task(ready, table, priority_weight=priority)
    ready.announce("w1", "gpu", bands=3)

    _, answer = why(ready)

    # All of them were sent in the lowest band here, and the database says which is whose.
    assert (answer["ahead_least"], answer["ahead_most"]) == ahead


# What NATS does not have


def test_the_scheduler_has_not_sent_it(ready: Console, table: Rows) -> None:
    table.add_task("t", queue="gpu")

    code, answer = why(ready)

    assert (code, answer["cause"]) == (0, "in the scheduler")
    assert (answer["in_nats"], answer["scheduler_job"]) == (False, JOB)


def test_the_executor_has_no_slot_left(
    ready: Console, table: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "2")
    table.add_task("runs", state="running")
    table.add_task("t", queue="gpu")

    code, cause, reason = conclusion(ready)

    assert (code, cause) == (0, "executor full")
    assert reason == "It is still in the scheduler: 2 of the executor's 2 slots are taken."


def test_a_report_without_a_message_is_an_end(ready: Console, table: Rows) -> None:
    report(ready, table.add_task("t", queue="gpu")["dispatch_id"], State.SUCCESS)

    code, answer = why(ready)

    assert (code, answer["cause"], answer["reported"]) == (0, "over", True)


def test_it_became_a_dead_letter(ready: Console, table: Rows) -> None:
    dispatch_id = table.add_task("t", queue="gpu", state="failed")["dispatch_id"]
    names = ready.settings.names
    arguments.ask(
        ready.settings,
        lambda broker: broker.publish(
            names.dead_letter("gpu", dispatch_id), b"x", headers={"Airflow-Reason": "bad bytes"}
        ),
    )

    code, answer = why(ready)

    assert (code, answer["cause"], answer["dead_letter"]) == (1, "dead letter", 1)
    assert answer["reason"] == "It became a dead letter: bad bytes."
    assert answer["remedy"].endswith("dead-letters retry 1")


# What Airflow's row says


@pytest.mark.parametrize("state", ["success", "failed", "skipped", None])
def test_airflow_no_longer_wants_it(ready: Console, table: Rows, state: str | None) -> None:
    queue_task(ready, table)
    table.change_task("t", state=state)

    code, cause, reason = conclusion(ready)

    assert (code, cause) == (0, "not wanted")
    assert f"its state is {state or 'none'}, " in reason


def test_it_runs(ready: Console, table: Rows) -> None:
    started = NOW - timedelta(hours=3)
    queue_task(ready, table, state="running", start_date=started, hostname="host-7")

    code, cause, reason = conclusion(ready)

    assert (code, cause) == (0, "runs")
    assert reason.startswith("It runs for 3.")
    assert reason.endswith(" h on host-7.")


@pytest.mark.parametrize(
    ("state", "cause"), [(None, "not queued"), ("scheduled", "not queued"), ("success", "over")]
)
def test_it_does_not_wait_here(ready: Console, table: Rows, state: Any, cause: str) -> None:
    table.add_task("t", state=state, external_executor_id=None)

    assert conclusion(ready)[:2] == (0, cause)


def test_it_is_another_executors(ready: Console, table: Rows) -> None:
    table.add_task("t", executor="LocalExecutor")

    assert conclusion(ready)[:2] == (0, "other executor")


def test_the_default_executor_is_another_one(
    ready: Console, table: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the message is in NATS all the same, this machine's configuration is wrong."""
    monkeypatch.setattr(instances, "is_of_nats", lambda *_: False)
    table.add_task("elsewhere")
    queue_task(ready, table)

    assert conclusion(ready, "elsewhere")[1] == "other executor"
    assert conclusion(ready)[1] == "no worker"


@pytest.mark.parametrize(
    ("executor", "path", "is_ours"),
    [
        ("fast", "nats_executor.NatsExecutor", True),
        ("fast", "nats_executor.executor.NatsExecutor", True),
        ("fast", "airflow.executors.local_executor.LocalExecutor", False),
        ("fast", "", False),
        (None, "nats_executor.NatsExecutor", True),
        (None, "airflow.executors.local_executor.LocalExecutor", False),
    ],
)
def test_the_configuration_names_the_executor_of_a_task(
    monkeypatch: pytest.MonkeyPatch, executor: str | None, path: str, is_ours: bool
) -> None:
    def found(*_: object, **__: object) -> ExecutorName:
        if not path:
            raise UnknownExecutorException("no such executor")
        return ExecutorName(module_path=path, alias="fast")

    name = "lookup_executor_name_by_str" if executor else "get_default_executor_name"
    monkeypatch.setattr(ExecutorLoader, name, found)

    assert instances.is_of_nats(executor, None) is is_ours


def test_what_the_executor_has_said_of_its_end(ready: Console, table: Rows) -> None:
    table.add_task("t", state="failed", try_number=2)
    said = {"dag_id": "a_dag", "run_id": "a_run", "task_id": "t", "map_index": -1, "dttm": NOW}
    for try_number, event, extra in (
        (1, "nats executor", "of another try"),
        (2, "state mismatch", "too large for NATS: 2000000 bytes"),
        (2, "something else", "hello"),
    ):
        table.add(Log, **said, event=event, extra=extra, try_number=try_number, owner="x")

    code, cause, reason = conclusion(ready)

    assert (code, cause) == (1, "too large")
    assert reason == "It was never sent: too large for NATS: 2000000 bytes."


# The command


def test_a_mapped_task_needs_its_index(ready: Console, table: Rows) -> None:
    for index in (0, 1):
        table.add_task("t", map_index=index)
    given = {"dag": "a_dag", "run": "a_run", "task": "t"}

    assert ready.run(commands.why, **given, map_index=-1)[0] == 2
    assert ready.error == (
        "error: task 't' is mapped: say which with --map-index; there are 0, 1\n"
    )
    code, answer = why(ready, map_index=1)
    assert (code, answer["map_index"]) == (0, 1)


def test_a_task_that_is_not_mapped_has_no_index(ready: Console, table: Rows) -> None:
    table.add_task("t")

    assert ready.run(commands.why, dag="a_dag", run="a_run", task="t", map_index=3)[0] == 2
    assert ready.error == "error: task 't' is not mapped; leave --map-index out\n"


def test_an_unknown_task_is_refused(ready: Console) -> None:
    assert ready.run(commands.why, dag="a_dag", run="a_run", task="x", map_index=-1)[0] == 2
    assert ready.error.startswith("error: Airflow has no task 'x' in run 'a_run' of Dag 'a_dag'; ")


def test_a_person_reads_a_sentence_what_to_do_and_the_facts(ready: Console, table: Rows) -> None:
    queue_task(ready, table)

    code, output = ready.run(
        commands.why, dag="a_dag", run="a_run", task="t", map_index=-1, output="plain"
    )

    assert code == 1
    sentence, remedy, blank, header, first, *facts = output.splitlines()
    assert sentence == "No worker serves queue 'gpu', in which 1 wait."
    assert remedy == "next: start one: airflow nats worker -q gpu"
    assert (blank, header.split(), first.split()) == (
        "",
        ["what", "value"],
        ["cause", "no", "worker"],
    )
    assert "pending 1" in [" ".join(line.split()) for line in facts]


def test_a_database_that_is_away_is_one_line(
    ready: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(**_: object) -> Any:
        return sessionmaker(create_engine("sqlite:////nowhere/airflow.db"))()

    monkeypatch.setattr(database, "create_session", away)

    assert ready.run(commands.why, dag="a_dag", run="a_run", task="t", map_index=-1)[0] == 2
    [line] = ready.error.splitlines()
    assert line.startswith("error: Airflow's database does not answer: ")


def test_the_page_gets_the_same_from_within_a_loop(ready: Console, table: Rows) -> None:
    """It has a connection already, and other requests to answer meanwhile."""
    queue_task(ready, table)

    async def ask() -> str:
        settings = ready.settings
        async with connect(settings, role="test") as broker:
            await broker.ready(10)
            wanted = WhichTask("a_dag", "a_run", "t")
            explanation = await explain(broker, settings, wanted)
        return explanation.reason.cause

    assert asyncio.run(ask()) == "no worker"

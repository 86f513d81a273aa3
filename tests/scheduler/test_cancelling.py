"""`airflow nats tasks cancel` and `queues purge`, on a nats-server, rows and an executor."""

from __future__ import annotations

import io
import json
import threading
from argparse import Namespace
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dagbag import DBDagBag
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import timezone
from airflow.utils.platform import getuser
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import delete, select
from sqlalchemy.exc import OperationalError

from nats_executor.cli import cancel_commands, commands
from nats_executor.operations import cancelling, database
from nats_executor.scheduler.inspector import Inspector
from nats_executor.scheduler.leftovers import Leftovers
from nats_executor.wire.messages import State
from nats_executor.wire.names import Verb
from tests.scheduler.stage import RealStage, queue_up, task_workload
from tests.scheduler.table import JOB, announce
from tests.support.rowless import TICK
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nats_executor.wire.names import Names
    from tests.scheduler.table import Rows
    from tests.support.nats_server import NatsServer

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("airflow_database")]

QUEUED, RUNNING, FAILED = (
    TaskInstanceState.QUEUED,
    TaskInstanceState.RUNNING,
    TaskInstanceState.FAILED,
)
GIVEN: dict[str, Any] = {
    "dag": None, "run": None, "task": None, "map_index": None, "queue": None, "state": None,
    "older_than": None, "reason": "", "dry_run": False, "no_wait": False, "timeout": 60.0,
    "yes": True, "team_name": None, "output": "json", "verbose": False,
}  # fmt: skip


class Deployment:
    """One scheduler's executor with its rows; commands run beside it."""

    def __init__(self, stage: RealStage, table: Rows, capture: pytest.CaptureFixture[str]) -> None:
        self.stage = stage
        self.table = table
        self.capture = capture
        self.executor = stage.executor(job_id=JOB)
        self.error = ""

    def send(self, *rows: dict[str, Any]) -> None:
        before = len(self.executor._events.ledger)
        queue_up(self.executor, *(task_workload(**row) for row in rows))

        def is_sent() -> bool:
            self.executor.heartbeat()
            return len(self.executor._events.ledger) == before + len(rows)

        block_until(is_sent, 60, "the sending")

    def add(self, task_id: str, state: str = QUEUED, **more: Any) -> None:
        """Add a task of a retrying operator, and send it."""
        queue = more.get("queue", "default")
        row = self.table.add_task(task_id, state, max_tries=3, **more)
        self.send(row | {"queue": queue})

    def run(self, command: Callable[[Namespace], None], **args: Any) -> tuple[int, Any]:
        self.capture.readouterr()
        code: Any = 0
        try:
            command(Namespace(**(GIVEN | args)))
        except SystemExit as exc:
            code = exc.code
        printed = self.capture.readouterr()
        self.error = printed.err
        return code, json.loads(printed.out) if printed.out.startswith("[") else printed.out

    def states(self) -> dict[str, str | None]:
        with create_session(scoped=False) as session:
            found = session.execute(select(TaskInstance.task_id, TaskInstance.state))
            return {row.task_id: row.state for row in found}

    def waiting(self) -> list[str]:
        """Return the tasks whose messages NATS has."""
        return sorted(workload.body["ti"]["task_id"] for workload in self.stage.sent())

    @contextmanager
    def scheduler(self) -> Iterator[None]:
        """Let the executor's scheduler live meanwhile."""
        self.table.add(
            Job, id=JOB, job_type="SchedulerJob", state="running",
            latest_heartbeat=timezone.utcnow(), start_date=timezone.utcnow(),
        )  # fmt: skip
        is_over = threading.Event()

        def loop() -> None:
            while not is_over.wait(0.05):
                self.executor.heartbeat()

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()
            with create_session(scoped=False) as session:
                session.execute(delete(Job))

    def process_events(self) -> None:
        """Do what the scheduler does with the executor's events."""
        with create_session(scoped=False) as session:
            SchedulerJobRunner.process_executor_events(
                executor=self.executor, job_id=JOB, scheduler_dag_bag=DBDagBag(), session=session
            )


@pytest.fixture
def deployment(
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
    nats_server: NatsServer,
    table: Rows,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Deployment]:
    with RealStage(names, monkeypatch, nats_server) as stage:
        monkeypatch.setattr(Leftovers, "tick", TICK)
        yield Deployment(stage, table, capsys)


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    real, found = Inspector.sweep, []

    async def sweep(self: Inspector, dispatches: Any) -> None:
        await real(self, dispatches)
        found.append(len(dispatches))

    monkeypatch.setattr(Inspector, "sweep", sweep)
    return found


def test_a_cancelled_task_fails_for_good(deployment: Deployment, sweeps: list[int]) -> None:
    deployment.add("t")
    deployment.add("u")

    with deployment.scheduler():
        code, rows = deployment.run(commands.tasks_cancel, task="t", reason="wrong input")

    assert (code, rows) == (0, [{"dag": "a_dag", "cancelled": 1, "changed_meanwhile": 0}])
    assert "To be failed, and not tried again: 1 task (1 queued): 1 of a_dag" in deployment.error
    assert "all messages are gone" in deployment.error
    assert deployment.states() == {"t": FAILED, "u": QUEUED}
    assert deployment.waiting() == ["u"]
    with create_session(scoped=False) as session:
        row = session.scalars(select(TaskInstance).where(TaskInstance.task_id == "t")).one()
        assert row.end_date is not None
        [entry] = session.scalars(select(Log))
        found = entry.event, entry.task_id, entry.owner, entry.extra
        expected = "cancelled while it was queued: wrong input"
        assert found == ("nats tasks cancel", "t", getuser(), expected)
    # Airflow tries it no more, and no sweep sends it again.
    count = len(sweeps)

    def beat() -> bool:
        deployment.executor.heartbeat()
        deployment.process_events()
        return len(sweeps) > count + 3

    block_until(beat, 60, "several sweeps")
    assert deployment.executor.slots_occupied == 1
    assert deployment.states() == {"t": FAILED, "u": QUEUED}
    assert deployment.waiting() == ["u"]


def test_a_task_that_runs_is_failed_and_its_report_changes_nothing(deployment: Deployment) -> None:
    """Its supervisor ends it at its next heartbeat, which Airflow refuses."""
    deployment.add("t")
    [sent] = deployment.stage.sent()
    deployment.table.change_task("t", state=RUNNING)
    deployment.stage.report(sent, State.RUNNING)

    code, rows = deployment.run(commands.tasks_cancel, state="running", no_wait=True)

    assert (code, rows[0]["cancelled"]) == (0, 1)
    assert deployment.states() == {"t": FAILED}
    deployment.stage.report(sent, State.FAILED, info="the task process was ended by SIGTERM")

    def has_ended() -> bool:
        deployment.executor.heartbeat()
        return not deployment.executor.slots_occupied

    block_until(has_ended, 60, "its end")
    deployment.process_events()
    assert deployment.states() == {"t": FAILED}


async def pong(_: bytes) -> bytes:
    return b"pong"


def test_a_queue_is_purged_of_what_waits(deployment: Deployment) -> None:
    deployment.add("waits", queue="gpu")
    deployment.add("waits_too", queue="gpu")
    deployment.add("elsewhere")
    deployment.add("runs", queue="gpu")
    stage = deployment.stage
    announce(stage)
    stage.ask("serve", stage.names.control("w1", Verb.PING), pong)
    running = next(w for w in deployment.stage.sent() if w.body["ti"]["task_id"] == "runs")
    deployment.table.change_task("runs", state=RUNNING)
    deployment.stage.report(running, State.RUNNING)

    with deployment.scheduler():
        code, rows = deployment.run(commands.queues_purge, queue="gpu", reason="gone")

    assert (code, rows[0]["cancelled"]) == (0, 2)
    assert deployment.states() == {
        "waits": FAILED, "waits_too": FAILED, "elsewhere": QUEUED, "runs": RUNNING
    }  # fmt: skip
    assert deployment.waiting() == ["elsewhere", "runs"]
    with create_session(scoped=False) as session:
        assert {log.event for log in session.scalars(select(Log))} == {"nats queues purge"}


def test_a_trial_lists_and_a_no_keeps(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.add("t")

    code, rows = deployment.run(commands.tasks_cancel, dag="a_dag", dry_run=True)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    refused, _ = deployment.run(commands.tasks_cancel, dag="a_dag", yes=False)

    assert code == 0
    [row] = rows
    assert (row["dag"], row["run"], row["task"], row["state"]) == ("a_dag", "a_run", "t", QUEUED)
    assert (row["map_index"], row["try"], row["queue"]) == (None, 1, "default")
    assert refused == 1
    assert "nothing was cancelled" in deployment.error
    assert deployment.states() == {"t": QUEUED}


FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({"dag": "a_dag"}, {"old", "young", "mapped", "runs"}),
    ({"dag": "another"}, set()),
    ({"run": "a_run", "task": "old"}, {"old"}),
    ({"run": "another"}, set()),
    ({"map_index": 3}, {"mapped"}),
    ({"queue": "gpu"}, {"mapped"}),
    ({"state": "queued"}, {"old", "young", "mapped"}),
    ({"state": "running"}, {"runs"}),
    ({"older_than": 3600.0}, {"old", "runs"}),
    ({"older_than": 3600.0, "state": "queued"}, {"old"}),
]


def test_filters(deployment: Deployment) -> None:
    now, old = timezone.utcnow(), timezone.utcnow() - timedelta(hours=2)
    deployment.add("old", queued_dttm=old)
    deployment.add("young", queued_dttm=now)
    deployment.add("mapped", queue="gpu", queued_dttm=now, map_index=3)
    deployment.add("runs", queued_dttm=now, start_date=old)
    deployment.table.change_task("runs", state=RUNNING)
    # It is queued, too, and NATS does not have it: it may be another executor's.
    deployment.table.add_task("foreign", queued_dttm=old)

    for given, expected in FILTERS:
        code, rows = deployment.run(commands.tasks_cancel, dry_run=True, **given)
        assert code == 0
        assert {row["task"] for row in rows} == expected, given


def test_without_a_filter_nothing_is_cancelled(deployment: Deployment) -> None:
    deployment.add("t")

    code, _ = deployment.run(commands.tasks_cancel)

    assert code == 2
    assert "say which tasks, by one at least of --dag" in deployment.error
    assert deployment.states() == {"t": QUEUED}


def test_an_unknown_queue_is_told(deployment: Deployment) -> None:
    deployment.add("t")

    code, _ = deployment.run(commands.queues_purge, queue="qpu")

    assert code == 2
    assert "qpu" in deployment.error


def test_without_a_scheduler_the_messages_stay(deployment: Deployment) -> None:
    deployment.add("t")

    code, rows = deployment.run(commands.tasks_cancel, task="t")

    assert (code, rows[0]["cancelled"]) == (1, 1)
    assert "no scheduler lives: the messages stay until one has started" in deployment.error
    assert deployment.waiting() == ["t"]


def test_the_wait_has_an_end(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leftovers, "tick", lambda _: None)
    deployment.add("t")

    with deployment.scheduler():
        code, rows = deployment.run(commands.tasks_cancel, task="t", timeout=0.1)

    assert (code, rows[0]["cancelled"]) == (1, 1)
    assert "the time is over; 1 message left, which go by themselves" in deployment.error


@pytest.mark.parametrize(
    "change", [{"state": RUNNING}, {"external_executor_id": "x"}, {"state": None}]
)
def test_what_changes_meanwhile_is_left_alone(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    deployment.add("t")

    def yes(*_: Any) -> None:
        deployment.table.change_task("t", **change)

    monkeypatch.setattr(cancel_commands, "require_yes", yes)
    code, rows = deployment.run(commands.tasks_cancel, task="t", no_wait=True)

    assert (code, rows) == (1, [{"dag": "a_dag", "cancelled": 0, "changed_meanwhile": 1}])
    assert deployment.states() == {"t": change.get("state", QUEUED)}
    with create_session(scoped=False) as session:
        assert not session.scalars(select(Log)).all()


def test_more_than_one_call_takes_is_told(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "MOST_TASKS", 1)
    monkeypatch.setattr(cancelling, "LOCKED_AT_ONCE", 1)
    deployment.add("t")
    deployment.add("u")

    code, rows = deployment.run(commands.tasks_cancel, dag="a_dag", no_wait=True)

    assert (code, rows[0]["cancelled"]) == (0, 1)
    assert "there are more tasks than one call takes; repeat it for the rest" in deployment.error
    assert sorted(map(str, deployment.states().values())) == [FAILED, QUEUED]


def test_a_database_that_is_away_is_told(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OperationalError("x", {}, Exception("gone"))

    monkeypatch.setattr(database, "create_session", fail)

    code, _ = deployment.run(commands.tasks_cancel, dag="a_dag")

    assert code == 2
    assert "Airflow's database does not answer" in deployment.error


def test_a_dead_scheduler_is_none(deployment: Deployment) -> None:
    with deployment.scheduler():
        assert cancelling.has_scheduler()
        with create_session(scoped=False) as session:
            job = session.get(Job, JOB)
            assert job
            job.latest_heartbeat = timezone.utcnow() - timedelta(hours=1)

        assert not cancelling.has_scheduler()


def test_many_dags_are_told_in_few_words() -> None:
    found = [
        cancelling.FoundTask(None, "d", f"dag{n:02}", "r", "t", -1, 1, "q", "queued")  # type: ignore[arg-type]
        for n in range(12)
    ]

    text = cancelling.tasks_in_words(found)

    assert text.startswith("12 tasks (12 queued): 1 of dag00, ")
    assert text.endswith(", 1 of dag09, the rest of 2 more Dags")

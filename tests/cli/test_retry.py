"""`airflow nats dead-letters retry`, on a real nats-server and rows of a real database."""

from __future__ import annotations

import io
import json
import uuid
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import DAG, task, timezone
from airflow.serialization.definitions.dag import SerializedDAG
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.platform import getuser
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import delete, insert, select, update

from nats_executor.cli import arguments, commands
from nats_executor.operations import database
from nats_executor.scheduler.compat import AIRFLOW_V_3_4_PLUS
from nats_executor.wire.messages import Kind, Workload, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats_executor.broker.port import Broker
    from tests.cli.conftest import Console

pytestmark = pytest.mark.integration

DAG_ID, RUN_ID = "retrying", "r 1"
FAILED, UPSTREAM_FAILED = TaskInstanceState.FAILED, TaskInstanceState.UPSTREAM_FAILED
TABLES: tuple[Any, ...] = (
    Log, TaskInstance, DagRun, SerializedDagModel, DagVersion, DagModel, DagBundleModel
)  # fmt: skip
if not AIRFLOW_V_3_4_PLUS:  # later on the tries before stay in the table of task instances
    TABLES = (import_module("airflow.models.taskinstancehistory").TaskInstanceHistory, *TABLES)
# In the class it is called `map_index` in either release.
INDEX = "region_index" if AIRFLOW_V_3_4_PLUS else "map_index"
GIVEN: dict[str, Any] = {
    "queue": None, "dag": None, "older_than": 0.0, "limit": None, "sequences": [],
    "dry_run": False, "yes": True, "output": "json",
}  # fmt: skip


def written_dag() -> uuid.UUID:
    """Store a Dag as the Dag processor does; return its version's id."""
    with DAG(DAG_ID, schedule=None, is_paused_upon_creation=False) as dag:

        @task(queue="a")
        def load(number: int) -> None: ...

        @task
        def after() -> None: ...

        @task(trigger_rule="all_done")
        def always() -> None: ...

        @task
        def apart() -> None: ...

        load.expand(number=[1, 2]) >> [after(), always()]
        apart()
    with create_session(scoped=False) as session:
        session.add(DagBundleModel(name=DAG_ID))
        session.flush()
        lazy = LazyDeserializedDAG.from_dag(dag)
        SerializedDAG.bulk_write_to_db(DAG_ID, None, [lazy], session=session)
        SerializedDagModel.write_dag(lazy, bundle_name=DAG_ID, session=session)
        session.flush()
        version = session.scalars(select(DagVersion).where(DagVersion.dag_id == DAG_ID)).one()
        return version.id


class Deployment:
    """One failed run, and the letters of its tasks."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.version = written_dag()
        self.add_run(RUN_ID)

    def add_run(self, run_id: str) -> None:
        with create_session(scoped=False) as session:
            session.execute(
                insert(DagRun).values(
                    dag_id=DAG_ID, run_id=run_id, state=DagRunState.FAILED, run_type="manual",
                    run_after=timezone.utcnow(), created_dag_version_id=self.version, conf={},
                )
            )  # fmt: skip

    def add(self, task_id: str, state: str | None, **more: Any) -> dict[str, Any]:
        """Insert a task instance; return what its workload says of it."""
        row: dict[str, Any] = {
            "id": uuid.uuid4(), "external_executor_id": str(uuid.uuid4()), "dag_id": DAG_ID,
            "run_id": RUN_ID, "task_id": task_id, "map_index": -1, "try_number": 1, "queue": "a",
            "state": state, "pool": "default_pool", "pool_slots": 1, "priority_weight": 1,
            "dag_version_id": self.version,
        } | more  # fmt: skip
        with create_session(scoped=False) as session:
            columns = {INDEX if name == "map_index" else name: value for name, value in row.items()}
            session.execute(insert(TaskInstance.__table__).values(**columns))
        return row

    def bury(self, row: dict[str, Any], *, queue: str = "a", **more: Any) -> None:
        dispatch_id = row["external_executor_id"] or str(uuid.uuid4())
        instance = {
            name: row[name] for name in ("dag_id", "run_id", "task_id", "map_index", "try_number")
        }
        values: dict[str, Any] = {
            "dispatch_id": dispatch_id, "queue": queue, "kind": Kind.TASK, "sender": "s",
            "key": [], "body": {"ti": instance | {"id": str(row["id"])}},
        } | more  # fmt: skip
        names = self.console.settings.names
        subject = names.dead_letter(queue, dispatch_id)
        self.console.publish(subject, encode(Workload(**values)))

    def retry(self, **args: Any) -> tuple[int, list[tuple[int, str, str | None]]]:
        """Return the exit code, and the sequence, outcome and refusal of each letter."""
        self.console.capture.readouterr()  # what Airflow says of the rows that were made
        code, output = self.console.run(commands.dead_letters_retry, **(GIVEN | args))
        rows = json.loads(output) if output else []
        return code, [(row["sequence"], row["outcome"], row["why_not"]) for row in rows]

    def states(self) -> dict[tuple[str, int], str | None]:
        with create_session(scoped=False) as session:
            columns = TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state
            return {(t, i): s for t, i, s in session.execute(select(*columns))}

    def run_state(self) -> str:
        with create_session(scoped=False) as session:
            state = select(DagRun.state).where(DagRun.run_id == RUN_ID)
            return str(session.scalars(state).one())

    def letters(self) -> int:
        async def count(broker: Broker) -> int:
            info = await broker.stream_info(self.console.settings.names.dead_letters_stream)
            return info.messages if info else -1

        return arguments.ask(self.console.settings, count)


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Create the tables in the session's temporary AIRFLOW_HOME."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def deployment(console: Console, airflow_database: None) -> Iterator[Deployment]:  # noqa: ARG001
    console.run(commands.setup, queues="a,b")
    try:
        yield Deployment(console)
    finally:
        with create_session(scoped=False) as session:
            for model in TABLES:
                session.execute(delete(model.__table__))


def test_airflow_tries_again_what_it_has_failed(deployment: Deployment) -> None:
    """With the tasks that did not run because of it, and nothing else."""
    dead = deployment.add("load", FAILED, map_index=1)
    deployment.add("load", FAILED, map_index=0)  # by itself
    deployment.add("after", UPSTREAM_FAILED)
    deployment.add("always", "success")
    deployment.add("apart", UPSTREAM_FAILED)
    deployment.bury(dead)

    assert deployment.retry() == (0, [(1, "retried", None)])

    assert deployment.states() == {
        ("load", 1): None, ("load", 0): FAILED, ("after", -1): None,
        ("always", -1): "success", ("apart", -1): UPSTREAM_FAILED,
    }  # fmt: skip
    assert deployment.run_state() == DagRunState.QUEUED
    assert deployment.letters() == 0
    with create_session(scoped=False) as session:
        [entry] = session.scalars(select(Log).where(Log.event == "nats dead-letters retry"))
        assert (entry.owner, entry.task_id, entry.map_index) == (getuser(), "load", 1)
        assert dead["external_executor_id"] in str(entry.extra)
        of_load = select(TaskInstance).where(
            TaskInstance.task_id == "load", TaskInstance.map_index == 1
        )
        row = session.scalars(of_load).one()
        assert row.id != dead["id"]
        assert row.external_executor_id is None


def test_another_run_is_left_alone(deployment: Deployment) -> None:
    deployment.add_run("r 2")
    deployment.add("after", UPSTREAM_FAILED, run_id="r 2")
    deployment.bury(deployment.add("load", FAILED))

    assert deployment.retry() == (0, [(1, "retried", None)])

    assert deployment.states() == {("load", -1): None, ("after", -1): UPSTREAM_FAILED}


def test_several_letters_of_a_run_are_retried_at_once(deployment: Deployment) -> None:
    for index in (0, 1):
        deployment.bury(deployment.add("load", FAILED, map_index=index))
    deployment.add("after", UPSTREAM_FAILED)

    assert deployment.retry() == (0, [(2, "retried", None), (1, "retried", None)])

    assert set(deployment.states().values()) == {None}
    assert deployment.letters() == 0


def test_a_dry_run_changes_nothing(deployment: Deployment) -> None:
    deployment.bury(deployment.add("load", FAILED))
    deployment.add("after", UPSTREAM_FAILED)
    before = deployment.states()

    assert deployment.retry(dry_run=True) == (0, [(1, "would be retried", None)])

    assert deployment.states() == before
    assert deployment.run_state() == DagRunState.FAILED
    assert deployment.letters() == 1
    with create_session(scoped=False) as session:
        assert (
            session.scalars(select(Log).where(Log.event == "nats dead-letters retry")).all() == []
        )


@pytest.mark.parametrize(("answer", "state"), [("yes\n", None), ("\n", FAILED), ("", FAILED)])
def test_it_asks(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, answer: str, state: str | None
) -> None:
    deployment.bury(deployment.add("load", FAILED))
    deployment.bury(deployment.add("after", "success"))
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))

    code, _ = deployment.retry(yes=False)

    assert code == 1  # one is not retried in any case
    assert "1 of 2 dead letters can be retried\nRetry them? [y/N] " in deployment.console.error
    assert ("nothing was retried" in deployment.console.error) == (state == FAILED)
    assert deployment.states()["load", -1] == state
    assert deployment.letters() == (1 if state is None else 2)


STANDING = {
    "up_for_retry": "Airflow tries it again by itself",
    "success": "Airflow no longer wants it: the task instance is success",
    "running": "Airflow no longer wants it: the task instance is running",
    "queued": "Airflow no longer wants it: the task instance is queued",
    "skipped": "Airflow no longer wants it: the task instance is skipped",
    None: "Airflow no longer wants it: the task instance is cleared",
}


@pytest.mark.parametrize(("state", "why_not"), STANDING.items(), ids=map(str, STANDING))
def test_what_airflow_does_not_want_is_kept(
    deployment: Deployment, state: str | None, why_not: str
) -> None:
    deployment.bury(deployment.add("load", state))

    assert deployment.retry() == (1, [(1, "kept", why_not)])

    assert deployment.states() == {("load", -1): state}
    assert deployment.letters() == 1


def test_another_try_is_left_alone(deployment: Deployment) -> None:
    """It failed as well, and perhaps not for the letter's reason."""
    row = deployment.add("load", FAILED)
    deployment.bury(row)
    deployment.bury(row | {"id": "no id"})
    deployment.bury(row | {"id": None})
    with create_session(scoped=False) as session:
        session.execute(update(TaskInstance).values(id=uuid.uuid4(), try_number=2))

    code, outcomes = deployment.retry()

    assert code == 1
    assert {why for _, _, why in outcomes} == {
        "Airflow has started another try since, or has deleted the task instance"
    }
    assert deployment.states() == {("load", -1): FAILED}


def test_another_dispatch_of_the_try_is_left_alone(deployment: Deployment) -> None:
    deployment.bury(deployment.add("load", FAILED) | {"external_executor_id": "another"})

    assert deployment.retry() == (1, [(1, "kept", "Airflow has sent the task again since")])
    assert deployment.states() == {("load", -1): FAILED}


def test_a_dispatch_that_the_scheduler_has_not_stored_counts(deployment: Deployment) -> None:
    deployment.bury(deployment.add("load", FAILED, external_executor_id=None))

    assert deployment.retry() == (0, [(1, "retried", None)])


def test_a_letter_is_only_about_its_own_queue(deployment: Deployment) -> None:
    """The author of a Dag who finds a worker's login could name tasks of other queues."""
    row = deployment.add("load", FAILED, external_executor_id=None)
    deployment.bury(row, queue="b")

    why_not = "its task instance is in another queue"
    assert deployment.retry() == (1, [(1, "kept", why_not)])
    assert deployment.states() == {("load", -1): FAILED}


@pytest.mark.parametrize(
    ("kind", "why_not"),
    [
        (Kind.CALLBACK, "a callback cannot be retried: Airflow runs each once"),
        (Kind.CONNECTION_TEST, "a connection test cannot be retried: start another one in Airflow"),
        ("Newer", "it is no task"),
    ],
)
def test_only_tasks_can_be_retried(deployment: Deployment, kind: str, why_not: str) -> None:
    deployment.bury(deployment.add("load", FAILED), kind=kind)

    assert deployment.retry() == (1, [(1, "kept", why_not)])
    assert deployment.states() == {("load", -1): FAILED}


def test_what_cannot_be_read_cannot_be_retried(deployment: Deployment) -> None:
    names = deployment.console.settings.names
    deployment.console.publish(names.dead_letter("a", "d1"), b"garbage")

    code, [(_, outcome, why_not)] = deployment.retry(sequences=[1])

    assert (code, outcome) == (1, "kept")
    assert why_not is not None
    assert why_not.startswith("it cannot be read, so its task is not known")


def test_a_task_that_its_dag_no_longer_has(deployment: Deployment) -> None:
    deployment.bury(deployment.add("removed", FAILED))

    assert deployment.retry() == (1, [(1, "kept", "its Dag no longer has this task")])
    assert deployment.states() == {("removed", -1): FAILED}


def test_without_airflows_database_it_says_where_to_run(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    deployment.bury(deployment.add("load", FAILED))

    def away(**_: Any) -> None:
        raise OperationalError("select", {}, Exception("no such table"))

    monkeypatch.setattr(database, "create_session", away)

    assert deployment.retry() == (2, [])
    assert "sql_alchemy_conn has to be the scheduler's here" in deployment.console.error
    assert deployment.letters() == 1

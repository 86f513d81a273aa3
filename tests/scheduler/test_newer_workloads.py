"""What only the workloads of Airflow 3.4 carry, sent for the first time and again."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from airflow.executors import workloads
from airflow.executors.workloads.base import BundleInfo
from airflow.models.dag_version import DagVersion
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import update

from nats_executor.scheduler import compat, database
from nats_executor.scheduler.ledger import Dispatch
from nats_executor.wire.messages import Kind
from tests.scheduler.stage import connection_test_workload, events, queue_up, task_workload
from tests.scheduler.table import JOB, counted
from tests.support.waiting import block_until

regions: Any = pytest.importorskip(
    "airflow.models.dynamic_region", reason="Airflow 3.3's workloads have none of it"
)

from tests.scheduler.loops import DAG_ID, Loop  # noqa: E402 - 3.4 alone can import it

if TYPE_CHECKING:
    from tests.scheduler.stage import FakeStage, RealStage, Stage
    from tests.scheduler.table import Rows

pytestmark = pytest.mark.usefixtures("airflow_database")

MANIFEST = {"files": {"dags/a_dag.py": {"version": "3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY", "n": 1}}}
info: Any = partial(BundleInfo, name="dags", version="v1")


def with_data(task_id: str, version_data: dict[str, Any]) -> workloads.ExecuteTask:
    of_version: Any = {"bundle_info": info(version_data=version_data)}
    return task_workload(task_id).model_copy(update=of_version)


def test_the_data_of_a_bundles_version_travel_intact(stage: Stage) -> None:
    [sent] = stage.sent_by(stage.executor(), with_data("t", MANIFEST))

    assert workloads.ExecuteTask.model_validate(sent.body).bundle_info == info(
        version_data=MANIFEST
    )


@pytest.mark.integration
def test_a_task_whose_bundle_has_too_many_data_fails_alone_and_says_why(
    real_stage: RealStage,
) -> None:
    executor = real_stage.executor()
    manifest = {f"dags/{number}.py": "x" * 32 for number in range(30_000)}
    large, small = with_data("large", manifest), with_data("small", MANIFEST)

    queue_up(executor, large, small)

    assert [(key, state) for key, (state, _) in events(executor).items()] == [
        (compat.key_of(large), TaskInstanceState.FAILED)
    ]
    assert [workload.key[1] for workload in real_stage.sent()] == ["small"]


def test_a_connection_test_bears_its_team_when_it_is_sent_and_sent_again(
    stage: Stage, table: Rows
) -> None:
    stage.monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    test = table.add_connection_test("queued", team_name="blue")
    executor = stage.executor(job_id=JOB)
    of_team: Any = {"connection_test_id": uuid.UUID(test), "team_name": "blue"}
    first = connection_test_workload("heavy").model_copy(update=of_team)
    [sent] = stage.sent_by(executor, first)

    stage.ask("remove", stage.names.tasks_stream, stage.names.task("heavy", test))

    def is_there() -> bool:
        executor.heartbeat()
        return bool(stage.sent())

    block_until(is_there, 60, "the test to be sent again")
    [again] = stage.sent()
    assert (sent.body["team_name"], again.body["team_name"]) == ("blue", "blue")


@pytest.mark.usefixtures("loops")
def test_a_batch_that_is_sent_again_asks_the_database_as_often_as_one_task(
    fake_stage: FakeStage,
) -> None:
    """Where each lies in its loop, and the data of the bundle's version, are asked for at once."""
    loop = Loop(regions, iterations=10, width=5)
    with create_session(scoped=False) as session:
        of_version = update(DagVersion).where(DagVersion.dag_id == DAG_ID)
        session.execute(of_version.values(version_data=MANIFEST, bundle_version="v1"))
        session.execute(update(DagRun).where(DagRun.dag_id == DAG_ID).values(bundle_version="v1"))
        session.execute(update(TaskInstance).values(state="queued", queued_by_job_id=JOB))
    executor = fake_stage.executor(job_id=JOB)
    dispatches = [
        Dispatch(str(row.id), row.id, "default", Kind.TASK, str(row.id)) for row in loop.live()
    ]

    database.workloads_again(dispatches[:1], JOB, executor._mint)  # some things are asked for once
    with counted() as for_one:
        database.workloads_again(dispatches[:1], JOB, executor._mint)
    with counted() as for_all:
        found: Any = database.workloads_again(dispatches, JOB, executor._mint)

    assert len(for_all) == len(for_one)
    assert len({workload.log_path for workload in found}) == loop.size
    assert {str(w.bundle_info) for w in found} == {str(info(name=DAG_ID, version_data=MANIFEST))}

"""What a task waits for that only its scheduler knows, each cause staged with a real executor."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from airflow.jobs.job import Job
from airflow.utils.session import create_session
from sqlalchemy import delete

from nats_executor.operations import instances
from nats_executor.operations.instances import WhichTask
from nats_executor.operations.situations import explain
from nats_executor.wire.messages import Presence, State, encode
from tests.scheduler.stage import queue_up, task_workload
from tests.scheduler.table import JOB
from tests.support.fixtures import settings_for
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats_executor import NatsExecutor
    from nats_executor.operations.situations import Explanation
    from tests.scheduler.stage import RealStage
    from tests.scheduler.table import Rows

pytestmark = pytest.mark.integration

WHICH = WhichTask("a_dag", "a_run", "t")


def explained(stage: RealStage) -> Explanation:
    settings = settings_for(stage.server.url, subject_prefix=stage.names.prefix)
    answer: Explanation = stage.portal.call(partial(explain, stage.broker, settings, WHICH))
    return answer


def becomes(stage: RealStage, cause: str) -> Explanation:
    """Wait until this is the cause."""

    def look() -> Explanation | None:
        found = explained(stage)
        return found if found.reason.cause == cause else None

    found: Explanation = block_until(look, 60, f"{cause}, not {explained(stage).reason}")
    return found


def queued(table: Rows, name: str = "t", **more: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = table.add_task(name, queued_dttm=datetime.now(UTC), **more)
    return arguments


def announce(stage: RealStage, **facts: Any) -> None:
    presence = Presence(
        worker="w1", name="worker-1", host="h", pid=1, queues=["default"], draining=False,
        started_at=0.0, at=0.0, version="1", **({"concurrency": 1, "running": 0} | facts),
    )  # fmt: skip
    stage.ask("publish", stage.names.presence("default", "worker-1"), encode(presence))


@pytest.fixture
def executor(
    real_stage: RealStage,
    table: Rows,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> NatsExecutor:
    # Airflow reads its executors once in each process.
    monkeypatch.setattr(instances, "is_of_nats", lambda *_: True)
    return real_stage.executor(job_id=JOB, parallelism=1)


def test_the_executor_has_no_slot_left(
    real_stage: RealStage, table: Rows, executor: NatsExecutor
) -> None:
    real_stage.sent_by(executor, task_workload(**queued(table, "runs")))
    queue_up(executor, task_workload(**queued(table)))

    found = becomes(real_stage, "executor full")

    assert found.reason.sentence == (
        "It is still in the scheduler: 1 of the executor's 1 slot are taken."
    )


def test_the_next_heartbeat_sends_it(
    real_stage: RealStage, table: Rows, executor: NatsExecutor
) -> None:
    queue_up(executor, task_workload(**queued(table)))

    found = becomes(real_stage, "in the scheduler")

    assert found.situation.sender.answers
    executor.heartbeat()
    assert explained(real_stage).reason.cause == "no worker"


def test_the_scheduler_cannot_send_it(
    real_stage: RealStage, table: Rows, executor: NatsExecutor
) -> None:
    """The stream is full: NATS answers, and takes nothing."""
    names = real_stage.names
    config = real_stage.ask("stream_config", names.tasks_stream)
    full = {**config, "max_bytes": 1, "discard_new_per_subject": True}
    real_stage.ask("update_stream", full)
    queue_up(executor, task_workload(**queued(table)))

    def fails() -> bool:
        executor.heartbeat()
        return executor._outage.trouble is not None

    block_until(fails, 30, "a publish to fail")
    found = becomes(real_stage, "not sent")

    assert found.reason.cause.needs_person
    assert found.situation.sender.trouble_seconds < 60


def test_nats_has_lost_it_and_it_is_sent_again(
    real_stage: RealStage, table: Rows, executor: NatsExecutor
) -> None:
    [sent] = real_stage.sent_by(executor, task_workload(**queued(table)))
    names = real_stage.names
    assert explained(real_stage).reason.cause == "no worker"

    real_stage.ask("remove", names.tasks_stream, names.task("default", sent.dispatch_id))

    assert explained(real_stage).reason.cause == "lost"

    def is_sent_again() -> bool:
        executor.heartbeat()
        return bool(real_stage.sent())

    block_until(is_sent_again, 60, "it to be sent again")
    assert explained(real_stage).reason.cause == "no worker"


def test_its_token_is_renewed(real_stage: RealStage, table: Rows, executor: NatsExecutor) -> None:
    [sent] = real_stage.sent_by(executor, task_workload(**queued(table)))
    real_stage.report(sent, State.EXPIRED)

    def is_read() -> bool:
        executor.sync()
        announce(real_stage)
        return explained(real_stage).reason.cause == "token renewal"

    block_until(is_read, 60, "the report to be read")


def test_a_report_of_its_end_is_not_read_yet(
    real_stage: RealStage, table: Rows, executor: NatsExecutor
) -> None:
    [sent] = real_stage.sent_by(executor, task_workload(**queued(table)))
    real_stage.report(sent, State.DROPPED)
    names = real_stage.names
    real_stage.ask("remove", names.tasks_stream, names.task("default", sent.dispatch_id))

    assert explained(real_stage).reason.cause == "over"


def test_it_was_too_large(real_stage: RealStage, table: Rows, executor: NatsExecutor) -> None:
    """The scheduler writes down what the executor says of the end."""
    from airflow.models.log import Log

    workload = task_workload(**queued(table), context_carrier={"x": "y" * 2_000_000})
    queue_up(executor, workload)
    executor.heartbeat()
    [(state, info)] = executor.get_event_buffer().values()
    assert state == "failed"
    table.change_task("t", state="failed")
    table.add(
        Log, dag_id="a_dag", run_id="a_run", task_id="t", map_index=-1, try_number=1,
        event="state mismatch", extra=f"Extra info: {info}", owner="x", dttm=datetime.now(UTC),
    )  # fmt: skip

    found = explained(real_stage)

    assert found.reason.cause == "too large"
    assert "max_payload is 1048576" in found.reason.sentence


@pytest.fixture
def dead_job(table: Rows) -> Iterator[int]:
    """A scheduler whose process is gone."""
    number = 99
    table.add(
        Job, id=number, job_type="SchedulerJob", state="running",
        latest_heartbeat=datetime.fromtimestamp(time.time() - 3600, UTC),
    )  # fmt: skip
    yield number
    with create_session(scoped=False) as session:
        session.execute(delete(Job).where(Job.id == number))


def test_its_scheduler_is_lost(
    real_stage: RealStage,
    table: Rows,
    executor: NatsExecutor,  # noqa: ARG001
    dead_job: int,
) -> None:
    """Another one lives, and has not taken it over yet."""
    queued(table, queued_by_job_id=dead_job)

    found = explained(real_stage)

    assert found.reason.cause == "scheduler lost"
    assert found.reason.sentence.startswith("Its scheduler (job 99) has been silent for 60 min;")


def test_a_claim_of_another_dispatch_says_nothing(
    real_stage: RealStage, table: Rows, executor: NatsExecutor
) -> None:
    ids = queued(table)
    queue_up(executor, task_workload(**ids))
    executor.heartbeat()
    table.change_task("t", external_executor_id="another")

    assert explained(real_stage).reason.cause == "executor full"

"""A queue that an operator has deleted is made again by the task that comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.scheduler.stage import task_workload
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from nats_executor import NatsExecutor
    from tests.scheduler.stage import Stage


def consumers(stage: Stage) -> set[str]:
    return {info.name for info in stage.ask("consumer_infos", stage.names.tasks_stream)}


def delete(stage: Stage) -> None:
    for name in consumers(stage):
        stage.ask("delete_consumer", stage.names.tasks_stream, name)


def opened(executor: NatsExecutor) -> set[str]:
    assert executor._connected
    found: set[str] = executor._connected.dispatcher._streams.queues
    return found


def test_a_task_that_was_sent_at_that_moment_does_not_wait_for_ever(stage: Stage) -> None:
    """The executor takes the queue for open, so its message has no consumer at first."""
    stage.configure(sweep_seconds=0.2)
    executor = stage.executor()
    stage.sent_by(executor, task_workload("t", queue="gpu"))
    before = consumers(stage)

    delete(stage)

    block_until(lambda: consumers(stage) == before, 60, "its consumers")
    assert opened(executor) == {"gpu"}


def test_an_empty_queue_stays_deleted_until_its_next_task(stage: Stage) -> None:
    stage.configure(sweep_seconds=0.2)
    executor = stage.executor()
    [sent] = stage.sent_by(executor, task_workload("t", queue="gpu"))
    before = consumers(stage)
    [subject] = stage.subjects()
    stage.ask("remove", stage.names.tasks_stream, subject)
    assert sent.queue == "gpu"

    delete(stage)

    block_until(lambda: not opened(executor), 60, "the executor to notice it")
    assert consumers(stage) == set()
    stage.sent_by(executor, task_workload("u", queue="gpu"))
    assert consumers(stage) == before

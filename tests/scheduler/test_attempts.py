"""Airflow 3.4: attempts that share dag, task, run, index and try number, which loops bring."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from airflow.utils.state import TaskInstanceState

from nats_executor.scheduler import compat
from nats_executor.wire.messages import State
from tests.scheduler.stage import events, task_workload
from tests.support.waiting import block_until

regions: Any = pytest.importorskip(
    "airflow.models.dynamic_region", reason="before Airflow 3.4 the coordinates name one attempt"
)

from tests.scheduler.loops import Loop, Scheduler, Workers  # noqa: E402 - 3.4 alone can import it

if TYPE_CHECKING:
    from tests.scheduler.stage import RealStage, Stage

pytestmark = pytest.mark.usefixtures("airflow_database")

SUCCESS = TaskInstanceState.SUCCESS
SLOTS = 400
SEED = 13


def test_two_attempts_with_the_same_coordinates_are_both_held_and_both_end(stage: Stage) -> None:
    executor = stage.executor()
    one, two = task_workload(), task_workload()

    sent = stage.sent_by(executor, one, two)
    names = {dispatch.name for dispatch in executor._events.ledger}
    for workload in sent:
        stage.report(workload, State.SUCCESS)

    assert one.key == two.key
    assert names == {f"{task.key} {task.ti.id}" for task in (one, two)}
    ended = dict.fromkeys((compat.key_of(one), compat.key_of(two)), (SUCCESS, None))
    assert events(executor, 2) == ended


@pytest.mark.integration
@pytest.mark.usefixtures("loops")
@pytest.mark.timeout(900)
def test_thousands_of_attempts_that_share_coordinates_end_once_each(
    real_stage: RealStage, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Retries, kills, lost workers, and a database that takes back what events have changed."""
    caplog.set_level(logging.INFO)
    real_stage.monkeypatch.setattr("nats_executor.scheduler.confirmations.FIRST_PAUSE", 0.01)
    loop = Loop(regions, iterations=20, width=50)
    executor = real_stage.executor(parallelism=SLOTS)
    scheduler, workers = Scheduler(executor), Workers(real_stage, SEED)
    beats = itertools.count(1)

    def is_over() -> bool:
        scheduler.beat(loses_events=not next(beats) % 3)
        workers.work()
        return not workers.late and {row.state for row in loop.live()} == {SUCCESS}

    def is_idle() -> bool:
        scheduler.beat()
        return not executor.slots_occupied

    block_until(is_over, 600, "the end of the loop")
    block_until(is_idle, 60, "free slots")

    attempts = loop.attempts()
    assert workers.dispatched == dict.fromkeys((row.id for row in attempts), 1)
    tries = Counter(row.try_number for row in loop.live())
    assert len(attempts) == sum(number * count for number, count in tries.items()) > 2 * loop.size
    assert len(executor._events.ledger) == 0
    said = caplog.text + capfd.readouterr().out
    assert "Discarding executor event" not in said
    assert "the scheduler missed its end; next: telling it again" in said

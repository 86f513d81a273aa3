"""A Celery Airflow under load moves to NATS and back: nothing fails, is lost or runs twice."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.airflow.postgres import PostgresServer
from tests.celery.stage import CELERY, DAGS, NATS, Load, MovingAirflow
from tests.support.require import require

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.airflow, pytest.mark.celery, pytest.mark.timeout(5400)]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MovingAirflow]:
    has_celery = importlib.util.find_spec("airflow.providers.celery") is not None
    require(has_celery, "the celery provider is not installed: make test-celery")
    require(shutil.which("redis-server"), "Redis is not installed")
    home = tmp_path_factory.mktemp("moving")
    with PostgresServer() as postgres, MovingAirflow(home, postgres.url) as moving:
        yield moving


class Clock:
    """What each step has taken, for the table at the end."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, float]] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.steps.append((name, time.monotonic() - began))
        say(f"{self.steps[-1][1]:6.1f} s  {name}")


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def move_one_after_the_other(
    airflow: MovingAirflow, clock: Clock, executor: str, to: str, default: str
) -> None:
    """Move every Dag, each while a task of it runs; runs that began before stay where they are."""
    for dag_id in DAGS:
        with clock.step(f"{dag_id} moves to {executor}"):
            held = airflow.hold(dag_id)
            airflow.move(dag_id, executor)
            airflow.wait(partial(airflow.is_moved, dag_id, executor), f"{dag_id} to move")
            newer = airflow.hold(dag_id)
            airflow.release(held, newer)
            [before, after] = [
                {e.worker for e in airflow.executions() if e.run_id == f"{dag_id}-{name}"}
                for name in (held, newer)
            ]
            assert to not in before
            assert after == {to}
    with clock.step(f"{default} runs out of tasks"):
        airflow.wait(
            lambda: airflow.left(default, is_default=True) == 0,
            f"{default} to have nothing left",
        )


def test_a_celery_airflow_moves_to_nats_and_back(airflow: MovingAirflow) -> None:
    clock = Clock()
    airflow.start_worker("celery")
    airflow.wait_for_workers()
    with Load(airflow, runs_at_a_time=5) as load:
        began = time.monotonic()
        with clock.step("Celery alone, then both"):
            switch_while_a_task_runs(airflow, "nats", CELERY, NATS)
        move_one_after_the_other(airflow, clock, NATS, "nats", CELERY)
        with clock.step("both, then NATS alone"):
            switch_while_a_task_runs(airflow, "", NATS, leaving="celery")
            airflow.stop("redis")
        there = time.monotonic() - began
        with clock.step("tasks name no executor any more"):
            airflow.moved.unlink()
            airflow.write_stocks(None)
            for dag_id in DAGS:
                airflow.wait(partial(airflow.is_moved, dag_id, None), f"{dag_id}'s new runs")

        began = time.monotonic()
        airflow.start_redis()
        with clock.step("NATS alone, then both"):
            switch_while_a_task_runs(airflow, "celery", NATS, CELERY)
        move_one_after_the_other(airflow, clock, CELERY, "celery", NATS)
        with clock.step("both, then Celery alone"):
            switch_while_a_task_runs(airflow, "", CELERY, leaving="nats")
        back = time.monotonic() - began
    if load.failure is not None:
        raise load.failure
    with clock.step("all that was begun ends"):
        unfinished = "SELECT 1 FROM dag_run WHERE state IN ('queued', 'running')"
        airflow.wait(lambda: not airflow.rows(unfinished), "every run to end")

    assert list(airflow.faults()) == []
    executions = airflow.executions()
    by_worker = {kind: sum(e.worker == kind for e in executions) for kind in ("celery", "nats")}
    assert min(by_worker.values()) > 0
    say(f"there {there:.0f} s, back {back:.0f} s; {load.count} runs, tasks by worker: {by_worker}")


def switch_while_a_task_runs(
    airflow: MovingAirflow, coming: str, *executors: str, leaving: str = ""
) -> None:
    """Change the list of executors and restart everything, with a task that runs all the while."""
    held = airflow.hold("bills")
    if leaving:
        airflow.stop_workers(leaving)
    airflow.switch(*executors)
    if coming:
        airflow.start_worker(coming)
        airflow.wait_for_workers()
    airflow.release(held)
    airflow.see_off()

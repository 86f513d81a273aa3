"""Airflow 3.4: a mapped task in a loop, on a whole Airflow with real workers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nats_executor.scheduler.compat import AIRFLOW_V_3_4_PLUS
from tests.airflow.deployed import Airflow, pid_of
from tests.airflow.environment import FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not AIRFLOW_V_3_4_PLUS, reason="Airflow 3.3 has no loops"),
]

DAGS = Path(__file__).parent / "loop_dags"
ITERATIONS, WIDTH = 3, 12
OVER = "SELECT state FROM dag_run WHERE dag_id = 'looping' AND state != 'running'"
LIVE = "SELECT state FROM task_instance WHERE task_id = 'body.work' AND working_set"
WORKERS = "worker-1", "worker-2"


@pytest.fixture(name="looping")
def looping_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    home = tmp_path_factory.mktemp("looping")
    database = f"sqlite:///{home}/airflow.db?timeout=30"
    settings = FAULTS | {"CORE__DAGS_FOLDER": DAGS}

    def start_two_workers(airflow: Airflow) -> None:
        for name in WORKERS:
            airflow.add_worker(name, queues="default", concurrency=4)

    with Airflow(
        home, database=database, dags=("looping",), settings=settings, workers=start_two_workers
    ) as airflow:
        yield airflow
    shutil.rmtree(home, ignore_errors=True)


def test_each_attempt_in_a_loop_ends_once_with_retries_kills_and_a_lost_worker(
    looping: Airflow,
) -> None:
    looping.trigger("looping")
    [pid] = looping.wait_for_hold("unlucky")
    above = ancestors(pid)
    [victim] = [name for name in WORKERS if pid_of(looping.component(name)) in above]
    looping.kill(victim)
    looping.wait_for_death(pid)

    looping.wait(lambda: looping.rows(OVER), "the run to end", seconds=400)

    assert looping.rows(OVER) == [{"state": "success"}]
    assert [row["state"] for row in looping.rows(LIVE)] == ["success"] * ITERATIONS * WIDTH
    ended = looping.lines("ended")
    assert sorted(ended) == sorted(f"{i} {n}" for i in range(ITERATIONS) for n in range(WIDTH))
    begun = looping.lines("begun")
    assert len(begun) == len(set(begun))
    said = looping.log_of("scheduler")
    assert "Discarding executor event" not in said


def ancestors(pid: int) -> list[int]:
    """Return the processes that a process descends from."""
    found = []
    while pid > 1:
        status = Path(f"/proc/{pid}/status").read_text()
        pid = int(next(line for line in status.splitlines() if line.startswith("PPid:")).split()[1])
        found.append(pid)
    return found

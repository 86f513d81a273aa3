"""Callbacks of missed deadlines: their logs, and their end when a worker dies after their start."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.scheduler.compat import AIRFLOW_V_3_4_PLUS
from nats_executor.wire.names import Names
from tests.airflow.deployed import Airflow
from tests.airflow.environment import FAULTS
from tests.rolling.balancer import CHUNK, Balancer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

DAGS = """
from datetime import timedelta

from airflow.sdk import DAG, task
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

for name in ("told", "cut"):
    with DAG(
        name,
        schedule=None,
        deadline=DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(seconds=0),
            callback=SyncCallback(
                "tests.airflow.lib.proving_callbacks.speak", kwargs={"name": name}
            ),
        ),
    ) as dag:

        @task(queue="unserved")  # so that the run goes on
        def waits():
            pass

        waits()
    globals()[name] = dag
"""
SETTINGS = {
    **FAULTS,
    "LOGGING__LOGGING_CONFIG_CLASS": "nats_executor.logging_config.LOGGING_CONFIG",
    "LOGGING__REMOTE_LOGGING": True,
    "LOGGING__REMOTE_BASE_LOG_FOLDER": "nats://",
}


class Swallower(Balancer):
    """Passes on everything but the answers to a callback's start.

    Attributes:
        swallowed: how many of these have come.
    """

    swallowed = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (far := await self.connect()) is None:
            return
        is_start = False

        async def ask() -> None:
            nonlocal is_start
            while data := await reader.read(CHUNK):
                is_start = is_start or b"/execution/callbacks/" in data
                far[1].write(data)

        async def answer() -> None:
            while data := await far[0].read(CHUNK):
                if is_start:
                    self.swallowed += 1
                else:
                    writer.write(data)

        tasks = {asyncio.create_task(ask()), asyncio.create_task(answer())}
        self.tasks |= tasks
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, far[1]):
            end.transport.abort()


def start_far_worker(airflow: Airflow, name: str = "far-1", **settings: object) -> None:
    """Start a worker with log files of its own, as on another machine; it serves none of them."""
    process = airflow.deployment.worker(name, queues="default", concurrency=2)
    folder = airflow.home / f"{name}-logs"
    own = {"LOGGING__BASE_LOG_FOLDER": folder, **settings}
    process.env = airflow.deployment.env | {f"AIRFLOW__{k}": str(v) for k, v in own.items()}
    airflow.launch(process, airflow.workers)


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    home = tmp_path_factory.mktemp("late")
    dags = tmp_path_factory.mktemp("dags")
    (dags / "late.py").write_text(DAGS)
    airflow = Airflow(
        home,
        database=f"sqlite:///{home}/airflow.db?timeout=30",
        dags=["told", "cut"],
        settings={**SETTINGS, "CORE__DAGS_FOLDER": dags},
        workers=start_far_worker,
    )
    with airflow:
        yield airflow


def row_of(airflow: Airflow, dag_id: str) -> dict[str, Any]:
    """The one callback of a run, with the id as people write it."""
    rows = airflow.rows("SELECT * FROM callback")
    [row] = [row for row in rows if airflow.runs[dag_id] in str(row["data"])]
    return row


def test_the_log_of_a_callback_is_kept_and_shown(late: Airflow) -> None:
    """Airflow 3.3 shows it nowhere; it is in NATS all the same."""
    late.trigger("told")
    late.wait(lambda: late.callbacks("told") == ["success"], "the callback's success")
    late.stop("far-1")

    assert (late.marks / "told-spoke").exists()
    assert late.messages(Names().logs_stream) > 0
    if AIRFLOW_V_3_4_PLUS:
        run, callback = late.runs["told"], row_id(row_of(late, "told"))
        path = f"/ui/dags/told/dagRuns/{run}/callbacks/{callback}/logs"
        events = [message["event"] for message in late.api.call("GET", path)["content"]]
        assert "a word that was spoken" in events


@pytest.mark.skipif(not AIRFLOW_V_3_4_PLUS, reason="Airflow 3.3 has no start of callbacks")
def test_a_worker_that_dies_after_the_start_leaves_one_end(late: Airflow) -> None:
    """The API server has exchanged the token, and no other worker can have it exchanged."""
    with Swallower([late.port]) as cable:
        url = f"http://127.0.0.1:{cable.port}/execution/"
        start_far_worker(late, "cut-1", CORE__EXECUTION_API_SERVER_URL=url)
        late.trigger("cut")
        late.wait(lambda: cable.swallowed, "the answer to its start")
        before = late.callbacks("cut")
        late.kill("cut-1")
        start_far_worker(late, "far-2")
        late.wait(lambda: late.callbacks("cut") != ["running"], "its end")

    row = row_of(late, "cut")
    assert before == ["running"]
    assert row["state"] == "failed"
    assert "worker cut-1 started it before" in row["output"]
    late.wait_for_loop()
    heard = [line for line in late.log_of("scheduler").splitlines() if row_id(row) in line]
    ends = [line for line in heard if "executor event with state" in line and "running" not in line]
    assert len(ends) == 1, heard
    assert not (late.marks / "cut-spoke").exists()


def row_id(row: dict[str, Any]) -> str:
    """The id as the scheduler writes it; SQLite keeps it without dashes."""
    return str(uuid.UUID(str(row["id"])))

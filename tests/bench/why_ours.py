"""Asks what tasks wait for, in a database and a queue with very many of them; `why.py` runs it.

The queue has one worker, which is full and answers questions, and sixteen messages are with it.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from datetime import timedelta
from typing import Any

from airflow.configuration import conf
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import timezone
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import delete, insert

from nats_executor.batches import batches
from nats_executor.broker.connection import connect
from nats_executor.broker.port import Broker, Outgoing
from nats_executor.operations.instances import WhichTask
from nats_executor.operations.situations import explain
from nats_executor.settings import Settings
from nats_executor.topology import setup
from nats_executor.wire.descriptions import Description, encode_description
from nats_executor.wire.messages import Kind, Presence, Workload, encode
from nats_executor.wire.names import Verb
from tests.bench.aside import answer, asked

QUEUE, RUN = "default", "a_run"
DAGS, SLOTS = 20, 16
WINDOW, ROWS = 512, 5_000
WORKER = Presence(
    worker="w1.1", name="w1", host="h", pid=1, queues=[QUEUE], concurrency=SLOTS, running=SLOTS,
    draining=False, started_at=0.0, at=0.0, version="1", bands=9,
)  # fmt: skip


def main() -> None:
    request = asked()
    ids = [str(uuid.uuid4()) for _ in range(request["waiting"])]
    with create_session(scoped=False) as session:
        for model in (TaskInstance, DagRun, DagModel, DagBundleModel):
            session.execute(delete(model.__table__))
        add_rows(session, ids)
    answer({"milliseconds": asyncio.run(ask(ids, request["questions"]))})


def dag_of(number: int) -> str:
    return f"dag{number % DAGS}"


def add_rows(session: Any, ids: list[str]) -> None:
    now = timezone.utcnow()
    add(session, DagBundleModel, [{"name": "dags"}])
    add(session, DagModel, [
        {"dag_id": dag_of(n), "bundle_name": "dags", "max_active_tasks": 1,
         "max_consecutive_failed_dag_runs": 0, "has_task_concurrency_limits": False}
        for n in range(DAGS)
    ])  # fmt: skip
    add(session, DagRun, [
        {"dag_id": dag_of(n), "run_id": RUN, "run_type": "manual", "run_after": now,
         "state": DagRunState.RUNNING} for n in range(DAGS)
    ])  # fmt: skip
    common = {
        "run_id": RUN, "try_number": 1, "queue": QUEUE, "pool": "default_pool", "pool_slots": 1,
        "priority_weight": 1, "state": TaskInstanceState.QUEUED,
    }  # fmt: skip
    rows = [
        common | {"id": uuid.UUID(id_), "dag_id": dag_of(n), "task_id": f"t{n}",
                  "external_executor_id": id_,
                  "queued_dttm": now + timedelta(milliseconds=n)}
        for n, id_ in enumerate(ids)
    ]  # fmt: skip
    for batch in batches(rows, ROWS):
        add(session, TaskInstance, list(batch))


def add(session: Any, model: Any, rows: list[dict[str, Any]]) -> None:
    session.execute(insert(model.__table__), rows)


async def ask(ids: list[str], questions: int) -> list[float]:
    """Return the milliseconds of each question."""
    settings = Settings.load(conf)
    async with connect(settings, role="bench") as broker:
        await broker.ready(10.0)
        await fill(broker, settings, ids)
        taken = []
        # Not for secrets: places all over the queue.
        for number in random.Random(1).choices(range(len(ids)), k=questions):  # noqa: S311
            began = time.perf_counter()
            which = WhichTask(dag_of(number), RUN, f"t{number}")
            found = await explain(broker, settings, which)
            taken.append(1000 * (time.perf_counter() - began))
            assert found.situation.is_in_stream, found
        return taken


async def fill(broker: Broker, settings: Settings, ids: list[str]) -> None:
    """Send all of them, and have a worker that is full."""
    names = settings.names
    await setup.apply(broker, settings, [QUEUE])
    await broker.publish(names.presence(QUEUE, WORKER.name), encode(WORKER))

    async def describe(_: bytes) -> bytes:
        told = Description(
            worker=WORKER.worker, name=WORKER.name, at=time.time(), started_at=0.0,
            connected_at=0.0, version="1", airflow="1", python="1",
        )  # fmt: skip
        return encode_description(told)

    await broker.serve(names.control(WORKER.worker, Verb.DESCRIBE), describe)
    band = settings.lane(QUEUE, 1).band
    for window in batches(ids, WINDOW):
        messages = [
            Outgoing(names.task(QUEUE, id_, band), encode(Workload(
                dispatch_id=id_, queue=QUEUE, kind=Kind.TASK, body={"x": "y" * 500}, key=[],
                sender="bench",
            )))
            for id_ in window
        ]  # fmt: skip
        assert not any(await broker.publish_all(messages, timeout=30.0))
    pulls = await broker.pull(names.tasks_stream, names.consumer(QUEUE, band))
    await pulls.take(min(SLOTS, len(ids)))


if __name__ == "__main__":
    main()

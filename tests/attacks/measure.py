"""Measure the storage of the usual messages, for the sizes in docs/explanation/security.md.

python -m tests.attacks.measure
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from nats_executor.broker.connection import connect
from nats_executor.topology import setup
from nats_executor.topology.wanted import stream_configs
from nats_executor.wire.fitting import fitted_presence, fitted_report
from nats_executor.wire.messages import Kind, Presence, Report, State, Workload, encode
from tests.scheduler.stage import task_workload
from tests.support.fixtures import settings_for
from tests.support.nats_server import NatsServer

if TYPE_CHECKING:
    from nats_executor.broker.port import Broker
    from nats_executor.wire.names import Names

NUMBER = 1000
POD = "airflow-worker-7d9f8b6c5-abcde"
KEY = ["sales_daily", "extract_orders", "scheduled__2026-11-29T00:00:00+00:00", 1, -1]
SENDER = "airflow-scheduler-5c6d7f8b9-fghij.1a2b3c4d"


async def store(broker: Broker, names: Names) -> None:
    """Store a workload, its report, its dead letter and a worker's record."""
    body = json.loads(task_workload("extract_orders").model_dump_json())
    body["token"] = "e" * 900  # as long as Airflow's are
    id_ = str(uuid.uuid4())
    workload = Workload(
        dispatch_id=id_, queue="default", kind=Kind.TASK, body=body, key=KEY, sender=SENDER,
        sent_at=time.time(),
    )  # fmt: skip
    report = Report(
        dispatch_id=id_, queue="default", state=State.SUCCESS, kind=Kind.TASK, key=KEY,
        worker=f"{POD}.{uuid.uuid4().hex}", worker_name=POD, sender=SENDER, pid=12345,
        at=time.time(),
    )  # fmt: skip
    presence = Presence(
        worker=report.worker, name=id_, host=POD, pid=7, queues=["default"],
        concurrency=16, running=3, draining=False, started_at=time.time(), at=time.time(),
        version="0.1.0", bands=3,
    )  # fmt: skip
    await broker.publish(names.task("default", id_), encode(workload), message_id=id_)
    await broker.publish(names.result("default", id_), fitted_report(report), expected_last=0)
    await broker.publish(names.presence("default", id_), fitted_presence(presence))
    reason = {"Airflow-Reason": "unknown workload type 'X'"}
    await broker.publish(names.dead_letter("default", id_), encode(workload), headers=reason)


async def measure(server: NatsServer) -> None:
    settings = settings_for(server.url)
    async with connect(settings, role="measure") as broker:
        await broker.ready(5)
        await setup.apply(broker, settings, ["default"])
        for _ in range(NUMBER):
            await store(broker, settings.names)
        for wanted in stream_configs(settings):
            info = await broker.stream_info(wanted["name"])
            assert info is not None
            fits = wanted["max_bytes"] * info.messages // info.bytes
            sys.stdout.write(
                f"{info.name}: {info.bytes / info.messages:.0f} bytes a message, {fits:,} fit in\n"
            )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        server = NatsServer(Path(directory))
        try:
            asyncio.run(measure(server.start()))
        finally:
            server.kill()

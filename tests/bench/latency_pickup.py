"""Workloads for an idle worker, one at a time; `latency.py` runs it.

`claimed` is when the worker says that it has it, `supervisor` when a new process is below its fork
server, looked for every half millisecond, and `first-request` when the API server hears of it.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nats_executor.broker.connection import connect
from nats_executor.topology import setup
from nats_executor.wire.messages import Report, State, decode
from nats_worker.processes.linux import children_of
from tests.bench.aside import answer, asked
from tests.bench.stage import settings_of
from tests.support.execution_api import ExecutionApi, Received
from tests.support.process_stage import make_home, task_body
from tests.support.waiting import wait_until
from tests.support.worker_process import Post, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats_executor.broker.port import Broker
    from nats_executor.settings import Settings

LOOK_SECONDS = 0.0005
WAIT_SECONDS = 60.0
# The first ones find caches cold, as no worker has them for long.
WARM_UP = 3


class TimedApi(ExecutionApi):
    """Notes when it is first asked about a task instance."""

    def __init__(self) -> None:
        super().__init__()
        self.first_at: dict[str, float] = {}

    def answer(self, request: Received) -> tuple[int, Any]:
        self.first_at.setdefault(request.about, time.time())
        return super().answer(request)


def main() -> None:
    request = asked()
    prefix = os.environ["AIRFLOW__NATS_EXECUTOR__SUBJECT_PREFIX"]
    place = Path(request["directory"]) / prefix
    marks, output = place / "marks", place / "output"
    for directory in (marks, output):
        directory.mkdir(parents=True)
    with TimedApi() as api:
        database = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
        os.environ.update(make_home(place, api, marks))
        os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = database
        os.environ["AIRFLOW__CORE__MULTI_TEAM"] = "False"
        settings = settings_of(request["url"], prefix)
        answer(asyncio.run(measured(settings, api, output, request["count"])))


async def measured(
    settings: Settings, api: TimedApi, output: Path, count: int
) -> dict[str, list[float]]:
    async with connect(settings, role="bench") as broker:
        await broker.ready(10.0)
        await setup.apply(broker, settings, ["default"])
        async with claims(broker, settings) as claimed, idle_worker(settings, output) as worker:
            watch = Watch(worker.pid)
            post = Post(broker, settings)
            rows = []
            for number in range(-WARM_UP, count):
                row = await one(post, watch, api, claimed)
                if number >= 0:
                    rows.append(row)
    return {name: [row[name] for row in rows] for name in rows[0]}


async def one(
    post: Post, watch: Watch, api: TimedApi, claimed: dict[str, float]
) -> dict[str, float]:
    """Send one workload and return the seconds to each thing that becomes of it."""
    dispatch_id = str(uuid.uuid4())
    body = task_body("succeed", dispatch_id)
    known = children_of(watch.fork_server)
    looking = asyncio.create_task(watch.next_child(known))
    await asyncio.sleep(0)
    sent = time.time()
    await post.send(body, dispatch_id)
    supervisor = await looking
    await wait_until(lambda: dispatch_id in api.first_at, WAIT_SECONDS, "a request")
    await wait_until(lambda: dispatch_id in claimed, WAIT_SECONDS, "a claim")
    await post.reported(dispatch_id, State.SUCCESS)
    gone = lambda: not children_of(watch.fork_server)  # noqa: E731 - a name says what it is
    await wait_until(gone, WAIT_SECONDS, "the supervisor's end")
    return {
        "supervisor": supervisor - sent,
        "claimed": claimed[dispatch_id] - sent,
        "first-request": api.first_at[dispatch_id] - sent,
    }


class Watch:
    """Looks for new supervisors; the fork server is the worker's one child with Airflow in it."""

    def __init__(self, worker: int) -> None:
        (self.fork_server,) = children_of(worker)

    async def next_child(self, known: set[int]) -> float:
        deadline = time.monotonic() + WAIT_SECONDS
        while not children_of(self.fork_server) - known:
            if time.monotonic() > deadline:
                raise TimeoutError("no supervisor")
            await asyncio.sleep(LOOK_SECONDS)
        return time.time()


@asynccontextmanager
async def claims(broker: Broker, settings: Settings) -> AsyncIterator[dict[str, float]]:
    """Collect when each workload was claimed, by the worker's clock, which is this one's."""
    found: dict[str, float] = {}

    async def follow() -> None:
        async for message in broker.follow(settings.names.results_stream, after=0):
            report = decode(Report, message.body)
            if report.state is State.CLAIMED:
                found[report.dispatch_id] = report.at

    following = asyncio.create_task(follow())
    try:
        yield found
    finally:
        following.cancel()
        await asyncio.wait([following])


@asynccontextmanager
async def idle_worker(settings: Settings, output: Path) -> AsyncIterator[WorkerProcess]:
    worker = WorkerProcess.launch(output, settings, "--skip-serve-logs")
    try:
        await worker.said("is ready")
        yield worker
    finally:
        worker.clear_away()


if __name__ == "__main__":
    main()

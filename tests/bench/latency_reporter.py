"""A worker's side of reports: says of one workload after the other that it is over."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from nats_executor.broker.connection import connect
from nats_executor.wire.messages import Report, State, Workload, decode, encode
from tests.bench.aside import answer, asked
from tests.bench.stage import settings_of

# Apart, so that each one is alone under way.
PAUSE_SECONDS = 0.005


async def report(request: dict[str, Any]) -> None:
    settings = settings_of(request["url"], request["prefix"])
    names = settings.names
    async with connect(settings, role="bench") as broker:
        await broker.ready(10.0)
        stored = await broker.scan(names.tasks_stream, names.tasks())
        first = request["first"]
        for message in stored[first : first + request["count"]]:
            about = decode(Workload, message.body)
            subject = names.result(about.queue, about.dispatch_id)
            await asyncio.sleep(PAUSE_SECONDS)
            over = Report(
                dispatch_id=about.dispatch_id, queue=about.queue, state=State.SUCCESS,
                kind=about.kind, key=about.key, worker="w1", worker_name="worker-1",
                at=time.time(),
            )  # fmt: skip
            await broker.publish(subject, encode(over))


if __name__ == "__main__":
    asyncio.run(report(asked()))
    answer({})

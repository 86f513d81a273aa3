"""nats-py alone publishes what NatsExecutor would; `dispatch.py` runs it."""

from __future__ import annotations

import asyncio
import gc
import importlib
import time
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from nats_executor import NatsExecutor
from nats_executor.batches import batches
from nats_executor.broker.connection import connect
from nats_executor.broker.port import Outgoing
from nats_executor.scheduler.dispatcher import WINDOW
from tests.bench.aside import answer, asked
from tests.scheduler.stage import queue_up, task_workload
from tests.support.rowless import never_look_for_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.settings import Settings

# The product has one door to it; this is about how much that door costs.
nats = importlib.import_module("nats")


def main() -> None:
    count = asked()["count"]
    messages, settings = recorded(count)
    assert len(messages) == count
    seconds = asyncio.run(published(settings, messages))
    answer({"rate": count / seconds})


def recorded(count: int) -> tuple[list[Outgoing], Settings]:
    """Let an executor make its streams and its messages, and keep them from the broker."""
    messages: list[Outgoing] = []

    async def publish_all(_self: Any, window: Sequence[Outgoing], **_: Any) -> list[None]:
        messages.extend(window)
        return [None] * len(window)

    never_look_for_rows()
    executor = NatsExecutor()
    executor.job_id = 1
    executor.start()
    try:
        queue_up(executor, *(task_workload(f"t{number}") for number in range(count)))
        with patch("nats_executor.broker.jetstream.JetStream.publish_all", publish_all):
            executor.heartbeat()
        return messages, executor._settings
    finally:
        executor.end()


async def published(settings: Settings, messages: Sequence[Outgoing]) -> float:
    """Return the seconds until nats-py has every confirmation."""
    client = await nats.connect(settings.servers[0])
    try:
        jetstream = client.jetstream()
        await send(jetstream, [Outgoing(messages[0].subject + "-first", b"", "first")])
        gc.collect()  # what the set-up left behind must not be cleared up in the measured time
        began = time.perf_counter()
        await send(jetstream, messages)
        seconds = time.perf_counter() - began
    finally:
        await client.close()
    async with connect(settings, role="bench") as broker:
        await broker.ready(10.0)
        info = await broker.stream_info(settings.names.tasks_stream)
        assert info
        assert info.messages == len(messages) + 1
    return seconds


async def send(jetstream: Any, messages: Sequence[Outgoing]) -> None:
    for window in batches(messages, WINDOW):
        await asyncio.gather(
            *(
                jetstream.publish(m.subject, m.body, headers={"Nats-Msg-Id": m.message_id})
                for m in window
            )
        )


if __name__ == "__main__":
    main()

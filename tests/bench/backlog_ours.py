"""Publishes, pulls and acks beside two backlogs in turn; `backlog.py` runs it.

Both backlogs are on one server, each in streams of its own, so that what else the machine does
meets both alike. What is published is pulled again from the front: the backlog stays as long.

A worker pulls while other tasks of its queue run, whose messages are not acked yet (`pull-`). Where
none runs, the pull starts at the stream's first message, and nats-server counts the whole queue
before it answers (`lone-pull-`): a worker with a single slot, alone with its queue.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from nats_executor import NatsExecutor
from nats_executor.batches import batches
from nats_executor.broker.connection import connect
from nats_executor.topology import setup
from nats_executor.wire.messages import Workload, encode
from tests.bench.aside import answer, asked
from tests.bench.stage import new_prefix, resident_megabytes, settings_of
from tests.scheduler.stage import task_workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.broker.port import Broker, Delivery, Pulls
    from nats_executor.settings import Settings

WINDOW = 512
# As many as a worker with many slots asks for at once.
PULLED = 100
QUEUE = "default"


class Backlog:
    """One queue with a number of messages in it."""

    def __init__(self, broker: Broker, settings: Settings, pulls: Pulls) -> None:
        self.broker = broker
        self.settings = settings
        self.pulls = pulls
        self.held: Sequence[Delivery] = []

    @classmethod
    async def open(cls, exits: AsyncExitStack, url: str) -> Backlog:
        settings = settings_of(url, new_prefix())
        broker = await exits.enter_async_context(connect(settings, role="bench"))
        await broker.ready(10.0)
        await setup.apply(broker, settings, [QUEUE])
        names = settings.names
        consumer = names.consumer(QUEUE)
        pulls = await broker.pull(names.tasks_stream, consumer)
        exits.push_async_callback(pulls.close)
        return cls(broker, settings, pulls)

    async def publish(self, count: int) -> float:
        """Return how many a second; the bodies are made before."""
        names = self.settings.names
        messages = []
        for _ in range(count):
            dispatch_id = str(uuid.uuid4())
            body = workload(dispatch_id)
            messages.append((names.task(QUEUE, dispatch_id), body, dispatch_id))
        began = time.perf_counter()
        for window in batches(messages, WINDOW):
            await asyncio.gather(
                *(self.broker.publish(s, b, message_id=id_) for s, b, id_ in window)
            )
        return count / (time.perf_counter() - began)

    async def take(self, count: int) -> float:
        """Pull so many and ack those before them; returns how many a second."""
        self.held = await self.pulls.take(1)
        taken = len(self.held)
        began = time.perf_counter()
        while taken < count:
            deliveries = await self.pulls.take(min(PULLED, count - taken))
            await self.ack_held()
            self.held = deliveries
            taken += len(deliveries)
        return taken / (time.perf_counter() - began)

    async def take_alone(self, count: int) -> float:
        """Pull and ack so many while nothing else runs; returns how many a second."""
        await self.ack_held()
        taken = 0
        began = time.perf_counter()
        while taken < count:
            self.held = await self.pulls.take(min(PULLED, count - taken))
            taken += len(self.held)
            await self.ack_held()
        return taken / (time.perf_counter() - began)

    async def ack_held(self) -> None:
        await asyncio.gather(*(delivery.ack() for delivery in self.held))
        self.held = []

    async def messages(self) -> int:
        info = await self.broker.stream_info(self.settings.names.tasks_stream)
        return info.messages if info else 0


BODY = task_workload().model_dump(mode="json")


def workload(dispatch_id: str) -> bytes:
    """Return a message as large as a scheduler's."""
    return encode(
        Workload(
            dispatch_id=dispatch_id, queue=QUEUE, kind="ExecuteTask", body=BODY,
            key=["a_dag", "t", "a_run", 1, -1], sender=NatsExecutor.__name__, sent_at=time.time(),
        )
    )  # fmt: skip


async def measured(request: dict[str, Any]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    batch = request["batch"]
    async with AsyncExitStack() as exits:
        backlogs = {}
        for name, level in request["levels"].items():  # the short one first: memory stays
            backlogs[name] = backlog = await Backlog.open(exits, request["url"])
            await backlog.publish(level)
            found[f"broker-rss-{name}"].append(resident_megabytes(request["pid"]))
        # The first one finds the server warmer or colder each time.
        for number in range(request["repetitions"]):
            order = list(backlogs)[:: 1 if number % 2 else -1]
            for take, way in (Backlog.take, "pull"), (Backlog.take_alone, "lone-pull"):
                for name in order:
                    found[f"publish-{name}"].append(await backlogs[name].publish(batch))
                for name in order:
                    found[f"{way}-{name}"].append(await take(backlogs[name], batch))
        for name, level in request["levels"].items():
            assert await backlogs[name].messages() == level
    return found


if __name__ == "__main__":
    answer(asyncio.run(measured(asked())))

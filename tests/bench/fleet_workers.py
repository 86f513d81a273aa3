"""Idle workers, hundreds in one process: connection, presence and pulls of each are the real ones.

Supervisors and their memory are not: this is about the broker.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from nats_executor.broker.connection import connect
from nats_executor.topology import setup
from nats_executor.wire.messages import Presence
from nats_worker.control.presence import Announcer
from nats_worker.intake.intake import Intake
from nats_worker.intake.slots import Slots
from tests.bench.aside import asked
from tests.bench.stage import settings_of

if TYPE_CHECKING:
    from nats_executor.broker.port import Delivery
    from nats_executor.settings import Settings

QUEUE = "default"
SLOTS = 16
# A deployment does not start its workers all at once either.
STARTING = 20


def refuse(queue: str, delivery: Delivery) -> None:
    raise AssertionError(f"nobody sends anything: {queue}, {delivery}")


class SimulatedWorker:
    """What an idle worker does on its connection."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self.name = name
        self.started_at = time.time()

    def describe(self) -> Presence:
        return Presence(
            worker=f"{self.name}-1", name=self.name, host=socket.gethostname(), pid=os.getpid(),
            queues=[QUEUE], concurrency=SLOTS, running=0, draining=False,
            started_at=self.started_at, at=time.time(), version="0",
        )  # fmt: skip

    async def start(self, exits: AsyncExitStack) -> list[asyncio.Task[Any]]:
        """Connect, take the name, answer pings, and wait for work."""
        settings = self.settings
        broker = await exits.enter_async_context(connect(settings, role="worker"))
        await broker.ready(60.0)
        await setup.apply(broker, settings, [QUEUE])
        announcer = Announcer(broker, settings, self.describe)

        async def pong(_: bytes) -> bytes:
            return b""

        await broker.serve(settings.names.peer(f"{self.name}-1"), pong)
        await announcer.claim_name()
        intake = Intake(broker, settings, [QUEUE], Slots(SLOTS), refuse)
        return [
            asyncio.create_task(announcer.beat_forever()),
            asyncio.create_task(intake.run()),
        ]


async def main(request: dict[str, Any]) -> None:
    """Start them a few at a time and stay until killed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    settings = settings_of(
        os.environ["AIRFLOW__NATS_EXECUTOR__SERVERS"],
        os.environ["AIRFLOW__NATS_EXECUTOR__SUBJECT_PREFIX"],
    )
    numbers = range(request["first"], request["first"] + request["workers"])
    gate = asyncio.Semaphore(STARTING)
    tasks: list[asyncio.Task[Any]] = []
    async with AsyncExitStack() as exits:

        async def start(number: int) -> None:
            async with gate:
                tasks.extend(await SimulatedWorker(settings, f"simulated-{number}").start(exits))

        await asyncio.gather(*(start(number) for number in numbers))
        await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main(asked()))

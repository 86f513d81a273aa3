"""Measure a worker with one slot, alone with its queue: what the next pull costs the broker.

`.venv/bin/python -m tests.bench.backlog_alone` prints the CPU of nats-server for each task, with
1,000 and with 100,000 that wait, for two orders of the pull and the ack: the ack before the next
pull, and, as workers do it, after that.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from nats_worker.intake.intake import Intake
from nats_worker.intake.slots import Slots
from tests.bench.backlog_ours import QUEUE, Backlog
from tests.bench.stage import cpu_seconds
from tests.support.nats_server import NatsServer

if TYPE_CHECKING:
    from nats_executor.broker.port import Delivery

LEVELS = (1_000, 100_000)
ORDERS = ("ack, then pull", "pull, then ack")
RUN_SECONDS = 0.02


class OneSlot:
    """A worker's intake and the reports of its tasks, without their processes."""

    def __init__(self, backlog: Backlog, order: str, tasks: int) -> None:
        self.backlog = backlog
        self.order = order
        self.left = tasks
        self.slots = Slots(1)
        self.is_done = asyncio.Event()
        self.errands: set[asyncio.Task[None]] = set()
        broker, settings = backlog.broker, backlog.settings
        self.intake = Intake(broker, settings, [QUEUE], self.slots, self.accept)

    def accept(self, _: str, delivery: Delivery) -> None:
        task = asyncio.create_task(self.carry(delivery))
        self.errands.add(task)
        task.add_done_callback(self.errands.discard)

    async def carry(self, delivery: Delivery) -> None:
        """Claim, run, free the slot, report, ack: as an errand does."""
        holding = self.slots.take()
        broker, names = self.backlog.broker, self.backlog.settings.names
        subject = names.result(QUEUE, names.place(delivery.subject).dispatch_id)
        claim = await broker.publish(subject, b"claimed", expected_last=0)
        await asyncio.sleep(RUN_SECONDS)
        if self.order == ORDERS[1]:
            self.slots.give(holding)
        await broker.publish(subject, b"success", expected_last=claim)
        if self.order == ORDERS[1]:
            await self.intake.looked()
        await delivery.ack()
        self.slots.give(holding)
        self.left -= 1
        if self.left <= 0:
            self.is_done.set()

    async def run(self) -> None:
        life = asyncio.create_task(self.intake.run())
        await self.is_done.wait()
        life.cancel()
        await asyncio.wait([life, *self.errands])


async def main(tasks: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        server = NatsServer(Path(directory)).start()
        assert server.process
        try:
            async with AsyncExitStack() as exits:
                backlogs = {}
                for level in LEVELS:
                    backlogs[level] = await Backlog.open(exits, server.url)
                    await backlogs[level].publish(level)
                for _ in range(rounds):
                    for order in ORDERS:
                        for level, backlog in backlogs.items():
                            before = cpu_seconds(server.process.pid)
                            await OneSlot(backlog, order, tasks).run()
                            used = 1000 * (cpu_seconds(server.process.pid) - before) / tasks
                            text = f"{order}, {level:>7,} waiting: {used:5.1f} ms of CPU a task\n"
                            sys.stdout.write(text)
                            sys.stdout.flush()
        finally:
            server.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=200, help="of each measurement (default 200)")
    parser.add_argument("--rounds", type=int, default=3, help="(default 3)")
    options = parser.parse_args()
    asyncio.run(main(options.tasks, options.rounds))

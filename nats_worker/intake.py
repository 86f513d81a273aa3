"""Pulls as many workloads as there are free slots, round robin over the queues."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING

from nats_executor.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nats_executor.ports import Broker, Delivery, Pulls
    from nats_executor.settings import Settings

    from nats_worker.slots import Slots

__all__ = ["Intake"]

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


class Intake:
    """The pulls of one worker, one durable consumer for each of its queues.

    `accept` gets each delivery with its queue and takes a slot for it before it returns.
    """

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        queues: Sequence[str],
        slots: Slots,
        accept: Callable[[str, Delivery], None],
    ) -> None:
        self._broker = broker
        self._names = settings.names
        self._queues = deque(queues)
        self._slots = slots
        self._accept = accept
        self._pulls: dict[str, Pulls] = {}
        self._waits: dict[str, asyncio.Task[Delivery]] = {}
        self._is_closing = False

    async def run(self) -> None:
        """Pull until cancelled; what arrives after that goes back to the broker at once."""
        for queue in self._queues:
            consumer = self._names.consumer(queue)
            self._pulls[queue] = await self._broker.pull(self._names.tasks_stream, consumer)
        try:
            while True:
                await self._slots.one_free()
                try:
                    await self.take_what_is_there()
                except BrokerError as exc:
                    log.debug("pull: %s", exc)
                    await asyncio.sleep(RETRY_SECONDS)
                if self._slots.free:
                    await self.wait_for_more()
                if not self._slots.free:
                    await self._stop_waiting()
        finally:
            self._is_closing = True
            await self._stop_waiting()
            for pulls in self._pulls.values():
                await pulls.close()

    async def take_what_is_there(self) -> None:
        """Fill the free slots, each queue with its share first, then whoever has more."""
        self._queues.rotate(-1)
        hungry = deque(self._queues)
        while hungry and self._slots.free:
            queue = hungry.popleft()
            share = max(1, self._slots.free // (len(hungry) + 1))
            taken = await self._pulls[queue].take(share)
            for delivery in taken:
                self._accept(queue, delivery)
            if len(taken) == share:
                hungry.append(queue)

    async def wait_for_more(self) -> None:
        """Wait until any queue has a message, with one pull for each."""
        for queue in self._queues:
            if queue not in self._waits:
                wait = asyncio.create_task(self._pulls[queue].wait(), name=f"wait for {queue}")
                self._waits[queue] = wait
        done, _ = await asyncio.wait(self._waits.values(), return_when=asyncio.FIRST_COMPLETED)
        for queue in [queue for queue, wait in self._waits.items() if wait in done]:
            await self._receive(queue, self._waits.pop(queue).result())

    async def _receive(self, queue: str, delivery: Delivery) -> None:
        if self._slots.free and not self._is_closing:
            self._accept(queue, delivery)
        else:
            # Several queues woke up for the last slot; another worker may have one.
            with contextlib.suppress(BrokerError):  # offered again after ack_wait then
                await delivery.nak()

    async def _stop_waiting(self) -> None:
        waits, self._waits = self._waits, {}
        for wait in waits.values():
            wait.cancel()
        for queue, wait in waits.items():
            with contextlib.suppress(asyncio.CancelledError):
                await self._receive(queue, await wait)

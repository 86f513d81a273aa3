"""Pulls as many workloads as there are free slots, round robin over the queues."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING

from nats_executor.errors import BrokerError, BrokerUnavailable

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
        # Queues that gave an error the last time, with its text: one must not hold up the others.
        self._troubled: dict[str, str] = {}
        self._is_closing = False

    async def run(self) -> None:
        """Pull until cancelled; what arrives after that goes back to the broker at once."""
        for queue in self._queues:
            consumer = self._names.consumer(queue)
            self._pulls[queue] = await self._broker.pull(self._names.tasks_stream, consumer)
        try:
            while not is_cancelled():
                await self._slots.one_free()
                await self.take_what_is_there()
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
        hungry = [queue for queue in self._queues if queue not in self._troubled]
        while hungry and self._slots.free:
            more = []
            for served, queue in enumerate(hungry):
                share = max(1, self._slots.free // (len(hungry) - served))
                taken = await self._take(queue, share) if self._slots.free else []
                for delivery in taken:
                    self._accept(queue, delivery)
                if len(taken) == share:
                    more.append(queue)
            hungry = more

    async def _take(self, queue: str, batch: int) -> Sequence[Delivery]:
        taking = asyncio.create_task(self._pulls[queue].take(batch), name=f"take from {queue}")
        try:
            return await asyncio.shield(taking)
        except BrokerError as exc:
            self._note_trouble(queue, exc)
            return []
        except asyncio.CancelledError:
            # The broker may have handed them out by now.
            with contextlib.suppress(BrokerError):
                for delivery in await taking:
                    await self._hand_back(delivery)
            raise

    async def wait_for_more(self) -> None:
        """Wait until any queue has a message, with one pull for each."""
        for queue in self._queues:
            if queue not in self._waits:
                wait = asyncio.create_task(self._wait(queue), name=f"wait for {queue}")
                self._waits[queue] = wait
        done, _ = await asyncio.wait(self._waits.values(), return_when=asyncio.FIRST_COMPLETED)
        for queue in [queue for queue, wait in self._waits.items() if wait in done]:
            await self._receive(queue, self._waits.pop(queue).result())

    async def _wait(self, queue: str) -> Delivery:
        while True:
            try:
                delivery = await self._pulls[queue].wait()
            except BrokerError as exc:
                self._note_trouble(queue, exc)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._troubled.pop(queue, None)
                return delivery

    def _note_trouble(self, queue: str, exc: BrokerError) -> None:
        if self._troubled.get(queue) != str(exc):
            # Of a broker that is away, the connection itself tells.
            level = logging.DEBUG if isinstance(exc, BrokerUnavailable) else logging.WARNING
            log.log(level, "queue %s: %s; next: trying again until it works", queue, exc)
        self._troubled[queue] = str(exc)

    async def _receive(self, queue: str, delivery: Delivery) -> None:
        if self._slots.free and not self._is_closing:
            self._accept(queue, delivery)
        else:
            # Several queues woke up for the last slot; another worker may have one.
            await self._hand_back(delivery)

    async def _hand_back(self, delivery: Delivery) -> None:
        with contextlib.suppress(BrokerError):  # offered again after ack_wait then
            await delivery.nak()

    async def _stop_waiting(self) -> None:
        # Cancelled here, it is all done again on the way out: so each one stays until it is over.
        while pending := [wait for wait in self._waits.values() if not wait.done()]:
            for wait in pending:
                wait.cancel()
            await asyncio.wait(pending, timeout=0.1)
        while self._waits:
            queue, wait = self._waits.popitem()
            if not wait.cancelled():
                await self._receive(queue, wait.result())


def is_cancelled() -> bool:
    """Whether this task was cancelled; nats-py swallows what meets a subscription of its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

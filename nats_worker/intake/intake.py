"""Pulls a workload for each free slot: urgent ones first, queues in turn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections import Counter, deque
from typing import TYPE_CHECKING

from nats_executor.errors import AccessDenied, BrokerError, BrokerUnavailable
from nats_executor.retrying import Once, end_task
from nats_worker.intake.bands import asks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from nats_executor.broker.port import Broker, Delivery, Pulls
    from nats_executor.settings import Settings
    from nats_executor.wire.names import Lane
    from nats_worker.intake.slots import Slots

__all__ = ["Intake"]

log = logging.getLogger(__name__)

LANE_RETRY_SECONDS = 1.0
# Free slots have been asked for within some milliseconds, or the broker does not answer.
SLOTS_ASKED_SECONDS = 0.5


class Intake:
    """The pulls of one worker, one durable consumer for each lane of its queues.

    `accept` gets each delivery with its queue and takes slots for it before it returns.
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
        self._lanes_of = settings.lanes
        self._limit_of = settings.limit
        self._lanes = {queue: settings.lanes(queue) for queue in queues}
        self._queues = deque(self._lanes)  # in the order of their turns
        self._turns: Counter[str] = Counter()
        self._slots = slots
        self._accept = accept
        self._pulls: dict[Lane, Pulls] = {}
        self._waits: dict[Lane, asyncio.Task[Delivery]] = {}
        # Lanes that gave an error the last time, with what was logged: none may hold up the others.
        self._troubled: dict[Lane, Once] = {}
        # A workload's weight is known only once it is here, so that more at once might not fit.
        self._most_at_once = 1 if settings.pool_slots_as_weight else sys.maxsize
        self._recalled = asyncio.Event()
        self._recalled.set()  # no pulls are open yet
        self._is_closing = False
        self._is_waiting = False  # free slots have been asked for: the queues are empty
        self._looked = asyncio.Event()

    @property
    def pulls(self) -> Mapping[Lane, Pulls]:
        """The pulls that are open now, one for each lane."""
        return self._pulls

    @property
    def lanes(self) -> list[Lane]:
        """The lanes for which pulls are to be open."""
        return [lane for lanes in list(self._lanes.values()) for lane in lanes]

    def add(self, queue: str) -> None:
        """Pull from one more queue, from now on."""
        self._lanes[queue] = self._lanes_of(queue)
        self._queues.append(queue)
        self.recall()

    def remove(self, queue: str) -> None:
        """Pull from a queue no more; hand back the workloads that are on their way here."""
        del self._lanes[queue]
        self._queues.remove(queue)
        self.recall()

    def recall(self) -> None:
        """Have the slots and queues looked at again, because they were changed from outside."""
        self._recalled.set()

    async def looked(self) -> None:
        """Return once what is free has been asked for, at the latest after `SLOTS_ASKED_SECONDS`.

        A workload that ended is acked then and not before. If its message leaves the front of the
        stream, the next pull starts at the first one, and nats-server counts all that wait before
        it answers: 20 ms for 100,000 (`LoadNextMsg` of its file store).
        """
        if not self._slots.free or self._is_waiting or self._is_closing:
            return
        self._looked.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SLOTS_ASKED_SECONDS):
                await self._looked.wait()

    async def run(self) -> None:
        """Pull until cancelled; hand workloads that arrive after that back at once."""
        try:
            while not is_cancelled():
                await self._slots.one_free()
                if self._recalled.is_set():
                    await self._match_pulls()
                    continue
                await self.take_what_is_there()
                self._looked.set()
                if self._slots.free:
                    await self.wait_for_more()
                if not self._slots.free:
                    await self._stop_waiting()
        finally:
            self._is_closing = True
            self._looked.set()
            await self._stop_waiting()
            for pulls in self._pulls.values():
                await pulls.close()

    async def _match_pulls(self) -> None:
        """Open the pulls of new lanes, and close those of lanes that are gone."""
        self._recalled.clear()  # first: what changes from here on needs another look
        lanes = self.lanes
        gone = [lane for lane in self._pulls if lane not in lanes]
        await self._stop_waiting(gone)
        for lane in gone:
            self._troubled.pop(lane, None)
            await self._pulls.pop(lane).close()
        for lane in lanes:
            if is_cancelled():
                return
            if lane not in self._pulls:
                self._pulls[lane] = await self._open(lane)

    async def _open(self, lane: Lane) -> Pulls:
        stream, consumer = self._names.tasks_stream, self._names.consumer(*lane)
        is_limited = self._limit_of(lane.queue) is not None
        return await self._broker.pull(stream, consumer, is_limited=is_limited)

    async def take_what_is_there(self) -> None:
        """Fill the free slots: each queue gets its share first, then those that have more."""
        self._queues.rotate(-1)
        asked = list(self._queues)
        while asked and self._slots.free:
            more = []
            for served, queue in enumerate(asked):
                share = max(1, self._slots.free // (len(asked) - served))
                if self._slots.free and await self._fill(queue, share) == share:
                    more.append(queue)
            asked = more

    async def _fill(self, queue: str, slots: int) -> int:
        """Fill slots from a queue, its bands in their order, and return how many there were for."""
        filled = 0
        dry: set[Lane] = set()
        lanes = {lane.band: lane for lane in self._lanes.get(queue, ())}
        if not lanes or not self._pulls.keys() >= set(lanes.values()):
            return 0  # removed or added a moment ago
        for band, most in asks(len(lanes), self._turns[queue], slots):
            lane, left = lanes[band], most
            while lane not in dry and lane not in self._troubled:
                batch = min(left, slots - filled, self._slots.free, self._most_at_once)
                if not batch:
                    break
                taken = await self._take(lane, batch)
                for delivery in taken:
                    await self._receive(lane, delivery)
                if len(taken) < batch:
                    dry.add(lane)
                filled += len(taken)
                left -= len(taken)
        return filled

    async def _take(self, lane: Lane, batch: int) -> Sequence[Delivery]:
        taking = asyncio.create_task(self._pulls[lane].take(batch), name=f"take from {lane.token}")
        try:
            return await asyncio.shield(taking)
        except BrokerError as exc:
            self._note_trouble(lane, exc)
            return []
        except asyncio.CancelledError:
            # The broker may have handed them out by now.
            with contextlib.suppress(BrokerError):
                for delivery in await taking:
                    await self._hand_back(delivery)
            raise

    async def wait_for_more(self) -> None:
        """Wait until any lane has a message, with one pull for each, or until a recall."""
        for lane in self._pulls:
            if lane not in self._waits:
                wait = asyncio.create_task(self._wait(lane), name=f"wait for {lane.token}")
                self._waits[lane] = wait
        recalled = asyncio.create_task(self._recalled.wait(), name="recall")
        self._is_waiting = True
        try:
            done, _ = await asyncio.wait(
                {recalled, *self._waits.values()}, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            self._is_waiting = False
            recalled.cancel()
        for lane in [lane for lane, wait in self._waits.items() if wait in done]:
            await self._receive(lane, self._waits.pop(lane).result())

    async def _wait(self, lane: Lane) -> Delivery:
        while True:
            try:
                delivery = await self._pulls[lane].wait()
            except BrokerError as exc:
                self._note_trouble(lane, exc)
                await asyncio.sleep(LANE_RETRY_SECONDS)
            else:
                self._troubled.pop(lane, None)
                return delivery

    def _note_trouble(self, lane: Lane, exc: BrokerError) -> None:
        if self._troubled.setdefault(lane, Once()).is_new(str(exc)):
            # The connection itself logs that a broker is away, and what is denied.
            is_told = isinstance(exc, BrokerUnavailable | AccessDenied)
            level = logging.DEBUG if is_told else logging.WARNING
            log.log(level, "queue %s: %s; next: trying again until it works", lane.queue, exc)

    async def _receive(self, lane: Lane, delivery: Delivery) -> None:
        if self._slots.free and lane.queue in self._lanes and not self._is_closing:
            self._turns[lane.queue] += 1
            self._accept(lane.queue, delivery)
        else:
            # Several lanes woke up for the last slot, or slots and queues were changed meanwhile;
            # another worker may have room.
            await self._hand_back(delivery)

    async def _hand_back(self, delivery: Delivery) -> None:
        with contextlib.suppress(BrokerError):  # offered again after ack_wait then
            await delivery.nak()

    async def _stop_waiting(self, lanes: Iterable[Lane] | None = None) -> None:
        """End the waits of some lanes, or of all."""
        ending = list(self._waits) if lanes is None else [x for x in lanes if x in self._waits]
        # Each one stays in `_waits` until it is over: a wait that is cancelled here is ended again
        # on the way out.
        endings = (end_task(self._waits[lane]) for lane in ending)
        await asyncio.gather(*endings, return_exceptions=True)
        for lane in ending:
            wait = self._waits.pop(lane)
            if not wait.cancelled():
                await self._receive(lane, wait.result())


def is_cancelled() -> bool:
    """Whether this task was cancelled; nats-py swallows what meets a subscription of its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

"""Pulling from JetStream consumers: raw `MSG.NEXT` requests with a watch on their heartbeats.

nats-py's `fetch` stalls on batches and does not notice a pull that was lost over a reconnect;
both would be a worker that looks healthy and consumes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from nats_executor.errors import BrokerError, BrokerUnavailable, NoResponders
from nats_executor.link import Answer, Link, Listener
from nats_executor.ports import Delivery, Pulls, Stored
from nats_executor.replies import AckSubject

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

__all__ = ["QueuePulls", "read"]

log = logging.getLogger(__name__)

# The server forgets a pull after this time; a new one costs one message.
PULL_SECONDS = 30.0
# The server says "still waiting" this often; two missed ones mean that the pull is lost.
HEARTBEAT_SECONDS = 2.0
SILENCE_SECONDS = 2 * HEARTBEAT_SECONDS + 0.5
# A pull for what is there now is answered within a round trip.
TAKE_SECONDS = 2.0
FOLLOW_BATCH = 1000
RETRY_SECONDS = 1.0
# A message, a heartbeat, "no messages", "timed out": whoever hears one of these gets what there is.
SOUND = frozenset({"", "100", "404", "408"})


class Look(NamedTuple):
    """How to look at what a stream holds, and at its servers.

    Attributes:
        at: returns the message of a subject in the stream that is pulled from.
        sees_reconnects: whether the connection is a new one after the stream's servers were.
        is_sound: tells whether they are known to have a quorum at this moment.
    """

    at: Callable[[str], Awaitable[Stored | None]]
    sees_reconnects: bool
    is_sound: Callable[[], Awaitable[bool]]


class PulledDelivery(Delivery):
    """One message of a durable consumer.

    An ack names its message by the sequence alone, and a server that lost its disk counts anew. So
    after each reconnect the message is looked at before anything is said about it: otherwise
    another workload's message might be acked. Through a leaf node no reconnect tells, so it is
    looked at each time.
    """

    def __init__(self, link: Link, look: Look, msg: Answer) -> None:
        self._link = link
        self._look = look
        self._seen_on = link.connected_since if look.sees_reconnects else math.nan
        self._is_gone = False
        self._ack_subject = msg.reply
        self.subject = msg.subject
        self.body = msg.data
        facts = AckSubject.parse(msg.reply)
        self.stream_sequence = facts.stream_sequence
        self.num_delivered = facts.num_delivered
        self.at = facts.at

    def __repr__(self) -> str:
        return f"<Delivery {self.subject} #{self.stream_sequence} delivered {self.num_delivered}>"

    async def ack(self) -> None:
        await self._answer(b"+ACK")

    async def nak(self, delay_seconds: float = 0.0) -> None:
        delay = f' {{"delay": {int(delay_seconds * 1e9)}}}' if delay_seconds > 0 else ""
        await self._answer(f"-NAK{delay}".encode())

    async def term(self, reason: str) -> None:
        await self._answer(f"+TERM {reason}".encode())

    async def in_progress(self) -> None:
        if await self._is_there():
            await self._link.send(self._ack_subject, b"+WPI")

    async def _is_there(self) -> bool:
        connection = self._link.connected_since
        if connection != self._seen_on:
            found = await self._look.at(self.subject)
            self._is_gone = found is None or found.sequence != self.stream_sequence
            self._seen_on = connection if self._look.sees_reconnects else math.nan
        return not self._is_gone

    async def _answer(self, verb: bytes) -> None:
        if not await self._is_there():
            return
        try:
            await self._link.ask(self._ack_subject, verb)
        except NoResponders as exc:
            raise BrokerUnavailable(f"{self.subject}: its consumer does not answer") from exc


class Pull:
    """One inbox, and the pull requests whose answers arrive there."""

    def __init__(self, link: Link, subject: str) -> None:
        self._link = link
        self._subject = subject
        self._inbox = link.new_inbox()
        self.heard_at = -math.inf
        # None: the connection is new; an error: the pull was denied.
        self.arrivals: asyncio.Queue[Answer | BrokerError | None] = asyncio.Queue()

    async def open(self, on_message: Callable[[Answer], Awaitable[None]] | None = None) -> None:
        async def arrive(msg: Answer) -> None:
            self.arrivals.put_nowait(msg)

        deliver = on_message or arrive

        async def hear(msg: Answer) -> None:
            if status(msg) in SOUND:
                self.heard_at = time.monotonic()
            await deliver(msg)

        renewed = functools.partial(self.arrivals.put_nowait, None)
        listener = Listener(hear, renewed, self.arrivals.put_nowait)
        await self._link.listen(self._inbox, listener)

    async def close(self) -> None:
        await self._link.forget(self._inbox)

    async def request(self, request: Mapping[str, Any]) -> None:
        await self._link.send(self._subject, json.dumps(request).encode(), reply=self._inbox)

    async def next(self, timeout: float) -> Answer | None:
        """Return what arrives next; None after silence or when the connection is a new one."""
        try:
            async with asyncio.timeout(timeout):
                arrival = await self.arrivals.get()
        except TimeoutError:
            return None
        if isinstance(arrival, BrokerError):
            raise arrival
        return arrival


def nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def status(msg: Answer) -> str:
    """Return the status of a control message; '' for one of a stream."""
    return "" if msg.reply.startswith("$JS.ACK.") else (msg.headers or {}).get("Status", "?")


class QueuePulls(Pulls):
    """The pulls of one queue's durable consumer.

    `take` and `wait` have an inbox each: a status message does not say which pull it ends.
    """

    def __init__(self, link: Link, subject: str, look: Look) -> None:
        self._link = link
        self._subject = subject
        self._look = look
        self._taking = Pull(link, subject)
        self._waiting = Pull(link, subject)
        self._is_awaited = False
        self._is_outstanding = False
        self._naks: set[asyncio.Task[None]] = set()
        self._is_reported = False

    @classmethod
    async def open(cls, link: Link, subject: str, look: Look) -> QueuePulls:
        queue = cls(link, subject, look)
        await queue._taking.open()
        await queue._waiting.open(queue._arrived)
        return queue

    @property
    def heard_at(self) -> float:
        return max(self._taking.heard_at, self._waiting.heard_at)

    async def close(self) -> None:
        await self._taking.close()
        await self._waiting.close()
        if self._naks:
            await asyncio.wait(self._naks, timeout=TAKE_SECONDS)

    async def take(self, batch: int) -> Sequence[Delivery]:
        self._hand_back(self._taking)
        await self._taking.request({"batch": batch, "no_wait": True})
        taken: list[Delivery] = []
        while len(taken) < batch:
            msg = await self._taking.next(TAKE_SECONDS)
            if msg is None and not taken:
                raise BrokerUnavailable("a pull got no answer")
            if msg is None or await self._ends(msg):
                break
            taken.append(PulledDelivery(self._link, self._look, msg))
        return taken

    async def wait(self) -> Delivery:
        self._is_awaited = True
        try:
            while True:
                if not self._is_outstanding:
                    await self._ask_for_one()
                try:
                    msg = await self._waiting.next(SILENCE_SECONDS)
                except BrokerError:
                    self._is_outstanding = False
                    raise
                if msg is None:
                    self._is_outstanding = False
                elif not status(msg):
                    self._is_outstanding = False
                    return PulledDelivery(self._link, self._look, msg)
                elif status(msg) != "100":
                    self._is_outstanding = False
                    if await self._ends(msg) and status(msg) == "503":
                        await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._is_awaited = False
            self._hand_back(self._waiting)

    async def _ask_for_one(self) -> None:
        request = {
            "batch": 1,
            "expires": nanoseconds(PULL_SECONDS),
            "idle_heartbeat": nanoseconds(HEARTBEAT_SECONDS),
        }
        with contextlib.suppress(BrokerError):  # `next` waits for the new connection
            await self._waiting.request(request)
            self._is_outstanding = True

    async def _ends(self, msg: Answer) -> bool:
        """Whether a message is a status, which ends a pull; reports a missing consumer once."""
        code = status(msg)
        # A cluster without a quorum concerns more than this; whoever publishes says so.
        if code == "503" and not self._is_reported and await self._look.is_sound():
            self._is_reported = True
            stream, consumer = self._subject.split(".")[-2:]
            text = f"consumer {consumer} of stream {stream} does not answer"
            remedy = "airflow nats setup, with --queues"
            log.warning("%s; next: asking again until it does; remedy: %s", text, remedy)
        elif code not in {"404", "503"}:
            self._is_reported = False
        return bool(code)

    async def _arrived(self, msg: Answer) -> None:
        """Pass on what was waited for; hand back what comes when nobody waits any more."""
        if self._is_awaited:
            self._waiting.arrivals.put_nowait(msg)
        elif not status(msg):
            self._is_outstanding = False
            self._nak(msg)
        elif status(msg) != "100":
            self._is_outstanding = False

    def _hand_back(self, pull: Pull) -> None:
        while not pull.arrivals.empty():
            msg = pull.arrivals.get_nowait()
            if msg is None or isinstance(msg, BrokerError):
                self._is_outstanding = False
            elif not status(msg):
                self._nak(msg)

    def _nak(self, msg: Answer) -> None:
        async def nak() -> None:
            with contextlib.suppress(BrokerError):  # offered again after ack_wait then
                await PulledDelivery(self._link, self._look, msg).nak()

        task = asyncio.create_task(nak(), name="hand-back")
        self._naks.add(task)
        task.add_done_callback(self._naks.discard)


async def read(link: Link, subject: str) -> AsyncGenerator[Stored, None]:
    """Yield what one ephemeral consumer delivers, until it falls silent or skips a message."""
    pull = Pull(link, subject)
    request = {
        "batch": FOLLOW_BATCH,
        "expires": nanoseconds(PULL_SECONDS),
        "idle_heartbeat": nanoseconds(HEARTBEAT_SECONDS),
    }
    expected = 1
    await pull.open()
    try:
        while True:
            await pull.request(request)
            wanted = FOLLOW_BATCH
            while wanted:
                msg = await pull.next(SILENCE_SECONDS)
                if msg is None or status(msg) == "503":
                    return
                if status(msg) == "100":
                    continue
                if status(msg):
                    break
                facts = AckSubject.parse(msg.reply)
                if facts.consumer_sequence != expected:
                    return
                expected += 1
                wanted -= 1
                yield Stored(msg.subject, facts.stream_sequence, msg.data, facts.at)
    finally:
        await pull.close()

"""Pulls from JetStream consumers: raw `MSG.NEXT` requests with a watch on their heartbeats.

nats-py's `fetch` stalls on batches and does not notice a pull that was lost over a reconnect;
with either, a worker would look healthy and consume nothing.
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

from nats_executor.broker import pull_times
from nats_executor.broker.link import Link, Listener, Received, nothing
from nats_executor.broker.port import Delivery, Pulls, Stored
from nats_executor.broker.replies import AckSubject
from nats_executor.errors import BrokerError, BrokerUnavailable, NoResponders

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

__all__ = [
    "Pull",
    "QueuePulls",
    "Silence",
    "StreamView",
    "nanoseconds",
    "status",
]

log = logging.getLogger(__name__)

# A pull for what is there now is answered within a round trip.
TAKE_SECONDS = 2.0
REPULL_SECONDS = 1.0
# An election is shorter. A consumer that gives no answer for so long has to be created.
LONGEST_ELECTION_SECONDS = 15.0
# A message, a heartbeat, "no messages", "timed out": each shows that the consumer is there.
SOUND = frozenset({"", "100", "404", "408"})


class Silence:
    """Notes which consumers of one connection give no answer, for a few lines about all of them.

    A consumer without a leader looks like one that does not exist, until an election is over. One
    that has never answered is as it should be: the scheduler creates the consumers of a queue with
    its first task.
    """

    def __init__(self) -> None:
        self._since: dict[str, tuple[float, float]] = {}  # first and last refusal
        # No `Once`, which would forget some of many: there are no more than the lanes pulled from.
        self._logged: set[str] = set()
        self._known: set[str] = set()  # those that have answered

    def note(self, consumer: str, now: float) -> list[str]:
        """Note one refusal, and return the consumers that are to be logged now."""
        first, last = self._since.get(consumer, (now, now))
        is_another = now - last > 2 * REPULL_SECONDS + TAKE_SECONDS  # it was asked all the time
        first = now if is_another else first
        self._since[consumer] = first, now
        if consumer in self._logged or now - first < LONGEST_ELECTION_SECONDS:
            return []
        news = sorted(self._since.keys() - self._logged)
        self._logged.update(news)
        return news

    def answered(self, consumer: str) -> None:
        self._known.add(consumer)
        self.end(consumer)

    def end(self, consumer: str) -> None:
        self._since.pop(consumer, None)
        self._logged.discard(consumer)

    def tell(self, stream: str, silent: Sequence[str]) -> None:
        """Log which of a stream's consumers are gone, and which were never there."""
        if gone := [consumer for consumer in silent if consumer in self._known]:
            text = f"no answer from consumer {', '.join(gone)} of stream {stream}"
            remedy = "airflow nats setup, with --queues"
            log.warning("%s; next: asking again until it does; remedy: %s", text, remedy)
        if new := [consumer for consumer in silent if consumer not in self._known]:
            text = f"stream {stream} has no consumer {', '.join(new)} yet"
            log.info("%s; a queue gets its consumers with its first task", text)


class StreamView(NamedTuple):
    """How to look at what a stream holds, and at its servers.

    Attributes:
        at: returns the message of a subject in the stream that is pulled from.
        sees_reconnects: whether the connection is a new one after the stream's servers were.
        is_sound: tells whether they are known to have a quorum at this moment.
        silence: of the connection's consumers.
        is_limited: whether the consumer that is pulled from may be full.
    """

    at: Callable[[str], Awaitable[Stored | None]]
    sees_reconnects: bool
    is_sound: Callable[[], Awaitable[bool]]
    silence: Silence
    is_limited: bool = True


class PulledDelivery(Delivery):
    """One message of a durable consumer.

    An ack names its message by the sequence alone, and a server that lost its disk counts from one
    again. So after each reconnect the message is looked up before it is acked: otherwise another
    workload's message might be acked. A leaf node hides a reconnect of the servers behind it, so
    through one the message is looked up each time.
    """

    def __init__(self, link: Link, look: StreamView, msg: Received) -> None:
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
    """An inbox for the answers to one pull request at a time.

    A status message does not say which request it ends, and the server keeps a request for as long
    as its inbox is listened on. So a request that may still stand is left behind with its inbox:
    otherwise both would stand, and each one's end would be followed by another one, for ever.

    Args:
        on_late: gets what comes to an inbox that was left.
    """

    def __init__(
        self, link: Link, subject: str, on_late: Callable[[Received], None] = nothing
    ) -> None:
        self._link = link
        self._subject = subject
        self._on_late = on_late
        self._listener = Listener(self._ignore)
        self._asked_on = ""
        self._left = 0  # messages that the last request may still bring
        self.heard_at = -math.inf
        # None: the connection is new; an error: the pull was denied.
        self.arrivals: asyncio.Queue[Received | BrokerError | None] = asyncio.Queue()
        self.deliver: Callable[[Received], None] = self.arrivals.put_nowait

    @property
    def is_outstanding(self) -> bool:
        """Whether the last request may still be answered; none outlives its connection."""
        return self._left > 0 and self._asked_on == self._listener.subject

    async def open(self) -> None:
        async def hear(msg: Received) -> None:
            if is_completion(msg):
                return
            if status(msg) in SOUND:
                self.heard_at = time.monotonic()
            if listener is self._listener:
                self._count(msg)
                self.deliver(msg)
            elif not status(msg):
                self._on_late(msg)

        renewed = functools.partial(self.arrivals.put_nowait, None)
        listener = self._listener = Listener(hear, renewed, self._deny)
        await self._link.listen(listener)

    async def _ignore(self, _: Received) -> None:
        """Nothing arrives before `open`."""

    def _count(self, msg: Received) -> None:
        if not status(msg):
            self._left -= 1
        elif status(msg) != "100":
            self._left = 0

    def _deny(self, denied: BrokerError) -> None:
        self._left = 0
        self.arrivals.put_nowait(denied)

    async def close(self) -> None:
        listener, self._listener = self._listener, Listener(self._ignore)
        await self._link.forget(listener)

    async def request(self, request: Mapping[str, Any]) -> None:
        if self.is_outstanding:
            left = self._listener
            try:
                await self.open()
            finally:
                await self._link.forget(left)
        self._asked_on, self._left = self._listener.subject, int(request["batch"])
        body = json.dumps(request).encode()
        try:
            await self._link.send(self._subject, body, reply=self._asked_on)
        except BrokerError:
            self._left = 0
            raise

    async def next(self, timeout: float) -> Received | None:
        """Return what arrives next; None when the connection is a new one.

        Raises:
            TimeoutError: after silence.
        """
        async with asyncio.timeout(timeout):
            arrival = await self.arrivals.get()
        if isinstance(arrival, BrokerError):
            raise arrival
        return arrival


def nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def status(msg: Received) -> str:
    """Return the status of a control message; '' for one of a stream."""
    return "" if msg.reply.startswith("$JS.ACK.") else (msg.headers or {}).get("Status", "?")


def is_completion(msg: Received) -> bool:
    """Whether a message only says that a pull with `max_bytes` has got all that it asked for."""
    return status(msg) == "409" and (msg.headers or {}).get("Description") == "Batch Completed"


class QueuePulls(Pulls):
    """The pulls of one queue's durable consumer: `take` and `wait` have an inbox each."""

    def __init__(self, link: Link, subject: str, look: StreamView) -> None:
        self._link = link
        self._subject = subject
        self._look = look
        self._taking = Pull(link, subject, self._nak)
        self._waiting = Pull(link, subject, self._nak)
        self._waiting.deliver = self._arrived
        self._is_awaited = False
        self._silence_seconds = pull_times.PULL_SILENCE_SECONDS
        self._naks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, link: Link, subject: str, look: StreamView) -> QueuePulls:
        queue = cls(link, subject, look)
        await queue._taking.open()
        await queue._waiting.open()
        return queue

    @property
    def heard_at(self) -> float:
        return max(self._taking.heard_at, self._waiting.heard_at)

    async def close(self) -> None:
        await asyncio.gather(self._taking.close(), self._waiting.close())
        if self._naks:
            await asyncio.wait(self._naks, timeout=TAKE_SECONDS)

    async def take(self, batch: int) -> Sequence[Delivery]:
        self._hand_back(self._taking)
        await self._taking.request({"batch": batch, "no_wait": True})
        taken: list[Delivery] = []
        while len(taken) < batch:
            try:
                msg = await self._taking.next(TAKE_SECONDS)
            except TimeoutError:
                msg = None
            if msg is None and not taken:
                raise BrokerUnavailable("a pull got no answer")
            if msg is None or await self._ends(msg):
                break
            taken.append(PulledDelivery(self._link, self._look, msg))
        return taken

    async def wait(self) -> Delivery:
        self._is_awaited = True
        is_silent = False
        try:
            while True:
                if is_silent or not self._waiting.is_outstanding:
                    await self._ask_for_one()
                try:
                    msg = await self._waiting.next(self._silence_seconds)
                except TimeoutError:
                    is_silent = True
                    continue
                is_silent = False
                if msg is None or status(msg) == "100":
                    continue
                if not await self._ends(msg):
                    return PulledDelivery(self._link, self._look, msg)
                if status(msg) == "503":
                    await asyncio.sleep(REPULL_SECONDS)
        finally:
            self._is_awaited = False
            self._hand_back(self._waiting)

    async def _ask_for_one(self) -> None:
        look = self._look
        is_witnessed = look.sees_reconnects and self._link.offer.is_lone
        heartbeat = pull_times.pull_heartbeat_seconds(
            is_witnessed=is_witnessed, is_limited=look.is_limited
        )
        self._silence_seconds = pull_times.silence_seconds(heartbeat)
        request = {
            "batch": 1,
            "expires": nanoseconds(pull_times.pull_seconds(time.time())),
            "idle_heartbeat": nanoseconds(heartbeat),
        }
        with contextlib.suppress(BrokerError):  # `next` waits for the new connection
            await self._waiting.request(request)

    async def _ends(self, msg: Received) -> bool:
        """Whether a message is a status, which ends a pull; logs a missing consumer once."""
        code = status(msg)
        stream, consumer = self._subject.split(".")[-2:]
        silence = self._look.silence
        if code != "503":
            silence.answered(consumer)
        elif not await self._look.is_sound():
            # All of a cluster without a quorum is silent; those that publish report it.
            silence.end(consumer)
        elif silent := silence.note(consumer, time.monotonic()):
            silence.tell(stream, silent)
        return bool(code)

    def _arrived(self, msg: Received) -> None:
        """Pass on a message while `wait` runs; hand back one that comes later."""
        if self._is_awaited:
            self._waiting.arrivals.put_nowait(msg)
        elif not status(msg):
            self._nak(msg)

    def _hand_back(self, pull: Pull) -> None:
        while not pull.arrivals.empty():
            msg = pull.arrivals.get_nowait()
            if msg is not None and not isinstance(msg, BrokerError) and not status(msg):
                self._nak(msg)

    def _nak(self, msg: Received) -> None:
        async def nak() -> None:
            with contextlib.suppress(BrokerError):  # offered again after ack_wait then
                await PulledDelivery(self._link, self._look, msg).nak()

        task = asyncio.create_task(nak(), name="hand-back")
        self._naks.add(task)
        task.add_done_callback(self._naks.discard)

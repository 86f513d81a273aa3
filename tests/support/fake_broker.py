"""A broker in memory: what `broker/port.py` promises, a clock that tests move, faults on demand.

`FakeServer` holds the streams; every `FakeBroker` is one connection to it. The contract suite
runs on this and on a real server, which is what keeps it honest.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter, defaultdict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nats_executor.broker.port import (
    Broker,
    Config,
    ConsumerInfo,
    Delivery,
    Pulls,
    ServerOffer,
    Stored,
    StreamInfo,
    Subjects,
    Usage,
)
from nats_executor.broker.replies import as_timestamp, header_bytes
from nats_executor.errors import (
    BrokerError,
    BrokerUnavailable,
    MessageTooLarge,
    NoResponders,
    NotFound,
    TopologyMismatch,
)
from nats_executor.wire.sizes import (
    ANSWER_BYTES,
    MOST_RECORD_BYTES,
    MOST_RECORDS,
    QUESTION_BYTES,
    WORKLOAD_BYTES,
)
from tests.support.fake_streams import (
    CONSUMER_DEFAULTS,
    STREAM_DEFAULTS,
    FakeConsumer,
    FakeStream,
    is_match,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from nats_executor.broker.port import Outgoing, Reply

__all__ = ["FakeBroker", "FakeServer"]


class FakeServer:
    """The streams and services that every connection of one test shares.

    Its methods may be called from another thread than the one whose loop uses the brokers.

    Attributes:
        now: the server's clock in epoch seconds; only `advance` moves it.
        terminated: the reasons given to `term`, by subject.
        monotonic: the clock of `connected_since`.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.now = 1_800_000_000.0
        self.monotonic = monotonic
        self.is_up = True
        self.max_payload = 1024 * 1024
        self.streams: dict[str, FakeStream] = {}
        self.terminated: dict[str, str] = {}
        self.headers_of: dict[tuple[str, int], dict[str, str]] = {}
        self.brokers: list[FakeBroker] = []
        self.waiting: list[asyncio.Future[None]] = []

    def broker(self) -> FakeBroker:
        """Open one more connection."""
        return FakeBroker(self)

    @asynccontextmanager
    async def connect(self, *_: Any, **__: Any) -> AsyncIterator[FakeBroker]:
        """Stand in for `nats_executor.broker.connection.connect`."""
        broker = self.broker()
        try:
            yield broker
        finally:
            broker.disconnect()
            self.brokers.remove(broker)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for stream in self.streams.values():
            stream.expire(self.now)
        self.wake()

    def stop(self) -> None:
        """Go away; streams stay, as on disk."""
        self.is_up = False
        for broker in self.brokers:
            broker.disconnect()

    def start(self) -> None:
        self.is_up = True
        for broker in self.brokers:
            broker.reconnect()

    def put(
        self,
        subject: str,
        body: bytes,
        *,
        message_id: str | None = None,
        expected_last: int | None = None,
    ) -> int:
        """Store a message as a publisher that is not under test."""
        for stream in self.streams.values():
            if any(is_match(pattern, subject) for pattern in stream.config["subjects"]):
                sequence = stream.store(
                    subject, body, self.now, message_id=message_id, expected=expected_last
                )
                self.wake()
                return sequence
        raise BrokerUnavailable(f"no stream listens on {subject}")

    def messages(self, stream: str, subject: str = ">") -> list[Stored]:
        """Look into a stream."""
        return self.stream(stream).matching(subject)

    def stream(self, name: str, *, missing: type[BrokerError] = NotFound) -> FakeStream:
        if name not in self.streams:
            raise missing(f"there is no stream {name}")
        return self.streams[name]

    def consumer(self, stream: str, name: str) -> FakeConsumer:
        consumers = self.stream(stream).consumers
        if name not in consumers:
            raise NotFound(f"stream {stream} has no consumer {name}")
        return consumers[name]

    def change(self) -> asyncio.Future[None]:
        """Return what is done at the next change; ask before looking, or a change goes unseen."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        return future

    def wake(self) -> None:
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            with suppress(RuntimeError):  # the loop of an earlier test, closed
                future.get_loop().call_soon_threadsafe(release, future)


def cut(message: Stored, largest: int) -> Stored:
    return replace(message, body=message.body[: largest + 1])


def release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@dataclass
class FakeDelivery(Delivery):
    """A received message of a fake consumer."""

    broker: FakeBroker
    stream: str
    consumer: str
    subject: str
    body: bytes = field(repr=False)
    stream_sequence: int
    num_delivered: int
    at: float

    async def ack(self) -> None:
        await self.broker.enter("ack")
        self.broker.server.stream(self.stream).acked(self.consumer, self.stream_sequence)

    async def nak(self, delay_seconds: float = 0.0) -> None:
        await self.broker.enter("nak")
        self.due_in(delay_seconds)

    async def term(self, reason: str) -> None:
        await self.broker.enter("term")
        self.broker.server.terminated[self.subject] = reason
        self.broker.server.stream(self.stream).acked(self.consumer, self.stream_sequence)

    async def in_progress(self) -> None:
        await self.broker.enter("in_progress")
        self.due_in(self.broker.server.consumer(self.stream, self.consumer).ack_wait)

    def due_in(self, seconds: float) -> None:
        server = self.broker.server
        if flight := server.consumer(self.stream, self.consumer).flights.get(self.stream_sequence):
            flight.due = server.now + seconds
        server.wake()


@dataclass
class FakePulls(Pulls):
    """The pulls of one connection at a fake consumer."""

    broker: FakeBroker
    stream: str
    consumer: str
    last_heard: float = -math.inf

    @property
    def heard_at(self) -> float:
        """A server in memory answers at once and at any time, for as long as it is there."""
        found = self.broker.server.streams.get(self.stream)
        if self.broker.is_connected and found and self.consumer in found.consumers:
            self.last_heard = time.monotonic()
        return self.last_heard

    async def take(self, batch: int) -> Sequence[Delivery]:
        await self.broker.enter("take")
        offers = iter(self.next_offer, None)
        return list(itertools.islice(offers, batch))

    async def wait(self) -> Delivery:
        server = self.broker.server
        while True:
            changed = server.change()
            if self.broker.is_connected and (delivery := self.next_offer()):
                return delivery
            consumer = server.consumer(self.stream, self.consumer)
            consumer.waiting += 1
            try:
                await changed
            finally:
                consumer.waiting -= 1

    async def close(self) -> None:
        pass

    def next_offer(self) -> FakeDelivery | None:
        server = self.broker.server
        consumer = server.consumer(self.stream, self.consumer)
        if (offer := consumer.offer(server.stream(self.stream), server.now)) is None:
            return None
        message, flight = offer
        return FakeDelivery(
            self.broker, self.stream, self.consumer, message.subject, message.body,
            message.sequence, flight.num_delivered, message.at,
        )  # fmt: skip


class FakeBroker(Broker):
    """One connection to a `FakeServer`.

    Attributes:
        is_connected, connected_since, denied, server_version: as in `Broker`; a test may set them.
    """

    is_connected: bool = False
    connected_since: float = math.inf
    denied: str = ""
    server_version: str = ""
    certificate_ends: float = 0.0

    @property
    def offer(self) -> ServerOffer:
        return (
            ServerOffer(self.server.max_payload, self.certificate_ends)
            if self.is_connected
            else ServerOffer()
        )

    def __init__(self, server: FakeServer | None = None) -> None:
        self.server = server or FakeServer()
        self.server.brokers.append(self)
        self.replies: dict[str, Reply] = {}
        self.failures: dict[str, list[Exception]] = defaultdict(list)
        self.limited: dict[str, bool] = {}  # what the pulls of a consumer were opened with
        self.lost_pubacks = 0
        self.reconnect()

    # Faults

    def disconnect(self) -> None:
        self.is_connected, self.connected_since = False, math.inf

    def reconnect(self) -> None:
        if self.server.is_up and not self.is_connected:
            self.is_connected, self.connected_since = True, self.server.monotonic()
            self.server.wake()

    def fail_next(self, method: str, times: int = 1, error: Exception | None = None) -> None:
        """Let the next calls of a method, of `Broker`, `Pulls` or `Delivery`, raise."""
        self.failures[method] += [error or BrokerUnavailable("made to fail")] * times

    def lose_next_pubacks(self, times: int = 1) -> None:
        """Store the next messages and tell their publisher that there was no answer."""
        self.lost_pubacks += times

    async def enter(self, method: str, *, needs_server: bool = True) -> None:
        """Begin a call: give way to others, as any input or output does, and fail if need be."""
        await asyncio.sleep(0)
        if self.failures[method]:
            raise self.failures[method].pop(0)
        if needs_server and not self.is_connected:
            raise BrokerUnavailable("not connected to the fake server")

    # Messages

    async def ready(self, timeout: float) -> None:
        while not self.is_connected:
            changed = self.server.change()
            try:
                async with asyncio.timeout(timeout):
                    await changed
            except TimeoutError:
                raise BrokerUnavailable("not connected to the fake server") from None

    async def publish(
        self,
        subject: str,
        body: bytes,
        *,
        message_id: str | None = None,
        expected_last: int | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,  # noqa: ARG002 - it answers at once or not at all
    ) -> int:
        await self.enter("publish")
        if (size := len(body) + header_bytes(headers)) > self.server.max_payload:
            raise MessageTooLarge(f"{size} bytes, the server takes {self.server.max_payload}")
        server = self.server
        sequence = server.put(subject, body, message_id=message_id, expected_last=expected_last)
        if headers:  # this project gives some to dead letters alone
            server.headers_of[subject, sequence] = dict(headers)
        if self.lost_pubacks:
            self.lost_pubacks -= 1
            raise BrokerUnavailable(f"{subject}: the answer was made to be lost")
        return sequence

    async def last(self, stream: str, subject: str) -> Stored | None:
        await self.enter("last")
        return self.server.stream(stream, missing=BrokerUnavailable).last(subject)

    async def last_of_each(
        self, stream: str, subjects: Sequence[str], *, largest: int = WORKLOAD_BYTES
    ) -> list[Stored]:
        await self.enter("last_of_each")
        source = self.server.stream(stream, missing=BrokerUnavailable)
        found = [source.last(subject) for subject in subjects]
        return [cut(message, largest) for message in found if message is not None]

    async def publish_all(
        self, messages: Sequence[Outgoing], *, timeout: float
    ) -> list[BrokerError | None]:
        return list(await asyncio.gather(*(self.publish_one(m, timeout) for m in messages)))

    async def publish_one(self, message: Outgoing, timeout: float) -> BrokerError | None:
        subject, body, message_id = message
        try:
            await self.publish(subject, body, message_id=message_id, timeout=timeout)
        except BrokerError as exc:
            return exc
        return None

    async def occupied(self, stream: str, subjects: Sequence[str]) -> set[str]:
        await self.enter("occupied")
        source = self.server.stream(stream, missing=BrokerUnavailable)
        return {subject for subject in subjects if source.last(subject)}

    async def scan(
        self, stream: str, subject: str, *, largest: int = WORKLOAD_BYTES
    ) -> list[Stored]:
        await self.enter("scan")
        source = self.server.stream(stream, missing=BrokerUnavailable)
        found = [cut(message, largest) for message in source.matching(subject)[:MOST_RECORDS]]
        sizes = itertools.accumulate(len(message.body) for message in found)
        return found[: sum(size <= MOST_RECORD_BYTES for size in sizes)]

    async def page(
        self, stream: str, *, start: int, most: int, largest: int = WORKLOAD_BYTES
    ) -> list[Stored]:
        await self.enter("page")
        source = self.server.stream(stream, missing=BrokerUnavailable)
        found = [message for message in source.matching(">") if message.sequence >= start]
        headers = self.server.headers_of
        return [
            replace(cut(m, largest), headers=headers.get((m.subject, m.sequence), {}))
            for m in found[:most]
        ]

    async def remove(self, stream: str, subject: str) -> bool:
        await self.enter("remove")
        found = self.server.stream(stream, missing=BrokerUnavailable)
        if (message := found.last(subject)) is None:
            return False
        found.remove(message.sequence)
        self.server.wake()  # room under max_ack_pending
        return True

    async def pull(self, stream: str, consumer: str, *, is_limited: bool = True) -> Pulls:
        await self.enter("pull", needs_server=False)
        self.limited[consumer] = is_limited
        return FakePulls(self, stream, consumer)

    async def follow(
        self, stream: str, *, after: int, largest: int = WORKLOAD_BYTES
    ) -> AsyncIterator[Stored]:
        while True:
            changed = self.server.change()
            if self.is_connected and stream in self.server.streams:
                for message in self.server.messages(stream):
                    if message.sequence > after:
                        after = message.sequence
                        yield cut(message, largest)
            await changed

    async def request(self, subject: str, body: bytes, *, timeout: float) -> bytes:
        await self.enter("request")
        for broker in self.server.brokers:
            for pattern, reply in broker.replies.items():
                if broker.is_connected and is_match(pattern, subject):
                    try:
                        question = body[: QUESTION_BYTES + 1]
                        answer = await asyncio.wait_for(reply(question), timeout)
                    except Exception as exc:  # whatever ails the other side, here it is silence
                        raise BrokerUnavailable(f"no answer on {subject}") from exc
                    if len(answer) > ANSWER_BYTES:
                        raise BrokerUnavailable(f"an answer of {len(answer)} bytes on {subject}")
                    return answer
        raise NoResponders(f"no client is subscribed to {subject}")

    async def serve(self, subject: str, reply: Reply) -> None:
        await self.enter("serve", needs_server=False)
        self.replies[subject] = reply

    # Streams and consumers

    async def stream_info(self, stream: str) -> StreamInfo | None:
        await self.enter("stream_info")
        if (found := self.server.streams.get(stream)) is None:
            return None
        size = sum(len(message.body) for message in found.messages.values())
        return StreamInfo(
            stream,
            len(found.messages),
            size,
            found.last_sequence,
            time=self.server.now,
            created=found.created,
            first_at=min((message.at for message in found.messages.values()), default=0.0),
            last_at=max((message.at for message in found.messages.values()), default=0.0),
            first_sequence=min(found.messages, default=found.last_sequence + 1),
            max_bytes=found.config["max_bytes"],
        )

    async def subjects(self, stream: str, subject: str) -> Subjects:
        await self.enter("subjects")
        return Subjects(Counter(m.subject for m in self.server.messages(stream, subject)))

    async def purge(self, stream: str, subject: str) -> int:
        await self.enter("purge")
        found = self.server.stream(stream)
        gone = found.matching(subject)
        for message in gone:
            found.remove(message.sequence)
        self.server.wake()  # room under max_ack_pending
        return len(gone)

    async def usage(self) -> Usage:
        await self.enter("usage")
        streams = self.server.streams.values()
        return Usage(sum(len(m.body) for stream in streams for m in stream.messages.values()))

    async def consumer_infos(self, stream: str) -> list[ConsumerInfo]:
        await self.enter("consumer_infos")
        found = self.server.stream(stream)
        return [
            consumer.info(name, found, self.server.now)
            for name, consumer in found.consumers.items()
        ]

    async def pause_consumer(self, stream: str, consumer: str, until: float) -> None:
        await self.enter("pause_consumer")
        self.server.consumer(stream, consumer).config["pause_until"] = as_timestamp(until)
        self.server.wake()

    async def stream_config(self, stream: str) -> Config | None:
        await self.enter("stream_config")
        found = self.server.streams.get(stream)
        return dict(found.config) if found else None

    async def create_stream(self, config: Config) -> None:
        await self.enter("create_stream")
        full = STREAM_DEFAULTS | config
        if full["num_replicas"] > 1:
            raise TopologyMismatch(f"{config['name']}: one server keeps no replicas")
        found = self.server.streams.setdefault(config["name"], FakeStream(full, self.server.now))
        if found.config != full:
            raise TopologyMismatch(f"stream {config['name']} exists with other settings")

    async def update_stream(self, config: Config) -> None:
        await self.enter("update_stream")
        self.server.stream(config["name"]).update(STREAM_DEFAULTS | config)

    async def consumer_config(self, stream: str, consumer: str) -> Config | None:
        await self.enter("consumer_config")
        found = self.server.streams.get(stream)
        known = found.consumers.get(consumer) if found else None
        return dict(known.config) if known else None

    async def create_consumer(self, stream: str, config: Config) -> None:
        await self.enter("create_consumer")
        full = CONSUMER_DEFAULTS | config
        consumers = self.server.stream(stream).consumers
        found = consumers.setdefault(config["durable_name"], FakeConsumer(full))
        if found.config != full:
            raise TopologyMismatch(f"consumer {config['durable_name']} exists with other settings")

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        await self.enter("delete_consumer")
        self.server.consumer(stream, consumer)
        del self.server.stream(stream).consumers[consumer]

    async def update_consumer(self, stream: str, config: Config) -> None:
        await self.enter("update_consumer")
        consumer = self.server.consumer(stream, config["durable_name"])
        consumer.config = CONSUMER_DEFAULTS | config
        self.server.wake()

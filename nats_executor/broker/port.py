"""Defines what the project may ask of a broker; `jetstream.py` and the tests' fake implement it.

The contract suite in `tests/contract` runs on both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from nats_executor.broker.quorum import Replication
from nats_executor.wire.sizes import WORKLOAD_BYTES

if TYPE_CHECKING:
    from nats_executor.errors import BrokerError

__all__ = [
    "Broker",
    "Config",
    "ConsumerInfo",
    "Delivery",
    "Outgoing",
    "Pulls",
    "Reply",
    "ServerOffer",
    "Stored",
    "StreamInfo",
    "Subjects",
    "Usage",
]


@dataclass(frozen=True, slots=True)
class Stored:
    """One message as a stream keeps it."""

    subject: str
    sequence: int
    body: bytes = field(repr=False)
    at: float = 0.0  # epoch seconds, the server's clock
    # As it was published; only where it was looked up.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ConsumerInfo:
    """The state of one durable consumer, in NATS's own terms."""

    name: str
    queue: str  # Airflow's name of the queue, from the consumer's metadata
    band: int  # likewise
    pending: int  # num_pending: not delivered yet
    in_flight: int  # num_ack_pending: delivered, not acked
    redelivered: int
    waiting: int  # num_waiting: pulls that wait for a message
    paused_until: float = 0.0  # epoch seconds, the server's clock; 0 while it is not paused
    delivered: int = 0  # deliveries since it was created, repeated ones too


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """The state of one stream."""

    name: str
    messages: int
    bytes: int
    last_sequence: int
    time: float  # epoch seconds, the clock of the server that answered
    created: float  # likewise; it differs when the stream was created again
    first_at: float = 0.0  # likewise; when the oldest message was stored
    last_at: float = 0.0  # likewise; the newest message, which may be removed since
    first_sequence: int = 1  # of the oldest message
    replicas: int = 1  # as its settings have them; not all may be there
    server_version: str = ""  # of the server that answered, the stream's leader; from 2.11 on
    replication: Replication = field(default_factory=Replication)
    max_bytes: int = -1  # the most it may hold, -1 for no limit


class Subjects(NamedTuple):
    """How many messages each subject of a stream has; of very many subjects only some are there."""

    messages: dict[str, int]
    is_whole: bool = True


class Usage(NamedTuple):
    """How many bytes all streams of the account hold, every replica counted, and may hold.

    A limit of -1 is none.
    """

    used: int
    limit: int = -1
    streams: int = 0
    max_streams: int = -1
    max_consumers: int = -1  # of one stream, though it is a limit of the account
    has_tiers: bool = False  # limits for each number of replicas; the nearest ones are here


class ServerOffer(NamedTuple):
    """The limits of the server that this is connected to, its certificate, and its kind."""

    max_payload: int = 0  # bytes of a message, headers included; 0 while it is to none
    certificate_ends: float = 0.0  # epoch seconds; 0 without TLS
    is_lone: bool = False  # has JetStream itself, and is in no cluster


class Delivery(Protocol):
    """One received message with its ack handle.

    Where the stream was lost and created again, another message may have this one's number: that
    one is neither acked nor handed back.
    """

    subject: str
    body: bytes
    stream_sequence: int
    num_delivered: int
    at: float  # epoch seconds at which the stream stored it, the server's clock

    async def ack(self) -> None:
        """Ack and wait until the server confirms. Acking twice, or a removed message, succeeds."""

    async def nak(self, delay_seconds: float = 0.0) -> None:
        """Hand the message back; the server offers it again after the delay."""

    async def term(self, reason: str) -> None:
        """Remove the message for good; the reason goes into the server's advisory."""

    async def in_progress(self) -> None:
        """Start `ack_wait` again."""


Reply = Callable[[bytes], Awaitable[bytes]]

# The configuration of a stream or consumer, as NATS's JSON API writes it (durations in ns).
Config = dict[str, Any]


class Outgoing(NamedTuple):
    """A message to store; `message_id` is its `Nats-Msg-Id`, None for none."""

    subject: str
    body: bytes
    message_id: str | None = None


class Pulls(Protocol):
    """The pulls of one durable consumer."""

    @property
    def heard_at(self) -> float:
        """`time.monotonic()` of the last answer to a pull, a heartbeat included; at first -inf.

        An error that says that the consumer does not exist does not count.
        """
        ...

    async def take(self, batch: int) -> Sequence[Delivery]:
        """Return up to `batch` messages that are there now; returns at once, perhaps with none.

        A message published a moment ago may not be offered yet: then `wait` gets it.
        """

    async def wait(self) -> Delivery:
        """Return the next message, however long that takes; survives reconnects and restarts.

        Cancelling it loses nothing: a message that comes late is handed back (nak), so that another
        worker gets it at once.
        """

    async def close(self) -> None: ...


class Broker(Protocol):
    """NATS JetStream, as far as this project needs it.

    A broker object connects by itself, for as long as it lives, and renews its subscriptions.

    Every method raises `BrokerUnavailable` when there is no usable answer in time and
    `AccessDenied` when the user may not do it; what else it raises is listed with it.
    """

    @property
    def is_connected(self) -> bool: ...

    @property
    def connected_since(self) -> float:
        """`time.monotonic()` of the last (re)connect; infinity while there is none."""
        ...

    @property
    def denied(self) -> str:
        """The last denial of the server to this user within a minute, '' for none."""
        ...

    @property
    def server_version(self) -> str:
        """The release of the server that this is connected to, '' while it is to none."""
        ...

    @property
    def offer(self) -> ServerOffer:
        """The limits and the certificate of that server."""
        ...

    async def ready(self, timeout: float) -> None:
        """Wait until connected; raises what keeps it from connecting when the time is over."""
        ...

    async def publish(
        self,
        subject: str,
        body: bytes,
        *,
        message_id: str | None = None,
        expected_last: int | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> int:
        """Store a message and return its sequence in the stream.

        Args:
            message_id: `Nats-Msg-Id`; the server drops a second one in its duplicate window.
            expected_last: the subject's last sequence for a compare-and-set, 0 for none yet.

        Raises:
            SubjectOccupied: the stream keeps one message for each subject and this has one.
            WrongSequence: the compare-and-set lost.
            MessageTooLarge: over `max_payload` or `max_msg_size`.
        """
        ...

    async def publish_all(
        self, messages: Sequence[Outgoing], *, timeout: float
    ) -> list[BrokerError | None]:
        """Store messages in their order, and return for each one None or why it was not stored.

        For many at once: they share one timer and one wait. Raises nothing.
        """
        ...

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Return the last message of a subject.

        A follower may answer and be a moment behind: to act on it, use `expected_last`.
        """
        ...

    async def last_of_each(
        self, stream: str, subjects: Sequence[str], *, largest: int = WORKLOAD_BYTES
    ) -> list[Stored]:
        """Return the last message of each subject that has one; no wildcards, any number.

        Args:
            largest: the bytes of a body, here and below, that are of use to the caller. A larger
                one is cut one byte after them, so that its reader can tell.
        """
        ...

    async def occupied(self, stream: str, subjects: Sequence[str]) -> set[str]:
        """Return which of the subjects have a message; no wildcards, any number."""
        ...

    async def scan(
        self, stream: str, subject: str, *, largest: int = WORKLOAD_BYTES
    ) -> list[Stored]:
        """Return the messages under a subject with wildcards, oldest first.

        No more than `sizes.MOST_RECORDS` of them and `sizes.MOST_RECORD_BYTES` of bodies, as
        anyone may have written any number; that there are more is logged.
        """
        ...

    async def page(
        self, stream: str, *, start: int, most: int, largest: int = WORKLOAD_BYTES
    ) -> list[Stored]:
        """Return messages of a stream from a sequence on, oldest first, with their headers.

        There may be more of them than it returns; there are none if it returns none.

        Args:
            most: no more messages than these; the server also ends a page by its size.
        """
        ...

    async def remove(self, stream: str, subject: str) -> bool:
        """Remove the last message of a subject; returns whether there was one."""
        ...

    async def pull(self, stream: str, consumer: str, *, is_limited: bool = True) -> Pulls:
        """Open the pulls of a durable consumer; does not create it.

        Args:
            is_limited: whether it may be full (`max_ack_pending`), so that `wait` has to notice
                within a second that a purge has made room.
        """
        ...

    def follow(
        self, stream: str, *, after: int, largest: int = WORKLOAD_BYTES
    ) -> AsyncIterator[Stored]:
        """Yield a stream's messages in order after a sequence, across reconnects, for ever.

        A stream that was lost and created again is read from its start.
        """
        ...

    async def request(self, subject: str, body: bytes, *, timeout: float) -> bytes:
        """Send a request to a subject, and return the first answer.

        An answer of more than `sizes.ANSWER_BYTES` raises `BrokerUnavailable`.

        Raises:
            NoResponders: nothing listens on the subject.
        """
        ...

    async def serve(self, subject: str, reply: Reply) -> None:
        """Answer every request on a subject until the connection is closed.

        Of a question there is at most one byte more than `sizes.QUESTION_BYTES`.
        """
        ...

    async def stream_info(self, stream: str) -> StreamInfo | None: ...

    async def subjects(self, stream: str, subject: str) -> Subjects:
        """Return the subjects of a stream that have messages, of those with wildcards.

        Raises:
            NotFound: there is no such stream.
        """
        ...

    async def purge(self, stream: str, subject: str) -> int:
        """Remove all messages under a subject with wildcards, and return how many there were.

        Never of a stream whose deliveries are acked: see `remove`.

        Raises:
            NotFound: there is no such stream.
        """
        ...

    async def usage(self) -> Usage:
        """Return how full the account is that has JetStream."""
        ...

    async def consumer_infos(self, stream: str) -> list[ConsumerInfo]: ...

    async def pause_consumer(self, stream: str, consumer: str, until: float) -> None:
        """Have a consumer deliver nothing until a time; acks and renewals of deliveries go on.

        The server keeps the pause, also when it restarts.

        Args:
            until: epoch seconds, the server's clock; a time that is over ends a pause.

        Raises:
            NotFound: there is no such consumer.
        """
        ...

    # Streams and consumers, for `topology/`

    async def stream_config(self, stream: str) -> Config | None: ...

    async def create_stream(self, config: Config) -> None: ...

    async def update_stream(self, config: Config) -> None:
        """Change a stream in place.

        Raises:
            TopologyMismatch: the server cannot change that setting.
        """
        ...

    async def consumer_config(self, stream: str, consumer: str) -> Config | None: ...

    async def create_consumer(self, stream: str, config: Config) -> None:
        """Create a durable consumer; does nothing where the same one exists."""
        ...

    async def update_consumer(self, stream: str, config: Config) -> None: ...

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        """Delete a durable consumer; its messages stay in the stream.

        Raises:
            NotFound: there is no such consumer.
        """
        ...

"""Streams and consumers in memory, by NATS's rules; the caller brings the clock."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nats_executor.broker.port import Config, ConsumerInfo, Stored
from nats_executor.broker.replies import timestamp
from nats_executor.errors import (
    MessageTooLarge,
    SubjectOccupied,
    TopologyMismatch,
    WrongSequence,
)
from nats_executor.wire.names import BAND, QUEUE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "CONSUMER_DEFAULTS",
    "STREAM_DEFAULTS",
    "FakeConsumer",
    "FakeStream",
    "is_match",
]

NANOSECONDS = 1_000_000_000
# What a server fills in, as far as anything here depends on it.
STREAM_DEFAULTS: Config = {
    "retention": "limits", "storage": "file", "discard": "old", "discard_new_per_subject": False,
    "max_msgs_per_subject": -1, "max_msg_size": -1, "max_bytes": -1, "max_age": 0,
    "num_replicas": 1, "duplicate_window": 120 * NANOSECONDS,
}  # fmt: skip
CONSUMER_DEFAULTS: Config = {
    "ack_policy": "explicit", "ack_wait": 30 * NANOSECONDS, "filter_subject": ">",
    "max_ack_pending": 1000, "max_deliver": -1,
}  # fmt: skip
FIXED = ("retention", "storage")


def is_match(pattern: str, subject: str) -> bool:
    """Whether a subject with NATS's wildcards covers a plain one."""
    for wanted, found in itertools.zip_longest(pattern.split("."), subject.split(".")):
        if wanted == ">" and found is not None:
            return True
        if wanted is None or found is None or wanted not in {"*", found}:
            return False
    return True


@dataclass
class Flight:
    """A message that was delivered and is not acked."""

    due: float
    num_delivered: int = 1


@dataclass
class FakeConsumer:
    """A durable pull consumer."""

    config: Config
    cursor: int = 0
    redelivered: int = 0
    waiting: int = 0
    delivered: int = 0
    flights: dict[int, Flight] = field(default_factory=dict)

    @property
    def ack_wait(self) -> float:
        return float(self.config["ack_wait"] / NANOSECONDS)

    @property
    def paused_until(self) -> float:
        until = self.config.get("pause_until")
        return timestamp(until) if until else 0.0

    def undelivered(self, stream: FakeStream) -> Iterator[Stored]:
        pattern = self.config["filter_subject"]
        return (
            message
            for sequence, message in list(stream.messages.items())
            if sequence > self.cursor and is_match(pattern, message.subject)
        )

    def offer(self, stream: FakeStream, now: float) -> tuple[Stored, Flight] | None:
        """Deliver one message: one whose time is up goes before a new one."""
        if now < self.paused_until:
            return None
        for sequence, flight in list(self.flights.items()):
            if flight.due <= now:
                flight.num_delivered += 1
                flight.due = now + self.ack_wait
                self.redelivered += 1
                self.delivered += 1
                return stream.messages[sequence], flight
        if 0 < self.config["max_ack_pending"] <= len(self.flights):
            return None
        for message in self.undelivered(stream):
            self.cursor = message.sequence
            self.delivered += 1
            flight = self.flights[message.sequence] = Flight(now + self.ack_wait)
            return message, flight
        return None

    def info(self, name: str, stream: FakeStream, now: float) -> ConsumerInfo:
        pending = sum(1 for _ in self.undelivered(stream))
        metadata = self.config.get("metadata", {})
        queue, band = metadata.get(QUEUE, name), int(metadata.get(BAND, "0"))
        flights = len(self.flights)
        paused_until = self.paused_until if now < self.paused_until else 0.0
        return ConsumerInfo(
            name, queue, band, pending, flights, self.redelivered, self.waiting, paused_until,
            self.delivered,
        )  # fmt: skip


@dataclass
class FakeStream:
    """A stream, its consumers and its duplicate window."""

    config: Config
    created: float = 0.0
    last_sequence: int = 0
    messages: dict[int, Stored] = field(default_factory=dict)
    sequences: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    ids: dict[str, tuple[int, float]] = field(default_factory=dict)
    consumers: dict[str, FakeConsumer] = field(default_factory=dict)

    def update(self, config: Config) -> None:
        if changed := [name for name in FIXED if config[name] != self.config[name]]:
            raise TopologyMismatch(f"stream {config['name']}: cannot change {', '.join(changed)}")
        self.config = config

    def store(
        self, subject: str, body: bytes, now: float, *, message_id: str | None, expected: int | None
    ) -> int:
        limit = self.config["max_msg_size"]
        if 0 <= limit < len(body):
            raise MessageTooLarge(f"{subject}: {len(body)} bytes, the stream takes {limit}")
        sequence, at = self.ids.get(message_id or "", (0, -math.inf))
        if now < at + self.config["duplicate_window"] / NANOSECONDS:
            return sequence
        held = self.sequences[subject]
        if expected is not None and expected != (last := held[-1] if held else 0):
            raise WrongSequence(f"{subject}: last sequence is {last}, not {expected}")
        kept = self.config["max_msgs_per_subject"]
        if 0 < kept <= len(held):
            if self.config["discard_new_per_subject"]:
                raise SubjectOccupied(f"{subject} holds a message")
            self.remove(held[0])
        self.last_sequence += 1
        self.messages[self.last_sequence] = Stored(subject, self.last_sequence, body, now)
        self.sequences[subject].append(self.last_sequence)
        if message_id:
            self.ids[message_id] = (self.last_sequence, now)
        return self.last_sequence

    def remove(self, sequence: int) -> None:
        if (message := self.messages.pop(sequence, None)) is None:
            return
        self.sequences[message.subject].remove(sequence)
        for consumer in self.consumers.values():
            consumer.flights.pop(sequence, None)

    def acked(self, consumer: str, sequence: int) -> None:
        flight = self.consumers[consumer].flights.pop(sequence, None)
        if flight and self.config["retention"] == "workqueue":
            self.remove(sequence)

    def last(self, subject: str) -> Stored | None:
        held = self.sequences.get(subject)
        return self.messages[held[-1]] if held else None

    def matching(self, pattern: str) -> list[Stored]:
        return [m for m in list(self.messages.values()) if is_match(pattern, m.subject)]

    def expire(self, now: float) -> None:
        if age := self.config["max_age"] / NANOSECONDS:
            for message in list(self.messages.values()):
                if message.at + age <= now:
                    self.remove(message.sequence)

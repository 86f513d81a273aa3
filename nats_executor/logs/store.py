"""Puts task logs into the bucket and gets them out again, through the port."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from nats_executor.batches import batches
from nats_executor.broker.port import Outgoing
from nats_executor.errors import BrokerUnavailable, DecodeError
from nats_executor.wire.log_parts import (
    CHUNK_BYTES,
    STORED_BYTES,
    Part,
    as_entry,
    beginning,
    ceiling,
    part_id,
    part_in,
)
from nats_executor.wire.sizes import LOG_ENTRY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nats_executor.broker.port import Broker, Stored
    from nats_executor.wire.names import Names

__all__ = ["CHUNKS_AT_ONCE", "UPLOAD_SECONDS", "StoredParts", "chunks", "find", "keep"]

# Chunks that are on the way at once, or in memory for a reader.
CHUNKS_AT_ONCE = 8
# Longer than any line of Airflow's own, with which a task's log begins.
FIRST_LINE_BYTES = 4096
# For one log. The task has ended, and its slot is free only afterwards.
UPLOAD_SECONDS = 10.0
# The share of that time in which to connect; an attempt that ends says why there is no connection.
CONNECTING = 0.9
# The pause before the messages that the broker did not take are sent again.
STORE_AGAIN_SECONDS = 0.2


class StoredParts(NamedTuple):
    """The parts of a log, oldest first, and how many entries could not be read."""

    parts: list[Part]
    unreadable: int


async def keep(
    broker: Broker, names: Names, queue: str, path: str, file: BinaryIO, *, seconds: float
) -> None:
    """Store a file as a part of a log, once there is a connection.

    Raises:
        BrokerError: the broker refuses it, or has not taken it within these seconds.
    """
    try:
        async with asyncio.timeout(seconds):
            await broker.ready(seconds * CONNECTING)
            await put(broker, names, queue, path, file)
    except TimeoutError:
        raise BrokerUnavailable(f"not stored within {seconds:g} s") from None


async def put(broker: Broker, names: Names, queue: str, path: str, file: BinaryIO) -> Part | None:
    """Store a file as a part of a log, trying for as long as the caller lets it; None if empty.

    Ending at any place leaves what was readable before as it was.

    Raises:
        BrokerError: the broker refuses it.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if not size:
        return None
    id_ = part_id(file.read(min(FIRST_LINE_BYTES, size)))
    start = beginning(size, most=STORED_BYTES, step=CHUNK_BYTES)
    digest, stored = hashlib.sha256(), 0
    file.seek(start)
    for window in batches(range(start // CHUNK_BYTES, ceiling(size, CHUNK_BYTES)), CHUNKS_AT_ONCE):
        messages = []
        for number in window:
            data = file.read(min(CHUNK_BYTES, size - number * CHUNK_BYTES))
            digest.update(data)
            stored += len(data)
            messages.append(Outgoing(names.log_chunk(queue, path, id_, number), data))
        await store(broker, messages)
    part = Part(id=id_, start=start, size=stored, digest=digest.digest())
    name, entry = as_entry(part, names, queue, path)
    subjects = (names.log_part(queue, path, id_), names.log_name(name))
    await store(broker, [Outgoing(subject, entry) for subject in subjects])
    return part


async def store(broker: Broker, messages: Sequence[Outgoing]) -> None:
    """Store messages, and send again those that fail because the broker is away."""
    left = list(messages)
    while left:
        outcomes = await broker.publish_all(left, timeout=2.0)
        for exc in outcomes:
            if exc is not None and not isinstance(exc, BrokerUnavailable):
                raise exc
        left = [message for message, exc in zip(left, outcomes, strict=True) if exc]
        if left:
            await asyncio.sleep(STORE_AGAIN_SECONDS)


async def find(broker: Broker, names: Names, queue: str, path: str) -> StoredParts:
    """Return what is known of the parts of a log."""
    subjects = names.log_parts(queue, path)
    entries = await broker.scan(names.logs_stream, subjects, largest=LOG_ENTRY_BYTES)
    parts = list(parts_in(subjects, entries))
    return StoredParts(parts, len(entries) - len(parts))


def parts_in(subjects: str, entries: Sequence[Stored]) -> Iterator[Part]:
    for entry in entries:
        try:
            part = part_in(entry.body)
        except DecodeError:
            continue
        if entry.subject == subjects.removesuffix("*") + part.id:
            yield part


async def chunks(
    broker: Broker, names: Names, queue: str, path: str, part: Part, numbers: Sequence[int]
) -> list[bytes | None]:
    """Return chunks as far as they belong to a part; None for each that is gone."""
    subjects = [names.log_chunk(queue, path, part.id, number) for number in numbers]
    stored = await broker.last_of_each(names.logs_stream, subjects, largest=CHUNK_BYTES)
    bodies = {message.subject: message.body for message in stored}
    return [
        bodies[subject][: part.length(number)] if subject in bodies else None
        for subject, number in zip(subjects, numbers, strict=True)
    ]

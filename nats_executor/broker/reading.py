"""Reads a whole stream in order, through one ephemeral consumer, a bounded batch at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nats_executor.broker.link import MESSAGES_PER_TURN
from nats_executor.broker.port import Stored
from nats_executor.broker.pull_times import HEARTBEAT_SECONDS, PULL_SECONDS, PULL_SILENCE_SECONDS
from nats_executor.broker.pulls import Pull, nanoseconds, status
from nats_executor.broker.replies import AckSubject

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from nats_executor.broker.link import Link

__all__ = ["read_stream"]

FOLLOW_BATCH = 1000
# A server ends a batch before the message with which it would be over; a larger one comes alone.
FOLLOW_BYTES = 2_000_000


async def read_stream(link: Link, subject: str, largest: int) -> AsyncGenerator[Stored, None]:
    """Yield what one ephemeral consumer delivers, until it falls silent or skips a message."""
    pull = Pull(link, subject)
    waiting = {
        "expires": nanoseconds(PULL_SECONDS),
        "idle_heartbeat": nanoseconds(HEARTBEAT_SECONDS),
    }
    batch = waiting | {"batch": FOLLOW_BATCH, "max_bytes": FOLLOW_BYTES}
    expected = 1
    await pull.open()
    try:
        request = batch
        while True:
            await pull.request(request)
            wanted = left = int(request["batch"])
            code = ""
            while left:
                try:
                    msg = await pull.next(PULL_SILENCE_SECONDS)
                except TimeoutError:
                    return
                if msg is None or (code := status(msg)) == "503":
                    return
                if code == "100":
                    continue
                if code:
                    break
                facts = AckSubject.parse(msg.reply)
                if facts.consumer_sequence != expected:
                    return
                expected += 1
                left -= 1
                yield Stored(msg.subject, facts.stream_sequence, msg.data[: largest + 1], facts.at)
                if not expected % MESSAGES_PER_TURN:
                    await asyncio.sleep(0)
            # A message that is larger than a whole batch is refused as long as there is a limit.
            is_refused = left == wanted and code == "409"
            request = waiting | {"batch": 1} if is_refused else batch
    finally:
        await pull.close()

"""Streams that lose their messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats_executor.broker.port import Broker

__all__ = ["empty"]


async def empty(broker: Broker, stream: str, subject: str) -> int:
    """Remove every message under a subject with wildcards; return how many there were."""
    found = await broker.scan(stream, subject)
    for message in found:
        await broker.remove(stream, message.subject)
    return len(found)

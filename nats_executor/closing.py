"""Ends a client of nats-py for good, whatever state its connection is in."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["close", "expect_end"]

# To say goodbye to a server that may not read any more.
CLOSE_SECONDS = 1.0


def expect_end(client: Any) -> None:
    """Tell a stream that it is over TLS; nats-py does not, and asyncio warns when it ends."""
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    if writer is not None and writer.get_extra_info("sslcontext") is not None:
        writer.transport.get_protocol()._over_ssl = True  # noqa: SLF001 - as StreamWriter.start_tls


async def close(client: Any) -> None:
    """Close what may be broken, half open or deaf; a cancellation leaves it time to do so."""
    # The answer to a flush that was given up finds nobody: nats-py would trip over it, aloud.
    getattr(client, "_pongs", []).clear()
    closing = asyncio.create_task(leave(client))
    closing.add_done_callback(lambda task: task.cancelled() or task.exception())  # gone is gone
    try:
        await asyncio.wait([closing], timeout=CLOSE_SECONDS)
    finally:
        await asyncio.wait([closing], timeout=CLOSE_SECONDS / 20)
        closing.cancel()
        abort(client)
        # What was closed on the way frees its socket in the loop's next step.
        await asyncio.sleep(0)


async def leave(client: Any) -> None:
    """Close; a WebSocket whose goodbye is cut short stays open unless its session is closed."""
    try:
        await client.close()
    finally:
        session = getattr(getattr(client, "_transport", None), "_client", None)
        if session is not None:
            await session.close()


def abort(client: Any) -> None:
    """Free the socket of an attempt that was cut short, which nats-py leaves to the collector.

    A failed TLS handshake leaves the plain stream open under the one that nats-py knows.
    """
    connection = getattr(client, "_transport", None)
    for name in ("_io_writer", "_bare_io_writer"):
        if (writer := getattr(connection, name, None)) is not None:
            writer.transport.abort()

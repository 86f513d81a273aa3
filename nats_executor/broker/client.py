"""Ends a client of nats-py for good, whatever state its connection is in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["close", "expect_end"]

# To say goodbye to a server that may not read any more.
CLOSING_SECONDS = 1.0


def expect_end(client: Any) -> None:
    """Tell a stream that it is over TLS; nats-py does not, and asyncio warns when it ends."""
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    if writer is not None and writer.get_extra_info("sslcontext") is not None:
        writer.transport.get_protocol()._over_ssl = True  # noqa: SLF001 - as StreamWriter.start_tls


async def close(client: Any) -> None:
    """Close what may be broken, half open or deaf; a cancellation leaves it time to do so."""
    give_up_flushes(client)
    streams = list(streams_of(client))
    closing = asyncio.create_task(leave(client))
    closing.add_done_callback(lambda task: task.cancelled() or task.exception())  # gone is gone
    try:
        await asyncio.wait([closing], timeout=CLOSING_SECONDS)
    finally:
        await asyncio.wait([closing], timeout=CLOSING_SECONDS / 20)
        closing.cancel()
        for stream in (*streams, *streams_of(client)):
            stream.abort()
        end_tasks(client)
        # What was closed on the way frees its socket in the loop's next step.
        await asyncio.sleep(0)


def give_up_flushes(client: Any) -> None:
    """Fail what waits for an answer, which may still come: nats-py would trip over it, aloud."""
    answers = getattr(client, "_pongs", [])
    for answer in answers:
        if not answer.done():
            answer.set_exception(ConnectionResetError("the connection is given up"))
            answer.exception()  # nobody waits for nats-py's own pings
    answers.clear()


def end_tasks(client: Any) -> None:
    """End what nats-py leaves running when its own closing meets an error, and take note of that.

    A server that resets the connection while something is still unsent is such an error.
    """
    for subscription in getattr(client, "_subs", {}).values():
        subscription._stop_processing()  # noqa: SLF001 - there is no other way
    for name in ("_reading_task", "_flusher_task", "_ping_interval_task"):
        if (task := getattr(client, name, None)) is not None:
            task.add_done_callback(lambda task: task.cancelled() or task.exception())


async def leave(client: Any) -> None:
    """Close; a WebSocket whose goodbye is cut short stays open unless its session is closed."""
    try:
        await client.close()
    finally:
        session = getattr(getattr(client, "_transport", None), "_client", None)
        if session is not None:
            await session.close()


def streams_of(client: Any) -> Iterator[asyncio.WriteTransport]:
    """Yield the streams of an attempt or a connection, which may outlive their client.

    nats-py leaves those of an attempt that was cut short to the garbage collector. A failed TLS
    handshake leaves the plain stream open under the one that nats-py knows; a WebSocket over TLS
    waits half a minute for the other side's goodbye.
    """
    connection = getattr(client, "_transport", None)
    for name in ("_io_writer", "_bare_io_writer"):
        if (writer := getattr(connection, name, None)) is not None:
            yield writer.transport
    response = getattr(getattr(connection, "_ws", None), "_response", None)
    stream = getattr(getattr(response, "connection", None), "transport", None)
    if stream is not None:
        yield stream

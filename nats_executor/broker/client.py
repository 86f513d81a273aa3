"""Wraps nats-py's client: looks before it logs in, flushes for sure, and ends whatever is left.

Each private name of nats-py that this project reads is read here, and is in `RELIED_ON`.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

from nats_executor.broker.late import loaded_late
from nats_executor.broker.port import ServerOffer
from nats_executor.errors import BrokerError, BrokerUnavailable

# nats-py imports all of aiohttp, for servers at `ws://` and `wss://` alone: a third of the CPU time
# that a command adds to Airflow's own, and five megabytes of every process.
with loaded_late("aiohttp"):
    import nats.errors
    from nats.aio import client as nats_client
    from nats.aio.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

__all__ = ["FORESEEN", "WATCH_SECONDS", "Client", "Subscription", "Translated"]

# Private names by their class, and two public ones that no documentation promises. A test looks for
# them in the releases that are installed. Where a later one has renamed something that only
# matters for a clean end, `inside` finds nothing, and the end is less clean.
RELIED_ON = {
    "nats.aio.client.Client": (
        "_connect_command",
        "_flusher_task",
        "_ping_interval_task",
        "_pongs",
        "_reading_task",
        "_server_info",
        "_subs",
        "_transport",
    ),
    "nats.aio.subscription.Subscription": ("_stop_processing",),
    "nats.aio.transport.TcpTransport": ("_bare_io_writer", "_io_writer"),
    "nats.aio.transport.WebSocketTransport": ("_client", "_ws"),
    "aiohttp.client_reqrep.ClientResponse": ("connection",),
    "aiohttp.client_ws.ClientWebSocketResponse": ("_response",),
    "aiohttp.connector.Connection": ("transport",),
    "asyncio.streams.StreamReaderProtocol": ("_over_ssl",),
}
# The errors of a flush, publish, subscription or drain that is lost or not answered.
LOST = (nats.errors.Error, OSError)
# Failures to connect that tell a person enough; any other one is logged with its traceback.
FORESEEN = (BrokerError, ImportError, *LOST)
# A worker that is cut off finds out after at most twice this time, and before it is taken for lost.
WATCH_SECONDS = 5.0
# For a server that may not read any more to be told of the end.
CLOSING_SECONDS = 1.0


class Translated:
    """Raises `BrokerUnavailable` in place of the errors of nats-py and of the network.

    A class, as each message that is sent goes through it: a generator takes twice the time.

    Args:
        what: did not work, for the message.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        if isinstance(exc, LOST):
            raise BrokerUnavailable(f"{self._what}: {exc}") from exc


class Client(nats_client.Client):
    """One connection to one server; a lost one is not renewed.

    After a flush the server has read all that was sent, and said what it denies. The answer to a
    flush that was cancelled would end nats-py's reading for good, so each flush is carried through.

    Args:
        require_safe: gets the server's greeting, and raises if no login may be sent there.
    """

    def __init__(self, require_safe: Callable[[Mapping[str, Any]], None]) -> None:
        super().__init__()
        self._require_safe = require_safe

    @property
    def greeting(self) -> Mapping[str, Any]:
        """The first message of the server (INFO); empty if there was none."""
        return self._server_info

    @property
    def certificate_ends(self) -> float:
        """When the server's certificate expires, in epoch seconds; 0 without TLS."""
        for stream in self.streams():
            if shown := stream.get_extra_info("peercert"):
                return float(ssl.cert_time_to_seconds(shown["notAfter"]))
        return 0.0

    @property
    def offer(self) -> ServerOffer:
        # A server of a cluster names it, and one without JetStream does not say that it has it.
        is_lone = bool(self.greeting.get("jetstream")) and not self.greeting.get("cluster")
        return ServerOffer(self.max_payload, self.certificate_ends, is_lone)

    async def open(
        self,
        server: str,
        *,
        on_error: Callable[[Exception], Awaitable[None]],
        credentials: str | None,
        **options: Any,
    ) -> None:
        """Connect once; raises at once what is in the way.

        Args:
            on_error: gets what the server denies later, apart from the call that it denies.
            credentials: the text of a file of credentials.
            options: as nats-py's `connect` has them.
        """
        is_connecting = True

        async def error_cb(exc: Exception) -> None:
            if is_connecting:
                raise exc  # nats-py would try this one server again for two minutes
            await on_error(exc)

        raw = None if credentials is None else nats_client.RawCredentials(credentials)
        options |= {"allow_reconnect": False, "user_credentials": raw}
        try:
            await self.connect(server, error_cb=error_cb, **options)
        finally:
            is_connecting = False
        self._expect_end()

    def _connect_command(self) -> bytes:
        self._require_safe(self._server_info)
        return super()._connect_command()

    def _expect_end(self) -> None:
        """Tell a stream that it is over TLS; nats-py does not, and asyncio warns when it ends."""
        writer = inside(self._transport, "_io_writer")
        if writer is not None and writer.get_extra_info("sslcontext") is not None:
            writer.transport.get_protocol()._over_ssl = True  # noqa: SLF001 - as StreamWriter.start_tls

    async def flush(self, timeout: float = WATCH_SECONDS) -> None:
        flushing = asyncio.create_task(self._flush_twice(timeout), name="flush")
        flushing.add_done_callback(settle)
        await asyncio.shield(flushing)

    async def _flush_twice(self, timeout: float) -> None:
        # nats-py's first PING overtakes what its writer has not sent yet; the second one cannot.
        for _ in range(2):
            await super().flush(timeout)  # type: ignore[arg-type] # any number will do

    async def end(self) -> None:
        """Close a connection in any state: broken, half open, or to a server that hangs.

        It takes a second at most. A cancellation shortens that and leaves nothing open.
        """
        self._give_up_flushes()
        streams = list(self.streams())
        closing = asyncio.create_task(self._leave())
        closing.add_done_callback(settle)
        try:
            await asyncio.wait([closing], timeout=CLOSING_SECONDS)
        finally:
            await asyncio.wait([closing], timeout=CLOSING_SECONDS / 20)
            closing.cancel()
            for stream in (*streams, *self.streams()):
                stream.abort()
            self._end_tasks()
            # A transport that was closed above frees its socket in the loop's next step.
            await asyncio.sleep(0)

    def _give_up_flushes(self) -> None:
        """Fail each flush that waits; its answer may still come, and nats-py would log an error."""
        answers = inside(self, "_pongs") or []
        for answer in answers:
            if not answer.done():
                answer.set_exception(ConnectionResetError("the connection is given up"))
                answer.exception()  # nats-py does not wait for its own pings
        answers.clear()

    async def _leave(self) -> None:
        """Close; a WebSocket that is cut short in closing stays open unless its session is."""
        try:
            await self.close()
        finally:
            session = inside(self._transport, "_client")
            if session is not None:
                await session.close()

    def _end_tasks(self) -> None:
        """End what nats-py leaves running when its own closing meets an error, and settle that.

        A server that resets the connection while something is still unsent is such an error.
        """
        for subscription in (inside(self, "_subs") or {}).values():
            if (stop := inside(subscription, "_stop_processing")) is not None:
                stop()
        for name in ("_reading_task", "_flusher_task", "_ping_interval_task"):
            if (task := inside(self, name)) is not None:
                task.add_done_callback(settle)

    def streams(self) -> Iterator[asyncio.WriteTransport]:
        """Yield the streams of an attempt or a connection, which may outlive their client.

        nats-py leaves those of an attempt that was cut short to the garbage collector. A failed TLS
        handshake leaves the plain stream open under the one that nats-py knows; a WebSocket over
        TLS waits half a minute for the other side's close frame.
        """
        for name in ("_io_writer", "_bare_io_writer"):
            if (writer := inside(self._transport, name)) is not None:
                yield writer.transport
        response = inside(inside(self._transport, "_ws"), "_response")
        stream = inside(inside(response, "connection"), "transport")
        if stream is not None:
            yield stream


def inside(thing: object, name: str) -> Any:
    """Return a private attribute, None where there is none; the name is in `RELIED_ON`."""
    return getattr(thing, name, None)


def settle(task: asyncio.Task[Any]) -> None:
    """Look at how a task ended, so that asyncio logs no exception that was never retrieved."""
    if not task.cancelled():
        task.exception()

"""The one door to NATS: connects, stays connected, asks and answers.

nats-py carries the protocol. Two things are done here instead: reconnecting, with a fresh client
each time, because a closed one never comes back; and request and reply, so that a lost connection
or a denied subject fails a call at once instead of by time-out. `jetstream.py` builds on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import random
import secrets
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.aio import client as nats_client

from nats_executor import login
from nats_executor.closing import close, expect_end
from nats_executor.denials import Denials
from nats_executor.errors import (
    AccessDenied,
    BrokerError,
    BrokerUnavailable,
    MessageTooLarge,
    NoResponders,
)
from nats_executor.jetstream import JetStream
from nats_executor.link import Answer, Link, Listener
from nats_executor.replies import header_bytes
from nats_executor.settings import Settings, without_userinfo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

__all__ = ["Connection", "connect"]

log = logging.getLogger(__name__)

# A worker that is cut off finds out after at most twice this time, and before it is taken for lost.
WATCH_SECONDS = 5.0
WATCHES_PER_LOSS = 4
LOOK_SECONDS = 0.25
# Delays between attempts to connect double up to this; each is randomised, so that a fleet
# does not return in step.
LONGEST_DELAY = 2.0
# Roles of connections whose users may not ask for any stream's state.
SPARING = frozenset({"api server", "task log"})
# Failures to connect that tell a person enough; any other one is logged with its traceback.
FORESEEN = (BrokerError, nats.errors.Error, ImportError, OSError, TimeoutError)


@contextlib.asynccontextmanager
async def connect(settings: Settings, *, role: str) -> AsyncIterator[JetStream]:
    """Keep a connection for the length of the context; does not wait for the first one.

    Args:
        role: shown in the server's list of connections, together with this host's name.
    """
    connection = Connection(settings, role=role)
    keeper = asyncio.create_task(connection.stay_connected(), name="broker-connection")
    try:
        yield JetStream(connection, settings, diagnoses=role not in SPARING)
    finally:
        # nats-py swallows a cancellation that meets connect() or close(): once is not enough.
        while not keeper.done():
            keeper.cancel()
            await asyncio.wait([keeper], timeout=0.1)
        if not keeper.cancelled():
            keeper.result()


class Client(nats_client.Client):
    """nats-py's client, which looks at the server's greeting before it sends a login.

    The answer to a flush that was given up would end its reading for good, so none is.
    """

    def __init__(self, require_safe: Callable[[Mapping[str, Any]], None]) -> None:
        super().__init__()
        self._require_safe = require_safe

    def _connect_command(self) -> bytes:
        self._require_safe(self._server_info)
        return super()._connect_command()

    async def flush(self, timeout: float = WATCH_SECONDS) -> None:
        flushing = asyncio.create_task(super().flush(timeout), name="flush")  # type: ignore[arg-type] # any number will do
        flushing.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(flushing)


class Connection(Link):
    """A connection that renews itself; all calls belong to the event loop that it was made in."""

    def __init__(self, settings: Settings, *, role: str) -> None:
        self._settings = settings
        self._role = role
        self._client: Client | None = None
        self._connected = asyncio.Event()
        self._connected_since = math.inf
        self._reason: BrokerError = login.not_yet(settings)
        self._failures: set[str] = set()  # what was logged since the last connection
        self._denials = Denials(settings, role)
        self._lost = asyncio.Event()
        self._inbox = f"{settings.inbox_prefix}.{secrets.token_hex(11)}"
        self._tokens = itertools.count()
        self._pending: dict[str, tuple[str, Callable[[Answer | BrokerError], None]]] = {}
        self._listeners: dict[str, Listener] = {}
        self._subscribed: dict[str, Subscription] = {}
        self._refused: AccessDenied | None = None  # the subscription without which nothing works

    # The connection

    @property
    def is_connected(self) -> bool:
        self._notice_end()
        return self._connected.is_set()

    @property
    def connected_since(self) -> float:
        return self._connected_since

    @property
    def denied(self) -> str:
        return self._denials.lately

    def new_inbox(self) -> str:
        # One level more than the inboxes of requests, so that it is not taken for one.
        return f"{self._inbox}.pull.{next(self._tokens)}"

    async def ready(self, timeout: float) -> None:
        self._notice_end()
        try:
            async with asyncio.timeout(timeout):
                await self._connected.wait()
        except TimeoutError:
            raise type(self._reason)(str(self._reason)) from None

    async def stay_connected(self) -> None:
        """Connect, watch the connection, and build a new one when it is lost, until cancelled."""
        servers = list(self._settings.servers)
        attempts = 0
        while True:
            random.shuffle(servers)
            try:
                if client := await self._connect_to_any(servers):
                    await self._watch(client)
                    servers = login.known_servers(self._settings, client.discovered_servers)
                    attempts = 0
                    continue
            except Exception:
                log.exception("a fault in the connection to NATS; next: a new connection")
            attempts += 1
            longest = min(LONGEST_DELAY, self._settings.worker_lost_seconds / WATCHES_PER_LOSS)
            delay = min(longest, 0.05 * 2 ** min(attempts, 10))
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret

    async def _connect_to_any(self, servers: Iterable[str]) -> Client | None:
        for server in servers:
            client = Client(partial(login.require_safe, server, self._settings))
            is_open = False
            try:
                async with asyncio.timeout(self._settings.connect_timeout_seconds):
                    await self._open(client, server)
                self._renewed()
                is_open = True
            except Exception as exc:  # noqa: BLE001 - whatever it is, the next attempt may work
                self._note_failure(server, exc, client._server_info)  # noqa: SLF001
                continue
            finally:
                if not is_open:
                    self._disconnected()
                    await close(client)
            log.info("connected to NATS at %s as %s", without_userinfo(server), self._role)
            return client
        return None

    def _renewed(self) -> None:
        self._reason = BrokerUnavailable("the connection to NATS was lost")
        self._failures.clear()
        self._connected_since = time.monotonic()
        self._connected.set()
        for listener in self._listeners.values():
            listener.on_renewed()

    async def _open(self, client: Client, server: str) -> None:
        """Connect to one server and subscribe; raises at once what is in the way."""
        is_connecting = True

        async def on_error(exc: Exception) -> None:
            if is_connecting:
                raise exc  # nats-py would try this one server again for two minutes
            await self._on_error(exc)

        self._lost = asyncio.Event()
        self._refused = None
        try:
            await client.connect(server, error_cb=on_error, **self._connect_options())
        finally:
            is_connecting = False
        expect_end(client)
        self._client = client
        self._subscribed = {}
        await client.subscribe(f"{self._inbox}.*", cb=self._on_reply)
        for subject in list(self._listeners):
            await self._subscribe(client, subject)
        await settle(client)
        if self._refused is not None:
            raise self._refused

    async def _subscribe(self, client: Client, subject: str) -> None:
        on_message = self._listeners[subject].on_message
        self._subscribed[subject] = await client.subscribe(subject, cb=on_message)

    def _connect_options(self) -> dict[str, Any]:
        s = self._settings
        creds = login.credentials(s)
        return login.options(s) | {
            "name": f"{self._role}@{socket.gethostname()}",
            "allow_reconnect": False,  # `stay_connected` does it
            "connect_timeout": s.connect_timeout_seconds,
            "user_credentials": None if creds is None else nats_client.RawCredentials(creds),
            "inbox_prefix": s.inbox_prefix.encode(),
            "closed_cb": self._on_closed,
        }

    async def _watch(self, client: Client) -> None:
        """Return when the client is closed, or connected but deaf; then it is given up."""
        seconds = min(WATCH_SECONDS, self._settings.worker_lost_seconds / WATCHES_PER_LOSS)
        try:
            while not await self._is_lost_within(seconds):
                await client.flush(seconds)
        except (nats.errors.Error, OSError, TimeoutError):
            log.warning("NATS does not answer; next: a new connection")
        finally:
            self._denials.renew()
            self._disconnected()
            await close(client)

    async def _is_lost_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self._lost.is_set() and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._lost.wait()
            self._notice_end()
        return self._lost.is_set()

    def _notice_end(self) -> None:
        """Look; nats-py does not call `closed_cb` when its last write meets a dead socket."""
        if self._client is not None and self._client.is_closed:
            self._lost.set()
            self._disconnected()

    def _disconnected(self) -> None:
        self._client = None
        self._connected.clear()
        self._connected_since = math.inf
        for _, resolve in list(self._pending.values()):
            resolve(self._reason)

    def _note_failure(self, server: str, exc: Exception, greeting: Mapping[str, Any]) -> None:
        """Keep the reason for callers, and log it once in an outage."""
        self._reason = login.connect_error(server, self._settings, exc, greeting)
        text = str(self._reason)
        if text not in self._failures and exc is not self._refused:  # a denial is said already
            trace = None if isinstance(exc, FORESEEN) else exc
            log.warning("%s; next: trying again until it works", text, exc_info=trace)
        self._failures.add(text)

    async def _on_closed(self) -> None:
        self._lost.set()

    async def _on_error(self, exc: Exception) -> None:
        """Fail the calls that a permission denies; nats-py reports it apart from the call."""
        if not self._denials.tell(str(exc), list(self._concerned())):
            log.debug("nats client: %s", exc)

    def _concerned(self) -> Iterator[tuple[str, Callable[[AccessDenied], None]]]:
        """Every subject in use, with whom to tell that it is denied."""
        yield f"{self._inbox}.*", self._refuse
        yield from self._pending.values()
        for subject, listener in self._listeners.items():
            yield subject, listener.on_denied
            yield listener.asks, listener.on_denied

    def _refuse(self, denied: AccessDenied) -> None:
        self._refused = denied

    # Requests

    async def _on_reply(self, msg: Msg) -> None:
        entry = self._pending.get(msg.subject.rpartition(".")[2])
        if entry is not None:
            entry[1](msg)

    async def ask(
        self,
        subject: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def resolve(outcome: Answer | BrokerError) -> None:
            if not isinstance(outcome, BrokerError) and not future.done():
                future.set_result(outcome)
            elif isinstance(outcome, BrokerError) and not future.done():
                future.set_exception(outcome)
                future.exception()  # nobody waits for it where sending fails as well

        limit = self._settings.publish_timeout_seconds if timeout is None else timeout
        with self.awaiting(subject, resolve) as reply:
            try:
                async with asyncio.timeout(limit):
                    await self.send(subject, body, reply=reply, headers=headers)
                    msg = await future
            except TimeoutError:
                raise BrokerUnavailable(f"no answer on {subject} within {limit:g} s") from None
        if msg.headers and msg.headers.get("Status") == "503":
            raise NoResponders(f"nobody listens on {subject}")
        return msg

    @contextlib.contextmanager
    def awaiting(
        self, subject: str, resolve: Callable[[Answer | BrokerError], None]
    ) -> Iterator[str]:
        token = str(next(self._tokens))
        self._pending[token] = (subject, resolve)
        try:
            yield f"{self._inbox}.{token}"
        finally:
            del self._pending[token]

    async def send(
        self,
        subject: str,
        body: bytes,
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._notice_end()
        if self._client is None:
            raise type(self._reason)(str(self._reason))
        if reply in self._listeners:
            self._listeners[reply].asks = subject
        elif not reply:
            self._denials.send(subject)
        # The server counts headers too and closes the connection; nats-py looks at the body alone.
        size = len(body) + header_bytes(headers)
        if size > (limit := self._client.max_payload):
            text = f"{size} bytes; the server's max_payload is {limit}: raise it there"
            raise MessageTooLarge(f"{text}, or make the workload smaller")
        try:
            await self._client.publish(subject, body, reply, dict(headers) if headers else None)
        except (nats.errors.Error, OSError) as exc:
            raise BrokerUnavailable(f"cannot send to {subject}: {exc}") from exc

    async def listen(self, subject: str, listener: Listener) -> None:
        await self.forget(subject)  # two of them would answer twice
        denials: list[BrokerError] = []
        on_denied, listener.on_denied = listener.on_denied, denials.append
        self._listeners[subject] = listener
        if self._client is not None:
            try:
                await self._subscribe(self._client, subject)
                await settle(self._client)
            except (nats.errors.Error, OSError, TimeoutError):
                self._lost.set()  # the next connection does it
        listener.on_denied = on_denied
        if denials:
            await self.forget(subject)
            raise denials[0]

    async def forget(self, subject: str) -> None:
        self._listeners.pop(subject, None)
        if subscription := self._subscribed.pop(subject, None):
            with contextlib.suppress(nats.errors.Error, OSError):  # gone with its connection
                await subscription.unsubscribe()


async def settle(client: Client) -> None:
    """Return once the server has seen every subscription and said which it denies."""
    # nats-py's first PING overtakes what its writer has not sent yet; the second one cannot.
    await client.flush()
    await client.flush()

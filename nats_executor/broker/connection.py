"""Connects to NATS, stays connected, asks and answers.

nats-py carries the protocol. Two things are done here instead: reconnecting, with a fresh client
each time, because a closed one never comes back; and request and reply, so that a lost connection
or a denied subject fails a call at once instead of by time-out. `jetstream.py` builds on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from nats_executor.broker import login
from nats_executor.broker.client import FORESEEN, WATCH_SECONDS, Client, Subscription, Translated
from nats_executor.broker.denials import Denials
from nats_executor.broker.inboxes import Inbox, Listeners
from nats_executor.broker.jetstream import JetStream
from nats_executor.broker.link import Link, Listener, Received
from nats_executor.broker.port import ServerOffer
from nats_executor.broker.replies import header_bytes
from nats_executor.broker.servers import Servers, advertised_by
from nats_executor.errors import (
    AccessDenied,
    BrokerError,
    BrokerUnavailable,
    MessageTooLarge,
    NoResponders,
)
from nats_executor.retrying import end_task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from nats_executor.settings import Settings

__all__ = ["connect"]

log = logging.getLogger(__name__)

WATCHES_PER_LOSS = 4
NOTICE_SECONDS = 0.25
# The server confirms at once that it sends no more; what it has sent by then is handed back.
FORGET_SECONDS = 1.0


@contextlib.asynccontextmanager
async def connect(settings: Settings, *, role: str) -> AsyncIterator[JetStream]:
    """Keep a connection for the length of the context; does not wait for the first one.

    Args:
        role: shown in the server's list of connections, together with this host's name.
    """
    connection = Connection(settings, role=role)
    keeper = asyncio.create_task(connection.stay_connected(), name="broker-connection")
    try:
        yield JetStream(connection, settings, diagnoses=role not in login.SPARING)
    finally:
        await end_task(keeper)


class Connection(Link):
    """A connection that renews itself; all calls belong to the event loop that it was made in."""

    def __init__(self, settings: Settings, *, role: str) -> None:
        self._settings = settings
        self._role = role
        self._client: Client | None = None
        self._connected = asyncio.Event()
        self._connected_since = math.inf
        self._reason: BrokerError = login.not_yet(settings)
        self._servers = Servers(settings.servers)
        self._denials = Denials(settings, role)
        self._lost = asyncio.Event()
        self._inbox = Inbox(settings.inbox_prefix)
        self._listeners = Listeners(self._inbox)
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

    @property
    def server_version(self) -> str:
        return login.version_in(self._client.greeting) if self._client else ""

    @property
    def offer(self) -> ServerOffer:
        if self._client is None:
            return ServerOffer()
        return self._client.offer

    async def ready(self, timeout: float) -> None:
        self._notice_end()
        try:
            async with asyncio.timeout(timeout):
                await self._connected.wait()
        except TimeoutError:
            raise type(self._reason)(str(self._reason)) from None

    async def stay_connected(self) -> None:
        """Connect, watch the connection, and build a new one when it is lost, until cancelled."""
        longest = self._settings.worker_lost_seconds / WATCHES_PER_LOSS
        while True:
            try:
                if await self._connect_to_any():
                    continue
            except Exception:
                log.exception("a fault in the connection to NATS; next: a new connection")
            await asyncio.sleep(self._servers.pause(longest, random.uniform))

    async def _connect_to_any(self) -> bool:
        """Keep a connection to the first server that accepts one; False if none does."""
        failures: list[Exception] = []
        for server in self._servers.round(time.monotonic(), random.shuffle):
            began = time.monotonic()
            client = Client(partial(login.require_safe, server, self._settings))
            is_open = False
            try:
                async with asyncio.timeout(self._settings.connect_timeout_seconds):
                    await self._open(client, server)
                self._renewed(server)
                is_open = True
            except Exception as exc:  # noqa: BLE001 - whatever it is, the next attempt may work
                failures.append(exc)
                self._note_failure(server, exc, client.greeting, began)
                continue
            finally:
                if not is_open:
                    self._disconnected()
                    await client.end()
            await self._keep(client, server)
            return True
        self._tell_failure(failures)
        return False

    async def _keep(self, client: Client, server: str) -> None:
        login.tell_connected(server, self._role, client.greeting)
        try:
            await self._watch(client)
        finally:
            advertised = advertised_by(server, client.discovered_servers)
            self._servers.lost(server, advertised, now=time.monotonic())

    def _renewed(self, server: str) -> None:
        self._reason = BrokerUnavailable("the connection to NATS was lost")
        self._servers.connected(server)
        self._connected_since = time.monotonic()
        self._connected.set()
        self._listeners.tell_renewed()

    async def _open(self, client: Client, server: str) -> None:
        """Connect to one server and subscribe; raises at once what is in the way."""
        self._lost = asyncio.Event()
        self._refused = None
        await client.open(server, **self._connect_options())
        # Those of this moment: a listener that is added from here on subscribes by itself.
        listeners = self._listeners.renew()
        self._client, self._subscribed = client, {}
        await client.subscribe(self._inbox.subject, cb=self._inbox.hear)
        for listener in listeners:
            if self._listeners.at(listener.subject) is listener:
                await self._subscribe(client, listener)
        await client.flush()
        if self._refused is not None:
            raise self._refused

    async def _subscribe(self, client: Client, listener: Listener) -> None:
        subject, on_message = listener.subject, listener.on_message
        self._subscribed[subject] = await client.subscribe(subject, cb=on_message)

    def _connect_options(self) -> dict[str, Any]:
        s = self._settings
        return login.login_options(s) | {
            "name": f"{self._role}@{socket.gethostname()}",
            "connect_timeout": s.connect_timeout_seconds,
            "credentials": login.credentials(s),
            "inbox_prefix": s.inbox_prefix.encode(),
            "closed_cb": self._on_closed,
            "on_error": self._on_error,
        }

    async def _watch(self, client: Client) -> None:
        """Return when the client is closed, or its server does not answer; then it is ended."""
        seconds = min(WATCH_SECONDS, self._settings.worker_lost_seconds / WATCHES_PER_LOSS)
        try:
            while not await self._is_lost_within(seconds):
                with Translated("a flush"):
                    await client.flush(seconds)
        except BrokerUnavailable:
            log.info("NATS does not answer; next: a new connection")
        finally:
            self._denials.renew()
            self._disconnected()
            await client.end()

    async def _is_lost_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self._lost.is_set() and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(NOTICE_SECONDS):
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
        self._inbox.fail(self._reason)

    def _note_failure(
        self, server: str, exc: Exception, greeting: Mapping[str, Any], began: float
    ) -> None:
        """Keep the reason for callers."""
        reason = login.connect_error(server, self._settings, exc, greeting, self._servers)
        if greeting:
            self._servers.answered(server)
        self._servers.failed(server, reason, began=began, now=time.monotonic())
        self._reason = self._servers.reason
        log.debug("%s", reason)

    def _tell_failure(self, failures: Sequence[Exception]) -> None:
        """Log once in an outage that no server works; one of several that fails is not logged."""
        is_logged = self._refused in failures  # `Denials` has logged it
        if self._servers.is_news() and not is_logged and self._role not in login.ASKERS:
            trace = next((exc for exc in failures if not isinstance(exc, FORESEEN)), None)
            log.warning("%s; next: trying again until it works", self._reason, exc_info=trace)

    async def _on_closed(self) -> None:
        self._lost.set()

    async def _on_error(self, exc: Exception) -> None:
        """Fail the calls that a permission denies; nats-py reports it apart from the call."""
        if not self._denials.tell(str(exc), list(self._concerned())):
            log.debug("nats client: %s", exc)

    def _concerned(self) -> Iterator[tuple[str, Callable[[AccessDenied], None]]]:
        """Yield each subject in use, and the function that gets its denial."""
        yield self._inbox.subject, self._refuse
        yield from self._inbox.concerned()
        yield from self._listeners.concerned()

    def _refuse(self, denied: AccessDenied) -> None:
        self._refused = denied

    # Requests

    async def ask(
        self,
        subject: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Received:
        future: asyncio.Future[Received] = asyncio.get_running_loop().create_future()

        def resolve(outcome: Received | BrokerError) -> None:
            if not isinstance(outcome, BrokerError) and not future.done():
                future.set_result(outcome)
            elif isinstance(outcome, BrokerError) and not future.done():
                future.set_exception(outcome)
                future.exception()  # where sending fails as well, nothing awaits it

        limit = self._settings.publish_timeout_seconds if timeout is None else timeout
        with self.awaiting(subject, resolve) as reply:
            try:
                async with asyncio.timeout(limit):
                    await self.send(subject, body, reply=reply, headers=headers)
                    msg = await future
            except TimeoutError:
                raise BrokerUnavailable(f"no answer on {subject} within {limit:g} s") from None
        if msg.headers and msg.headers.get("Status") == "503":
            raise NoResponders(f"no client is subscribed to {subject}")
        return msg

    def awaiting(
        self, subject: str, resolve: Callable[[Received | BrokerError], None]
    ) -> AbstractContextManager[str]:
        return self._inbox.awaiting(subject, resolve)

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
        if listener := self._listeners.at(reply):
            listener.asks = subject
        elif not reply:
            self._denials.send(subject)
        # The server counts headers too and closes the connection; nats-py looks at the body alone.
        size = len(body) + header_bytes(headers)
        if size > (limit := self._client.max_payload):
            text = f"{size} bytes; the server's max_payload is {limit}: raise it there"
            raise MessageTooLarge(f"{text}, or make the workload smaller")
        with Translated(f"cannot send to {subject}"):
            await self._client.publish(subject, body, reply, dict(headers) if headers else None)

    async def listen(self, listener: Listener) -> None:
        if earlier := self._listeners.at(listener.subject):
            await self.forget(earlier)  # two of them would answer twice
        denials: list[BrokerError] = []
        on_denied, listener.on_denied = listener.on_denied, denials.append
        self._listeners.add(listener)
        try:
            if self._client is not None:
                with Translated(f"cannot listen on {listener.subject}"):
                    await self._subscribe(self._client, listener)
                    await self._client.flush()
        except BrokerUnavailable:
            self._lost.set()  # the next connection does it
        finally:
            listener.on_denied = on_denied
        if denials:
            await self.forget(listener)
            raise denials[0]

    async def forget(self, listener: Listener) -> None:
        self._listeners.remove(listener)
        if subscription := self._subscribed.pop(listener.subject, None):
            # It ended with its connection, or the server takes longer.
            with contextlib.suppress(BrokerUnavailable), Translated(listener.subject):
                async with asyncio.timeout(FORGET_SECONDS):
                    await subscription.drain()  # type: ignore[no-untyped-call]

"""Defines what JetStream needs of a connection; `connection.Connection` is the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractContextManager

    from nats_executor.broker.port import ServerOffer
    from nats_executor.errors import BrokerError

__all__ = ["MESSAGES_PER_TURN", "Link", "Listener", "Received", "nothing"]

# After so many messages a loop over them lets the other tasks run.
MESSAGES_PER_TURN = 100


class Received(Protocol):
    """The part of a received message that is read here."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str] | None


def nothing(*_: object) -> None:
    """Do nothing on a renewed connection or a denial."""


class Listener:
    """A subscription that outlives connections.

    Args:
        subject: where it listens. Without one it is an inbox, and each connection gives it another
            subject: the server keeps a pull request for as long as its inbox is listened on.

    Attributes:
        asks: the subject of the last request whose answers are to arrive here.
    """

    def __init__(
        self,
        on_message: Callable[[Any], Awaitable[None]],
        on_renewed: Callable[[], None] = nothing,
        on_denied: Callable[[BrokerError], None] = nothing,
        *,
        subject: str = "",
    ) -> None:
        self.on_message = on_message
        self.on_renewed = on_renewed
        self.on_denied = on_denied
        self.subject = subject
        self.is_inbox = not subject
        self.asks = ""


class Link(Protocol):
    """A connection that renews itself. Its methods raise as those of `port.Broker` do."""

    @property
    def is_connected(self) -> bool: ...

    @property
    def connected_since(self) -> float: ...

    @property
    def denied(self) -> str: ...

    @property
    def server_version(self) -> str: ...

    @property
    def offer(self) -> ServerOffer: ...

    async def ready(self, timeout: float) -> None: ...

    def awaiting(
        self, subject: str, resolve: Callable[[Received | BrokerError], None]
    ) -> AbstractContextManager[str]:
        """Collect the answers to one request, and the `BrokerError` that ends the waiting.

        Yields the reply subject to send the request with.
        """
        ...

    async def ask(
        self,
        subject: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Send a request and return its first answer."""
        ...

    async def send(
        self,
        subject: str,
        body: bytes,
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Publish without an answer; what is sent may be lost with the connection."""
        ...

    async def listen(self, listener: Listener) -> None:
        """Subscribe now, and again with every new connection.

        Where there is a connection, the server knows the subscription when this returns.
        """
        ...

    async def forget(self, listener: Listener) -> None:
        """Undo `listen`; what the server has sent by then is still passed on."""
        ...

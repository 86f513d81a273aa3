"""A client that says exactly what it is told, and tells what a server forbids from what fails."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from tests.support.nats_server import NatsServer

__all__ = ["Message", "RawClient"]

TIMEOUT = 10.0


@dataclass(frozen=True)
class Message:
    """What the server delivered."""

    subject: str
    reply: str
    headers: str
    body: bytes

    @property
    def answer(self) -> dict[str, Any]:
        """An answer of JetStream's JSON API."""
        decoded: dict[str, Any] = json.loads(self.body)
        return decoded


@dataclass
class RawClient:
    """One connection; all calls block.

    Attributes:
        arrived: messages, oldest first.
        errors: what the server complained of.
    """

    server: NatsServer
    user: str = ""
    password: str = ""
    arrived: list[Message] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    sids: int = 0

    def __enter__(self) -> Self:
        self.socket = socket.create_connection((self.server.host, self.server.port), TIMEOUT)
        # Each line is answered before the next one: no reason to wait for more.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")
        assert self.file.readline().startswith(b"INFO ")
        about: dict[str, Any] = {
            "verbose": False, "pedantic": False, "headers": True, "no_responders": True,
            "lang": "test", "version": "0",
        }  # fmt: skip
        if self.user:
            about |= {"user": self.user, "pass": self.password}
        self.send(b"CONNECT " + json.dumps(about).encode())
        self.settle()
        assert self.errors == []
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def publish(
        self, subject: str, body: bytes = b"", reply: str = "", headers: bytes = b""
    ) -> str:
        """Publish and return the server's word against it, '' if there is none.

        Args:
            headers: as they go over the wire, with the version and the empty line.
        """
        sizes = [str(len(headers)), str(len(headers + body))] if headers else [str(len(body))]
        verb = "HPUB" if headers else "PUB"
        head = " ".join(filter(None, [verb, subject, reply, *sizes]))
        self.send(head.encode() + b"\r\n" + headers + body)
        return self.verdict()

    def subscribe(self, subject: str) -> str:
        """Subscribe and return the server's word against it, '' if there is none."""
        self.sids += 1
        self.send(f"SUB {subject} {self.sids}".encode())
        return self.verdict()

    def ask(self, subject: str, body: bytes, inbox: str) -> Message:
        """Send a request and return the first message that arrives."""
        self.arrived.clear()
        assert self.publish(subject, body, inbox) == ""
        return self.next()

    def next(self) -> Message:
        """Return what arrives next."""
        while not self.arrived:
            self.read()
        return self.arrived.pop(0)

    def verdict(self) -> str:
        self.errors.clear()
        self.settle()
        return self.errors[0] if self.errors else ""

    def settle(self) -> None:
        """Return once the server has dealt with everything before."""
        self.send(b"PING")
        while self.read() != b"PONG":
            pass

    def send(self, line: bytes) -> None:
        self.socket.sendall(line + b"\r\n")

    def read(self) -> bytes:
        """Read one line, and the message that follows it if one does; return the line."""
        line = self.file.readline()
        if not line:
            raise ConnectionError(f"the server hung up on {self.user}: {self.errors}")
        line = line.strip()
        verb, *words = line.decode().split(" ")
        if verb == "-ERR":
            self.errors.append(" ".join(words))
        elif verb in {"MSG", "HMSG"}:
            size = int(words[-1])
            head = int(words[-2]) if verb == "HMSG" else 0
            raw = self.file.read(size + 2)[:size]
            optional = words[2 : -2 if verb == "HMSG" else -1]
            reply = optional[0] if optional else ""
            self.arrived.append(Message(words[0], reply, raw[:head].decode(), raw[head:]))
        elif verb == "PING":
            self.send(b"PONG")
        return line

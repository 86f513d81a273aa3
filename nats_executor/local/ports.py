"""Remembers the ports of one machine's set-up, so that its next start has the same addresses."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

from nats_executor.local.deployment import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["KeptPorts"]

HIGHEST = 65_535


class KeptPorts:
    """The ports of the last start, in a file.

    Args:
        say: gets a line where a port is not the one of the last start.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.path = path
        self.say = say
        self.ports = remembered(path)

    def take(self, what: str, *, host: str, default: int | None = None) -> int:
        """Return the port that something had, or its default, or a free one; remember it.

        Args:
            what: has the port, in words for a person.
        """
        before = self.ports.get(what, default)
        port = before if before and is_free(before, host) else free_port(host)
        if before and port != before:
            self.say(f"port {before} of {what} is taken by another program: using {port} instead")
        self.keep(what, port)
        return port

    def keep(self, what: str, port: int) -> None:
        """Remember a port for the next start."""
        if self.ports.get(what) != port:
            self.ports[what] = port
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.ports, indent=2) + "\n")


def remembered(path: Path) -> dict[str, int]:
    """Return what a file remembers; nothing if there is none, or it cannot be understood."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    known = found.items() if isinstance(found, dict) else ()
    return {what: port for what, port in known if type(port) is int and 0 < port <= HIGHEST}


def is_free(port: int, host: str) -> bool:
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True

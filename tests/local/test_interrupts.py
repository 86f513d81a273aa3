"""Ctrl-C at a moment at which somebody else's code runs."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Any

import pytest

from nats_executor.local.interrupts import Interrupted, interrupts_raised


class Interrupting:
    """A socket that is written to at the very moment of a Ctrl-C."""

    def send(self, _: bytes) -> int:
        signal.raise_signal(signal.SIGINT)
        return 1


async def write(mine: socket.socket) -> None:
    _, writer = await asyncio.open_connection(sock=mine)
    transport: Any = writer.transport
    plain, transport._sock = transport._sock, Interrupting()
    try:
        writer.write(b"-")
    finally:
        transport._sock = plain
        transport.abort()


def test_an_interrupt_while_a_stream_is_written_to_is_not_swallowed() -> None:
    mine, other = socket.socketpair()
    with other, pytest.raises(Interrupted), interrupts_raised():
        asyncio.run(write(mine))

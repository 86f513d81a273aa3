"""Ctrl-C while the code of another package runs."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Any

import pytest

from nats_executor.local.interrupts import Interrupted, interrupts_raised, run_until_interrupted


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_a_coroutine_in_good_order(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever it comes: here in a callback, in which it might be raised and only logged."""
    left = []

    async def work() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, number)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # one turn of the loop: awaiting still works
            left.append("in good order")

    with interrupts_raised():
        handler = signal.getsignal(number)
        with pytest.raises(Interrupted) as caught:
            run_until_interrupted(work())
        assert signal.getsignal(number) is handler

    assert caught.value.exit_code == 128 + number
    assert left == ["in good order"]
    assert caplog.text == ""


def test_without_an_interrupt_the_result_comes_back() -> None:
    async def work() -> str:
        return "result"

    async def give_up() -> None:
        raise asyncio.CancelledError

    assert run_until_interrupted(work()) == "result"
    with pytest.raises(asyncio.CancelledError):
        run_until_interrupted(give_up())

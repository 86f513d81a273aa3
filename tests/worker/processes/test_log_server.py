"""The port that task logs are asked for on."""

from __future__ import annotations

import select
import socket

import pytest

from nats_worker.processes.log_server import hang_up, is_taken, listen


def is_awaited(listener: socket.socket, seconds: float) -> bool:
    return bool(select.select([listener], [], [], seconds)[0])


def test_whoever_waits_is_hung_up_on() -> None:
    with listen(0) as listener:
        address = ("127.0.0.1", listener.getsockname()[1])
        with socket.create_connection(address) as one, socket.create_connection(address) as other:
            assert is_awaited(listener, 10)
            hang_up(listener)

            assert not is_awaited(listener, 0)
            for reader in (one, other):
                reader.settimeout(10)
                assert reader.recv(1) == b""


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - as others may do
def test_a_port_is_found_taken_without_a_word_to_its_owner(address: str) -> None:
    with socket.create_server((address, 0)) as owner:
        port = owner.getsockname()[1]
        assert is_taken(port)
        assert not is_awaited(owner, 0)
        with pytest.raises(OSError, match="in use"):
            listen(port)
    assert not is_taken(port)

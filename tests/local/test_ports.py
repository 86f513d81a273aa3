"""Ports that a start remembers for the next one."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

from nats_executor.local.deployment import free_port
from nats_executor.local.ports import KeptPorts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOST = "127.0.0.1"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def start(tmp_path: Path, said: list[str]) -> Callable[[], KeptPorts]:
    """Return what remembers ports, as a new start has it."""
    return lambda: KeptPorts(tmp_path / "home" / "ports.json", said.append)


def test_a_port_is_that_of_the_last_start(start: Callable[[], KeptPorts], said: list[str]) -> None:
    port, default = start().take("NATS", host=HOST), free_port()
    assert start().take("UI", host=HOST, default=default) == default

    again = start()

    assert again.take("NATS", host=HOST) == port
    assert again.take("UI", host=HOST, default=1) == default
    assert said == []


def test_a_port_that_is_taken_meanwhile_is_replaced(
    start: Callable[[], KeptPorts], said: list[str]
) -> None:
    with socket.create_server((HOST, 0)) as taken:
        before = taken.getsockname()[1]
        start().keep("NATS", before)

        port = start().take("NATS", host=HOST)

    assert port != before
    [line] = said
    assert line == f"port {before} of NATS is taken by another program: using {port} instead"
    assert start().take("NATS", host=HOST) == port


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"NATS": "4222"}', '{"NATS": 0}', '{"NATS": 65536}', '{"NATS": true}']
)
def test_a_file_that_says_nothing_is_written_again(
    start: Callable[[], KeptPorts], said: list[str], text: str
) -> None:
    ports = start()
    ports.keep("NATS", 1)
    ports.path.write_text(text)

    port = start().take("NATS", host=HOST)

    assert json.loads(ports.path.read_text()) == {"NATS": port}
    assert said == []

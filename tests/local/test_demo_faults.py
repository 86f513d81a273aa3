"""`airflow nats demo` when something is in its way; a file of its own, to run beside the demo."""

from __future__ import annotations

import os
import re
import signal
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local.conftest import Command

    Start = Callable[..., Command]

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

RUNS = "nats_demo runs"
# Airflow's own start may warn about other packages before the demo has said a word.
FAILURE = re.compile(r"^airflow nats demo: .*$", re.MULTILINE)


@pytest.mark.parametrize(
    "moment", ["nats-server", "database created", pytest.param(RUNS, marks=pytest.mark.slow)]
)
def test_an_interrupt_at_any_time_leaves_nothing(airflow_nats: Start, moment: str) -> None:
    command = airflow_nats("demo")
    command.wait_for_text(moment)

    command.process.send_signal(signal.SIGINT)

    assert command.wait(seconds=90) == 128 + signal.SIGINT
    assert list(command.temporary.iterdir()) == []
    assert "Traceback" not in command.text.partition("nats-server")[2]


def test_a_worker_that_dies_ends_the_demo_with_one_line(airflow_nats: Start) -> None:
    command = airflow_nats("demo")
    command.wait_for_text("database created")

    os.kill(command.component("worker-2"), signal.SIGKILL)

    assert command.wait(seconds=90) == 1
    [line] = FAILURE.findall(command.text)
    assert "worker-2 was killed by SIGKILL" in line
    [log] = command.temporary.iterdir()
    assert line.endswith(f"(log: {log})")


def test_a_taken_port_ends_the_demo_with_one_line(airflow_nats: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = airflow_nats("demo", "--port", str(port))

        assert command.wait() == 1
        [line] = FAILURE.findall(command.text)
        assert f"--port = {port}: the port cannot be used" in line
        assert list(command.temporary.iterdir()) == []


def test_a_missing_server_ends_the_demo_with_one_line(airflow_nats: Start) -> None:
    command = airflow_nats("demo", NATS_SERVER_BINARY="/no/such/nats-server")

    assert command.wait() == 1
    [line] = FAILURE.findall(command.text)
    assert "nats-server not found" in line
    assert list(command.temporary.iterdir()) == []

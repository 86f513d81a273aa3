"""`airflow nats standalone`, from the command line to the last process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nats_executor.local.deployment import free_port
from nats_executor.local.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local.conftest import Command

    Start = Callable[..., Command]

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

SERVER = re.compile(r"nats-server with JetStream at nats://127\.0\.0\.1:(\d+)")
FAILURE = re.compile(r"^airflow nats standalone: .*$", re.MULTILINE)


@pytest.mark.slow
def test_standalone_stays_up_until_it_is_interrupted(airflow_nats: Start, tmp_path: Path) -> None:
    port = free_port()
    command = airflow_nats("standalone", "--port", str(port), "--workers", "2", "--queues", "a,b")
    command.wait_for_text(f"Airflow is ready at http://127.0.0.1:{port}")
    command.wait_for_text("login: admin / ")
    assert command.text.count(" is ready: queues a, b,") == 2
    assert command.text.rindex(" is ready: queues a, b,") < command.text.index("login: admin / ")
    assert "nats-setup" not in command.text  # it has ended well

    passwords = tmp_path / "home" / "simple_auth_manager_passwords.json.generated"
    assert passwords.stat().st_mode & 0o777 == 0o600
    again = subprocess.run(
        [sys.executable, "-m", "airflow", "nats", "standalone", "--login"],
        env=command.mark.environment | {"AIRFLOW_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.findall("login: admin / .*", again.stdout)[-1] in command.text
    assert listening(port) == {"0100007F"}

    command.process.send_signal(signal.SIGINT)
    command.wait_for_text("stopping: waiting up to 30 s")

    assert command.wait(seconds=60) == 0
    assert command.text.index("stopping: waiting") < command.text.index("stopped by SIGINT")
    assert (tmp_path / "home" / "airflow.db").exists()
    assert re.search(r"^worker-2 +\| ", command.text, re.MULTILINE)


def listening(port: int) -> set[str]:
    """Return the IPv4 addresses, as the kernel writes them, at which a port is listened to."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    local = [row[1].split(":") for row in rows if row[3] == "0A"]
    return {address for address, number in local if int(number, 16) == port}


def test_there_is_no_login_before_the_first_start(airflow_nats: Start) -> None:
    command = airflow_nats("standalone", "--login")

    assert command.wait() == 2
    assert "no login yet in " in command.text
    assert "start `airflow nats standalone` first" in command.text


def test_a_component_that_dies_stops_everything(airflow_nats: Start, tmp_path: Path) -> None:
    command = airflow_nats("standalone", "--port", str(free_port()))

    os.kill(command.component("triggerer"), signal.SIGKILL)

    assert command.wait(seconds=60) == 1
    [line] = FAILURE.findall(command.text)
    log = tmp_path / "home" / "logs" / "standalone" / "triggerer.log"
    assert line.startswith("airflow nats standalone: triggerer was killed by SIGKILL")
    assert line.endswith(f"(log: {log})")


def test_a_taken_port_names_its_setting(airflow_nats: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = airflow_nats(
            "standalone", AIRFLOW__API__PORT=port, AIRFLOW__API__HOST="127.0.0.1"
        )

        assert command.wait() == 1
        assert f"[api] port = {port}: the port cannot be used" in FAILURE.findall(command.text)[0]


def test_ports_are_those_of_the_last_start(airflow_nats: Start, tmp_path: Path) -> None:
    def start() -> tuple[str, str]:
        """Start until the ports are taken; return the server's and what was said."""
        command = airflow_nats("standalone")
        command.wait_for_text("bringing the database up to date")
        command.process.send_signal(signal.SIGTERM)
        assert command.wait(seconds=60) == 0
        return SERVER.findall(command.text)[0], command.text

    first, _ = start()
    assert start()[0] == first
    remembered = json.loads((tmp_path / "home" / "standalone_ports.json").read_text())
    assert remembered["nats-server"] == int(first)
    with socket.create_server(("127.0.0.1", int(first))):
        other, text = start()

    line = f"port {first} of nats-server is taken by another program: using {other} instead"
    assert line in text
    assert other != first
    assert start()[0] == other


def test_queues_are_there_before_airflow_is(airflow_nats: Start, tmp_path: Path) -> None:
    command = airflow_nats("standalone", "--port", str(free_port()), "--queues", "a,b")
    command.component("scheduler")
    command.process.send_signal(signal.SIGTERM)
    assert command.wait(seconds=60) == 0

    log = (tmp_path / "home" / "logs" / "standalone" / "nats-setup.log").read_text()
    assert "created consumer of queue 'a'" in log
    assert "created consumer of queue 'b'" in log


def test_a_configured_server_is_used(airflow_nats: Start, tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "nats") as server:
        command = airflow_nats("standalone", "--port", str(free_port()), **server.environment())
        command.wait_for_text("bringing the database up to date")
        command.process.send_signal(signal.SIGTERM)

        assert command.wait(seconds=60) == 0
        assert not (tmp_path / "home" / "nats").exists()

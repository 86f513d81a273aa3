"""The image's HEALTHCHECK, as a program of its own; `tests/containers` runs it beside a worker."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from nats_worker.healthcheck import ADDRESS, PORT
from tests.support.nats_server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWERS = {"/livez": (200, "alive"), "/readyz": (503, "not ready: no connection to NATS")}


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, text = ANSWERS[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(f"{text}\n".encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(name="port")
def port_fixture() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def ask(path: str, **environment: object) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "nats_worker.healthcheck", path],
        env=os.environ | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("address", ["", "0.0.0.0", "127.0.0.1"])  # noqa: S104 - asked, not bound
def test_it_says_what_the_worker_says(port: int, address: str) -> None:
    """A worker that listens on every address is asked on loopback."""
    known = {PORT: port, ADDRESS: address}

    assert ask("/livez", **known) == (0, "alive\n", "")
    assert ask("/readyz", **known) == (1, "not ready: no connection to NATS\n", "")


def test_nobody_there_is_unhealthy() -> None:
    port = free_port()

    code, said, error = ask("/livez", **{PORT: port})

    assert (code, said) == (1, "")
    assert f"no worker answers on port {port}" in error


@pytest.mark.parametrize("value", ["", "0", "none"])
def test_without_a_port_it_names_the_setting(value: str) -> None:
    code, _, error = ask("/livez", **{PORT: value})

    assert code == 1
    assert f"{PORT} = {value!r}" in error

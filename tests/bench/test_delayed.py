from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tests.bench.delayed import DelayedLine
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LATE = 0.2


@contextmanager
def echo() -> Iterator[int]:
    """Serve a port that sends back what it gets, and ends when its client does."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # the test is over
                return
            with connection:
                while data := connection.recv(65_536):
                    connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def send_all(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while data := connection.recv(65_536):
        found += data
    return found


def test_what_is_sent_arrives_whole_in_order_and_not_before_its_time() -> None:
    sent = bytes(range(256)) * 4096
    with echo() as port, DelayedLine(port, there=LATE, back=LATE) as line:
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", line.port)) as connection:
            threading.Thread(target=send_all, args=(connection, sent)).start()
            assert read_all(connection) == sent
        assert time.monotonic() - began >= 2 * LATE


def test_a_delay_may_change_while_a_connection_is_open() -> None:
    with echo() as port, DelayedLine(port) as line:
        with socket.create_connection(("127.0.0.1", line.port)) as connection:
            connection.sendall(b"a")
            assert connection.recv(1) == b"a"
            line.back = LATE
            began = time.monotonic()
            connection.sendall(b"b")
            assert connection.recv(1) == b"b"
        assert time.monotonic() - began >= LATE


def test_the_line_ends_tls_for_a_server_that_has_none(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("server")
    shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    shown.load_cert_chain(issued.certificate_file, issued.key_file)
    trusted = ssl.create_default_context(cafile=authority.ca_file)
    with (
        echo() as port,
        DelayedLine(port, tls=shown) as line,
        socket.create_connection(("127.0.0.1", line.port)) as plain,
        trusted.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"hello")
        assert connection.recv(5) == b"hello"


def test_a_server_that_is_not_there_is_a_closed_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with (
        DelayedLine(port) as line,
        socket.create_connection(("127.0.0.1", line.port)) as connection,
        suppress(ConnectionResetError),  # closed, too
    ):
        assert connection.recv(1) == b""

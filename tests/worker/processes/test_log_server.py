"""The port that task logs are asked for on."""

from __future__ import annotations

import argparse
import select
import socket

import pytest

from nats_executor.cli.worker_definitions import WORKER_ARGS
from nats_worker.cli import plan_for
from nats_worker.processes.log_server import end_waiting, is_taken, listen


def is_awaited(listener: socket.socket, seconds: float) -> bool:
    return bool(select.select([listener], [], [], seconds)[0])


def test_whoever_waits_is_hung_up_on() -> None:
    with listen(0) as listener:
        address = ("127.0.0.1", listener.getsockname()[1])
        with socket.create_connection(address) as one, socket.create_connection(address) as other:
            assert is_awaited(listener, 10)
            end_waiting(listener)

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


@pytest.mark.parametrize(
    ("words", "is_free", "expected"),
    [
        ([], True, False),
        (["--skip-serve-logs"], True, False),
        (["-s"], True, False),
        (["--serve-logs"], True, True),
        # A second worker of the host.
        (["--serve-logs"], False, False),
        ([], False, False),
    ],
)
def test_logs_are_served_over_a_port_only_where_asked_for(
    words: list[str],
    is_free: bool,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    parser = argparse.ArgumentParser()
    for arg in WORKER_ARGS:
        arg.add_to_parser(parser)
    with socket.create_server(("127.0.0.1", 0)) as owner:
        port = owner.getsockname()[1]
        if is_free:
            owner.close()
        monkeypatch.setenv("AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT", str(port))

        plan = plan_for(parser.parse_args(words), ["default"], 1)

    assert plan.serves_logs is expected
    assert ("is taken" in caplog.text) is ("--serve-logs" in words and not is_free)

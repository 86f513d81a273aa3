"""Values that cannot work: the same line, before anything is connected, and exit code 2."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from nats_executor import NatsExecutor
from nats_executor.errors import ConfigError
from nats_worker import cli
from tests.remedies.lines import LINES
from tests.support.nats_server import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.remedies.stage import RemedyStage

SERVERS = "write nats://host:port, separated by commas"
FILE = "name a file that this process can read"
SEED = "write the seed of a user (SU...), or name a file that this process can read"
TOGETHER = "set user and password together"
URL = "nats://127.0.0.1:4222"
TABLE = [
    ({"servers": "what is this"}, f"servers = 'what is this': {SERVERS}"),
    (
        {"servers": "http://nats-1:4222"},
        LINES["bad value"].removeprefix("[nats_executor] "),
    ),
    ({"servers": "nats-1:65536"}, f"servers = 'nats-1:65536': {SERVERS}"),
    ({"servers": "nats-1:0"}, f"servers = 'nats-1:0': {SERVERS}"),
    ({"servers": "nats://"}, f"servers = 'nats://': {SERVERS}"),
    ({"servers": " , "}, "servers = '': name at least one server, such as nats://nats-1:4222"),
    ({"servers": "nats-1, http://a:s3cret@b"}, f"servers = ***: {SERVERS}"),
    ({"user": "airflow"}, f"user = 'airflow': {TOGETHER}"),
    ({"password": "s3cret"}, f"user = None: {TOGETHER}"),
    ({"credentials_file": "/no/such"}, f"credentials_file = '/no/such': {FILE}"),
    ({"tls_ca_file": "/no/such"}, f"tls_ca_file = '/no/such': {FILE}"),
    (
        {"tls_certificate_file": "/no/such", "tls_key_file": "/no/such"},
        f"tls_certificate_file = '/no/such': {FILE}",
    ),
    ({"nkey_seed": "s3cret"}, f"nkey_seed = ***: {SEED}"),
    ({"replicas": "2"}, "replicas = 2: write 1, 3 or 5"),
    ({"replicas": "three"}, "replicas = 'three': write an integer, for example 3"),
]


@pytest.mark.parametrize(("options", "text"), TABLE, ids=lambda value: str(value)[:40])
def test_a_value_that_cannot_work_is_one_line_everywhere(
    options: dict[str, str],
    text: str,
    open_remedy_stage: Callable[..., RemedyStage],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = open_remedy_stage(URL, **options)
    line = f"[nats_executor] {text}"

    assert seen.refusals() == {line}
    with pytest.raises(ConfigError) as caught:
        NatsExecutor().start()
    assert str(caught.value) == line
    monkeypatch.setattr(sys, "argv", ["nats-worker", "-q", "a", "--skip-serve-logs"])
    code, _ = seen.console.run(lambda _: cli.main())
    assert (code, seen.console.error) == (2, f"error: {line}\n")
    assert "s3cret" not in seen.console.error


def test_a_worker_process_ends_with_that_line(
    open_remedy_stage: Callable[..., RemedyStage],
) -> None:
    seen = open_remedy_stage(f"nats://127.0.0.1:{free_port()}", replicas=2)

    code, output = seen.ended_worker("-q", "a")

    assert (code, output) == (2, "error: [nats_executor] replicas = 2: write 1, 3 or 5\n")

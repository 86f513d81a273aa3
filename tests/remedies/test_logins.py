"""A login that fails: worker, scheduler and commands say the same line, and go on once it works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.cli import commands
from tests.remedies.lines import LINES
from tests.remedies.stage import COMMANDS
from tests.support.certificates import Authority
from tests.support.nats_server import NatsServer
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.remedies.stage import RemedyStage
    from tests.support.certificates import Certificate

pytestmark = pytest.mark.integration

SECRET = "do-not-show-me"


@dataclass
class Trouble:
    """A server that does not let these options in, one that does, and what is said of the first."""

    refuses: str
    accepts: str
    options: dict[str, Any]
    line: str


def users(password: str) -> str:
    return f"authorization {{ user: airflow, password: {password} }}"


def tls(shown: Certificate, ca: Authority, *, verify: bool = False) -> str:
    return (
        f'tls {{ cert_file: "{shown.certificate_file}", key_file: "{shown.key_file}", '
        f'ca_file: "{ca.ca_file}", verify: {str(verify).lower()} }}'
    )


def wrong_password(_: Path) -> Trouble:
    return Trouble(
        users("other"),
        users(SECRET),
        {"user": "airflow", "password": SECRET},
        LINES["wrong password"],
    )


def no_login(_: Path) -> Trouble:
    return Trouble(
        users(SECRET),
        "",
        {},
        LINES["no login"],
    )


def expired_certificate(folder: Path) -> Trouble:
    ca = Authority(folder)
    return Trouble(
        tls(ca.issue("old", expired=True), ca),
        tls(ca.issue("new"), ca),
        {"tls_ca_file": ca.ca_file},
        LINES["expired certificate"],
    )


def unknown_ca(folder: Path) -> Trouble:
    ca, stranger = Authority(folder), Authority(folder, "unknown CA")
    return Trouble(
        tls(stranger.issue("strange"), stranger),
        tls(ca.issue("server"), ca),
        {"tls_ca_file": ca.ca_file},
        LINES["unknown CA"],
    )


def no_client_certificate(folder: Path) -> Trouble:
    ca = Authority(folder)
    server = ca.issue("server")
    return Trouble(
        tls(server, ca, verify=True),
        tls(server, ca),
        {"tls_ca_file": ca.ca_file},
        LINES["no client certificate"],
    )


def expired_client_certificate(folder: Path) -> Trouble:
    ca = Authority(folder)
    server, client = ca.issue("server"), ca.issue("client", expired=True)
    return Trouble(
        tls(server, ca, verify=True),
        tls(server, ca),
        {
            "tls_ca_file": ca.ca_file,
            "tls_certificate_file": client.certificate_file,
            "tls_key_file": client.key_file,
        },
        LINES["client certificate"],
    )


TROUBLES = [
    wrong_password,
    no_login,
    expired_certificate,
    unknown_ca,
    no_client_certificate,
    expired_client_certificate,
]
# A worker's start takes seconds.
FOR_WORKERS = [
    wrong_password,
    expired_certificate,
    *(pytest.param(make, marks=pytest.mark.slow) for make in TROUBLES[3:]),
]


@pytest.fixture(params=TROUBLES, ids=lambda make: make.__name__)
def trouble(request: pytest.FixtureRequest, tmp_path: Path) -> Trouble:
    made: Trouble = request.param(tmp_path)
    return made


@pytest.fixture
def server(tmp_path: Path, trouble: Trouble) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats", config=trouble.refuses)
    try:
        yield server.start()
    finally:
        server.kill()


def test_a_login_that_fails_is_one_line_of_commands_and_scheduler(
    trouble: Trouble, server: NatsServer, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    seen = open_remedy_stage(server.url, **trouble.options)
    line = trouble.line.format(url=server.url, user="airflow")

    assert seen.refusals() == {line}
    with seen.scheduler() as executor:
        seen.scheduler_says(executor, line)
    assert SECRET not in seen.caplog.text


@pytest.mark.parametrize("trouble", FOR_WORKERS, indirect=True)
def test_a_worker_says_the_same_line_once_and_goes_on_when_it_is_let_in(
    trouble: Trouble, server: NatsServer, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    seen = open_remedy_stage(server.url, **trouble.options)
    line = trouble.line.format(url=server.url, user="airflow")

    with seen.worker("-q", "a") as worker:
        seen.said(worker, line)
        attempts = tried(server)
        block_until(lambda: tried(server) > attempts + 3, 30, "more attempts")
        assert seen.readiness() == "not ready: no connection to NATS\n"
        assert worker.text.count(line) == 1
        assert f"{line}; next: trying again until it works" in worker.text
        assert SECRET not in worker.text

        server.config = trouble.accepts
        server.restart()
        seen.said(worker, f"connected to NATS at {server.url}")
        assert seen.console.run(commands.setup)[0] == 0


def tried(server: NatsServer) -> int:
    return int(server.monitor("/varz")["total_connections"])


def test_every_command_that_asks_nats_is_in_the_table() -> None:
    named = {command.__name__ for command in COMMANDS}

    assert named == {"check", "setup", "queues_list", "workers_list"}

"""A machine on the way between Airflow and NATS reads what a login says."""

from __future__ import annotations

import ipaddress
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from nats_executor.broker import exposure
from nats_executor.broker.connection import connect
from nats_executor.cli import commands
from tests.cli.conftest import WELL, Console
from tests.remedies.lines import LINES
from tests.support.certificates import Authority
from tests.support.fixtures import settings_for
from tests.support.nkeys import NKey, Operator

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fixtures import MakeNatsServer
    from tests.support.nats_server import NatsServer

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

USERS = 'authorization { users: [ { user: me, password: "hush" } ] }\n'
TOKEN = 'authorization { token: "hush" }\n'
PASSWORD = {"user": "me", "password": "hush"}
# Linux takes it for this machine, and the address does not tell that.
ANYWHERE = "0.0.0.0"  # noqa: S104 - not listened on


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "TOLD", [])


def elsewhere(server: NatsServer, login: str = "") -> str:
    return f"nats://{login}{ANYWHERE}:{server.port}"


async def warnings_of(url: str, caplog: pytest.LogCaptureFixture, **options: Any) -> list[str]:
    """Connect twice, and return what was said of the login."""
    settings = settings_for(url, **options)
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        async with connect(settings, role="test") as broker:
            await broker.ready(5)
    return [r.getMessage() for r in caplog.records if r.name == exposure.__name__]


@pytest.mark.parametrize(
    ("config", "login", "options", "named"),
    [
        (USERS, "", PASSWORD, "[nats_executor] password"),
        (TOKEN, "", {"token": "hush"}, "[nats_executor] token"),
        (USERS, "me:hush@", {}, "the login in [nats_executor] servers"),
        (TOKEN, "hush@", {}, "the login in [nats_executor] servers"),
    ],
    ids=["password", "token", "user in the address", "token in the address"],
)
async def test_a_login_in_clear_text_is_told_once(
    make_nats_server: MakeNatsServer,
    caplog: pytest.LogCaptureFixture,
    config: str,
    login: str,
    options: dict[str, str],
    named: str,
) -> None:
    server = make_nats_server(config=config)

    [warning] = await warnings_of(elsewhere(server, login), caplog, **options)

    shown = elsewhere(server)
    line = LINES["clear text"].format(url=shown).replace("[nats_executor] password", named)
    assert warning.startswith(f"{line}; next: logging in")
    assert "hush" not in warning


async def test_on_loopback_nobody_is_on_the_way(
    make_nats_server: MakeNatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_nats_server(config=USERS)

    for host in ("127.0.0.1", "localhost"):
        url = f"nats://{host}:{server.port}"
        assert await warnings_of(url, caplog, **PASSWORD) == []


async def test_without_a_login_there_is_nothing_to_read(
    make_nats_server: MakeNatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    assert await warnings_of(elsewhere(make_nats_server()), caplog) == []


async def test_an_nkey_signs_and_stays_here(
    make_nats_server: MakeNatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    key = NKey()
    server = make_nats_server(config=f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}")
    assert await warnings_of(elsewhere(server), caplog, nkey_seed=key.seed) == []


async def test_credentials_sign_and_stay_here(
    make_nats_server: MakeNatsServer, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    operator, file = Operator(), tmp_path / "user.creds"
    operator.write_credentials(file, NKey())
    server = make_nats_server(config=operator.server_config())
    assert await warnings_of(elsewhere(server), caplog, credentials_file=file) == []


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_a_server_that_asks_for_tls_gets_it_before_the_login(
    make_nats_server: MakeNatsServer,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    scheme: str,
) -> None:
    authority = Authority(tmp_path)
    address = x509.IPAddress(ipaddress.ip_address(ANYWHERE))
    issued = authority.issue("server", valid_for=(address,))
    tls = f'tls {{ cert_file: "{issued.certificate_file}", key_file: "{issued.key_file}" }}\n'
    server = make_nats_server(config=USERS + tls)
    url = elsewhere(server).replace("nats://", f"{scheme}://")

    assert await warnings_of(url, caplog, tls_ca_file=authority.ca_file, **PASSWORD) == []


def test_check_finds_it(
    make_nats_server: MakeNatsServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = make_nats_server(config=USERS)
    found = {}
    for host in ("127.0.0.1", ANYWHERE):
        console = Console(monkeypatch, capsys, settings_for(f"nats://{host}:{server.port}"))
        console.configure(**PASSWORD)
        assert console.run(commands.setup)[0] == 0

        code, output = console.run(commands.check, output="json")

        rows = {row["check"]: row for row in json.loads(output)}
        found[host] = code, rows.get("login", {}).get("status")

    assert found == {"127.0.0.1": (WELL, None), ANYWHERE: (1, "exposed")}

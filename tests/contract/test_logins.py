"""Every way to log in works on a real server; every wrong one says which setting to look at."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest
from cryptography import x509

from nats_executor.broker import connection as broker_module
from nats_executor.broker.client import Client
from nats_executor.broker.connection import connect
from nats_executor.errors import AccessDenied, BrokerError, BrokerUnavailable, ConfigError
from nats_executor.topology import setup
from tests.contract.stage import soon
from tests.support.certificates import Authority, Certificate
from tests.support.fixtures import settings_for
from tests.support.nats_server import NatsServer, free_port
from tests.support.nkeys import NKey, Operator
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from nats_executor.broker.port import Broker
    from nats_executor.wire.names import Names
    from tests.support.fixtures import MakeNatsServer

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

PASSWORD = "do-not-show-me"
TRIES_AGAIN = "; next: trying again until it works"
# A server that never says anything is given up after this; by default it takes 5 s.
CONNECT_TIMEOUT = 1.0


@contextlib.asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Broker]:
    """Connect as a process would, from options to the first answer."""
    async with connect(settings_for(url, **options), role="contract") as broker:
        await broker.ready(5)
        yield broker


async def is_answered(url: str, **options: Any) -> bool:
    """Whether JetStream answers."""
    async with connected(url, **options) as broker:
        return await broker.stream_info("NONE") is None


async def refusal(*urls: str, **options: Any) -> BrokerError:
    """Return why a connection is not made, as soon as its first attempt has failed."""
    settings = settings_for(*urls, connect_timeout_seconds=CONNECT_TIMEOUT, **options)
    deadline = time.monotonic() + CONNECT_TIMEOUT + 1.0
    async with connect(settings, role="contract") as broker:
        while time.monotonic() < deadline:
            with pytest.raises(BrokerError) as caught:
                await broker.ready(0.02)
            if not str(caught.value).endswith("yet; check [nats_executor] servers"):
                assert PASSWORD not in str(caught.value)
                return caught.value
    raise TimeoutError("no attempt to connect has ended")


# Names and secrets


async def users_of(server: NatsServer) -> list[str]:
    connections = await asyncio.to_thread(server.monitor, "/connz?auth=true")
    return [connection.get("authorized_user", "") for connection in connections["connections"]]


async def test_a_user_and_a_password(make_nats_server: MakeNatsServer) -> None:
    server = make_nats_server(config=f"authorization {{ user: worker, password: {PASSWORD} }}")

    async with connected(server.url, user="worker", password=PASSWORD) as broker:
        assert await broker.stream_info("NONE") is None
        assert await users_of(server) == ["worker"]

    wrong = await refusal(server.url, user="worker", password=f"not-{PASSWORD}")
    assert isinstance(wrong, AccessDenied)
    assert "refuses user worker: Authorization Violation" in str(wrong)
    assert str(wrong).endswith("check [nats_executor] user and password")
    nobody = await refusal(server.url)
    assert "a client without a login" in str(nobody)
    assert "set [nats_executor] user and password, token, nkey_seed" in str(nobody)


async def test_a_token(make_nats_server: MakeNatsServer) -> None:
    server = make_nats_server(config=f"authorization {{ token: {PASSWORD} }}")

    assert await is_answered(server.url, token=PASSWORD)
    wrong = await refusal(server.url, token="wrong")

    assert isinstance(wrong, AccessDenied)
    assert str(wrong).endswith("check [nats_executor] token")


@pytest.mark.parametrize("in_file", [False, True], ids=["as text", "in a file"])
async def test_an_nkey(make_nats_server: MakeNatsServer, tmp_path: Path, *, in_file: bool) -> None:
    known, unknown = NKey(), NKey()
    server = make_nats_server(config=f"authorization {{ users: [ {{ nkey: {known.public} }} ] }}")

    def given(key: NKey) -> str:
        if not in_file:
            return key.seed
        path = tmp_path / f"{key.public}.nk"
        path.write_text(f"{key.seed}\n")
        return str(path)

    async with connected(server.url, nkey_seed=given(known)) as broker:
        assert await broker.stream_info("NONE") is None
        assert await users_of(server) == [known.public]
    wrong = await refusal(server.url, nkey_seed=given(unknown))

    assert isinstance(wrong, AccessDenied)
    assert str(wrong).endswith("check [nats_executor] nkey_seed")
    assert unknown.seed not in str(wrong)


async def test_an_nkey_that_is_none_stops_the_start(tmp_path: Path) -> None:
    for text in ("hunter2", NKey("account").seed, str(tmp_path / "missing.nk"), str(tmp_path)):
        with pytest.raises(
            ConfigError, match=r"nkey_seed = .*: write the seed of a user"
        ) as caught:
            settings_for("nats://127.0.0.1:4222", nkey_seed=text)
        assert text not in str(caught.value)


async def test_a_file_without_an_nkey_says_so(nats_server: NatsServer, tmp_path: Path) -> None:
    path = tmp_path / "user.nk"
    path.write_text("this is not a seed")

    wrong = await refusal(nats_server.url, nkey_seed=path)

    assert str(wrong) == "the file in [nats_executor] nkey_seed holds no seed of a user (SU...)"


async def test_a_credentials_file(make_nats_server: MakeNatsServer, tmp_path: Path) -> None:
    operator, stranger, user = Operator(), Operator(), NKey()
    operator.write_credentials(tmp_path / "user.creds", user)
    stranger.write_credentials(tmp_path / "stranger.creds", user)
    server = make_nats_server(config=operator.server_config())

    async with connected(server.url, credentials_file=tmp_path / "user.creds") as broker:
        assert await broker.stream_info("NONE") is None
        assert await users_of(server) == [user.public]
    wrong = await refusal(server.url, credentials_file=tmp_path / "stranger.creds")

    assert isinstance(wrong, AccessDenied)
    assert str(wrong).endswith(
        f"check [nats_executor] credentials_file = '{tmp_path / 'stranger.creds'}'"
    )


async def test_credentials_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.creds", tmp_path):
        with pytest.raises(ConfigError, match=r"credentials_file = .*: name a file that this"):
            settings_for("nats://127.0.0.1:4222", credentials_file=path)


async def test_credentials_without_a_jwt_are_refused(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    """nats-py would look for one forever, and nothing else in the process would run."""
    path = tmp_path / "user.creds"
    path.write_text("-----BEGIN USER NKEY SEED-----\n")

    wrong = await refusal(nats_server.url, credentials_file=path)

    assert f"[nats_executor] credentials_file = '{path}' holds no JWT" in str(wrong)
    assert "nsc generate creds" in str(wrong)


async def test_credentials_that_vanish_and_return_are_read_again(
    make_nats_server: MakeNatsServer, tmp_path: Path
) -> None:
    operator, path = Operator(), tmp_path / "user.creds"
    operator.write_credentials(path, NKey())
    server = make_nats_server(config=operator.server_config())
    settings = settings_for(server.url, credentials_file=path)
    path.unlink()

    async with connect(settings, role="contract") as broker:
        with pytest.raises(AccessDenied, match="credentials_file: No such file"):
            await broker.ready(0.2)
        operator.write_credentials(path, NKey())
        await broker.ready(5)


# TLS


@dataclass(frozen=True)
class Pki:
    """A CA, what it signed for a server and a client, and a CA that is trusted nowhere."""

    directory: Path
    ca: Authority
    stranger: Authority
    server: Certificate
    client: Certificate


@pytest.fixture(name="pki", scope="module")
def pki_fixture(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    directory = tmp_path_factory.mktemp("pki")
    ca = Authority(directory)
    stranger = Authority(directory, "unknown CA")
    return Pki(directory, ca, stranger, ca.issue("server"), ca.issue("client"))


def tls_block(pki: Pki, certificate: Certificate | None = None, **options: str) -> str:
    shown = certificate or pki.server
    more = "\n".join(f"{name}: {value}" for name, value in options.items())
    return (
        f'tls {{\ncert_file: "{shown.certificate_file}"\nkey_file: "{shown.key_file}"\n'
        f'ca_file: "{pki.ca.ca_file}"\n{more}\n}}'
    )


def trust(authority: Authority) -> dict[str, Any]:
    return {"tls_ca_file": authority.ca_file}


def show(certificate: Certificate) -> dict[str, Any]:
    return {
        "tls_certificate_file": certificate.certificate_file,
        "tls_key_file": certificate.key_file,
    }


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_tls_with_a_ca_of_ones_own(
    make_nats_server: MakeNatsServer, pki: Pki, scheme: str
) -> None:
    server = make_nats_server(config=tls_block(pki))
    url = server.url.replace("nats://", f"{scheme}://")

    assert await is_answered(url, **trust(pki.ca))
    for options in ({}, trust(pki.stranger)):
        wrong = await refusal(url, **options)
        assert isinstance(wrong, AccessDenied)
        assert "is not valid: unable to get local issuer certificate" in str(wrong)
        assert str(wrong).endswith("name the CA that signed it in [nats_executor] tls_ca_file")


async def test_mutual_tls(make_nats_server: MakeNatsServer, pki: Pki) -> None:
    server = make_nats_server(config=tls_block(pki, verify="true"))

    assert await is_answered(server.url, **trust(pki.ca), **show(pki.client))
    without = await refusal(server.url, **trust(pki.ca))

    assert isinstance(without, AccessDenied)
    assert "asks for a client certificate; set [nats_executor] tls_certificate_file" in str(without)


@pytest.mark.parametrize("is_first", [False, True], ids=["greeting first", "handshake first"])
@pytest.mark.parametrize("kind", ["expired", "unknown"])
async def test_a_client_certificate_that_the_server_refuses(
    make_nats_server: MakeNatsServer, pki: Pki, kind: str, *, is_first: bool
) -> None:
    wrong_one = {
        "expired": pki.ca.issue("expired", expired=True),
        "unknown": pki.stranger.issue("unknown"),
    }[kind]
    server = make_nats_server(
        config=tls_block(pki, verify="true", handshake_first=str(is_first).lower())
    )

    wrong = await refusal(
        server.url, tls_handshake_first=is_first, **trust(pki.ca), **show(wrong_one)
    )

    assert isinstance(wrong, AccessDenied)
    assert "ends the TLS connection" in str(wrong)
    assert "the client certificate in tls_certificate_file" in str(wrong)


async def test_tls_before_the_greeting(make_nats_server: MakeNatsServer, pki: Pki) -> None:
    """The server ends what is no TLS after its own timeout, 2 s by default."""
    server = make_nats_server(config=tls_block(pki, handshake_first="true", timeout="0.5"))

    assert await is_answered(server.url, tls_handshake_first=True, **trust(pki.ca))
    for options in ({}, trust(pki.ca)):
        wrong = await refusal(server.url, **options)
        assert isinstance(wrong, BrokerUnavailable)
        assert "no greeting of a NATS server" in str(wrong)
        assert str(wrong).endswith("set tls_handshake_first = True if it starts TLS first")


@pytest.mark.parametrize("has_tls", [False, True], ids=["no TLS", "TLS after the greeting"])
async def test_tls_first_on_a_server_that_greets_first(
    make_nats_server: MakeNatsServer, pki: Pki, *, has_tls: bool
) -> None:
    server = make_nats_server(config=tls_block(pki) if has_tls else "")

    wrong = await refusal(server.url, tls_handshake_first=True, **trust(pki.ca))

    assert str(wrong).endswith("set tls_handshake_first = False if it greets first")


async def test_an_expired_certificate_of_the_server(
    make_nats_server: MakeNatsServer, pki: Pki
) -> None:
    server = make_nats_server(config=tls_block(pki, pki.ca.issue("old", expired=True)))

    wrong = await refusal(server.url, **trust(pki.ca))

    assert isinstance(wrong, AccessDenied)
    assert "certificate has expired; renew it on the server" in str(wrong)


async def test_a_certificate_for_another_name(make_nats_server: MakeNatsServer, pki: Pki) -> None:
    other = pki.ca.issue("other", valid_for=(x509.DNSName("nats.example"),))
    server = make_nats_server(config=tls_block(pki, other))

    wrong = await refusal(server.url, **trust(pki.ca))

    assert isinstance(wrong, AccessDenied)
    assert "not valid for '127.0.0.1'" in str(wrong)
    assert str(wrong).endswith("that is in it into [nats_executor] servers")


async def test_files_that_are_not_what_they_should_be(nats_server: NatsServer, pki: Pki) -> None:
    """Garbage, a key of another certificate, and one that wants a passphrase."""
    mixed = Certificate(pki.client.certificate_file, pki.server.key_file)
    locked = pki.ca.issue("locked", passphrase=PASSWORD)
    for options, named in (
        ({"tls_ca_file": pki.server.key_file}, "tls_ca_file"),
        (show(mixed), "tls_certificate_file, tls_key_file"),
        (show(locked), "tls_certificate_file, tls_key_file"),
    ):
        wrong = await soon(refusal(nats_server.url, **options))
        assert isinstance(wrong, AccessDenied)
        assert f"cannot use the files in [nats_executor] {named}: " in str(wrong)


@contextlib.asynccontextmanager
async def listening(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """Let something else listen where a NATS server should."""
    talks: list[asyncio.Task[None]] = []

    async def talk_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            await talk(reader, writer)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(asyncio.create_task(talk_and_close(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await wait_until(lambda: all(t.done() for t in talks), 5, "the end of every connection")


@pytest.mark.parametrize("way", ["tls://", "tls_ca_file", "tls_certificate_file"])
async def test_a_login_is_never_sent_unencrypted_where_tls_is_asked_for(pki: Pki, way: str) -> None:
    """A machine in between would only have to say that the server has no TLS."""
    heard = bytearray()
    greeting = {"server_id": "N", "version": "2.15.1", "max_payload": 1048576, "headers": True}

    async def without_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO " + json.dumps(greeting).encode() + b"\r\n")
        while piece := await reader.read(1000):
            heard.extend(piece)
            writer.write(b"PONG\r\n")

    options = {"tls_ca_file": trust(pki.ca), "tls_certificate_file": show(pki.client)}.get(way, {})
    async with listening(without_tls) as url:
        asked = url.replace("nats://", "tls://") if way == "tls://" else url
        wrong = await refusal(asked, user="worker", password=PASSWORD, **options)
        assert heard == b""
        # Without such a wish the same server gets it: the test looks at the right place.
        settings = settings_for(url, user="worker", password=PASSWORD)
        async with connect(settings, role="contract"):
            await wait_until(lambda: PASSWORD.encode() in heard, 5, "the login")

    assert isinstance(wrong, AccessDenied)
    assert "offers no TLS, so nothing secret was sent" in str(wrong)
    assert way in str(wrong)


# WebSocket


# nats-py passes a time limit in a form that aiohttp wants in another.
old_time_limit = pytest.mark.filterwarnings("ignore:.*timeout:DeprecationWarning")


@old_time_limit
async def test_a_websocket(make_nats_server: MakeNatsServer) -> None:
    pytest.importorskip("aiohttp", reason="the extra `websocket` is not installed")
    port = free_port()
    make_nats_server(config=f"websocket {{ listen: 127.0.0.1:{port}, no_tls: true }}")

    assert await is_answered(f"ws://127.0.0.1:{port}")


@old_time_limit
async def test_a_websocket_with_tls(make_nats_server: MakeNatsServer, pki: Pki) -> None:
    pytest.importorskip("aiohttp", reason="the extra `websocket` is not installed")
    port = free_port()
    make_nats_server(config=f"websocket {{\nlisten: 127.0.0.1:{port}\n{tls_block(pki)}\n}}")

    assert await is_answered(f"wss://127.0.0.1:{port}", **trust(pki.ca))


@old_time_limit
async def test_a_websocket_with_tls_is_closed_without_the_goodbye_of_a_server_that_hangs(
    make_nats_server: MakeNatsServer, pki: Pki
) -> None:
    pytest.importorskip("aiohttp", reason="the extra `websocket` is not installed")
    port = free_port()
    listener = f"listen: 127.0.0.1:{port}"
    server = make_nats_server(config=f"websocket {{\n{listener}\n{tls_block(pki)}\n}}")

    async with connected(f"wss://127.0.0.1:{port}", **trust(pki.ca)) as broker:
        (stream,) = cast("Any", broker)._link._client.streams()
        sock = stream.get_extra_info("socket")
        assert sock.fileno() > 0
        server.pause()

    assert sock.fileno() == -1
    server.resume()


@old_time_limit
async def test_a_websocket_is_closed_even_if_its_client_cannot(
    make_nats_server: MakeNatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client of a server that hangs may be cut short before it comes to its socket."""
    pytest.importorskip("aiohttp", reason="the extra `websocket` is not installed")
    port = free_port()
    server = make_nats_server(config=f"websocket {{ listen: 127.0.0.1:{port}, no_tls: true }}")

    async with connected(f"ws://127.0.0.1:{port}") as broker:
        client = cast("Any", broker)._link._client
        monkeypatch.setattr(client, "close", asyncio.Event().wait)
        assert len(await users_of(server)) == 1

    async def is_gone() -> bool:
        return not await users_of(server)

    await wait_until(is_gone, 5, "the end of the connection")


async def test_a_websocket_without_its_package_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from nats.aio import transport  # noqa: TID251 - takes away what nats-py found at its import

    monkeypatch.setattr(transport, "aiohttp", None)

    wrong = await refusal("ws://127.0.0.1:1")

    assert isinstance(wrong, BrokerUnavailable)
    assert "pip install 'airflow-nats-executor[websocket]'" in str(wrong)


# What is no NATS server


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(1000):
        writer.write(piece)


async def hang_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Close at once."""


async def speak_ssh(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await reader.read(1000)


@pytest.mark.parametrize("other", [echo, hang_up, speak_ssh], ids=lambda other: other.__name__)
@pytest.mark.parametrize("is_first", [False, True], ids=["greeting first", "handshake first"])
async def test_a_server_that_is_no_nats_server(
    pki: Pki,
    other: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    *,
    is_first: bool,
) -> None:
    async with listening(other) as url:
        wrong = await refusal(
            url, tls_handshake_first=is_first, **(trust(pki.ca) if is_first else {})
        )

    assert "check [nats_executor] servers" in str(wrong)
    assert is_first or "no greeting of a NATS server" in str(wrong)


async def test_a_password_in_an_address_never_shows(
    make_nats_server: MakeNatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_nats_server(config=f"authorization {{ user: worker, password: {PASSWORD} }}")
    with_password = server.url.replace("//", f"//worker:{PASSWORD}@")

    with caplog.at_level(logging.DEBUG, "nats_executor"):
        assert await is_answered(with_password)
        await asyncio.to_thread(server.kill)
        lost = await refusal(with_password)

    assert PASSWORD not in caplog.text + str(lost)
    assert server.url in str(lost)


# Domains and inboxes


async def test_streams_of_a_domain_are_reached_through_a_leaf_node(
    make_nats_server: MakeNatsServer, tmp_path: Path, names: Names
) -> None:
    """Here through one that has streams of its own, too."""
    port = free_port()
    hub = make_nats_server(
        config=f"leafnodes {{ listen: 127.0.0.1:{port} }}", jetstream="domain: hub"
    )
    leaf = NatsServer(
        tmp_path / "leaf",
        name="leaf",
        config=f'leafnodes {{ remotes: [ {{ url: "nats://127.0.0.1:{port}" }} ] }}',
        jetstream="domain: leaf",
    )
    try:
        await asyncio.to_thread(leaf.start)
        await wait_until(lambda: hub.monitor("/leafz")["leafnodes"] == 1, 5, "the leaf node")
        for url in (hub.url, leaf.url):
            settings = settings_for(url, jetstream_domain="hub", subject_prefix=names.prefix)
            async with connect(settings, role="contract") as broker:
                await broker.ready(5)
                await setup.apply(broker, settings, ["default"])
                await carry_a_task(broker, names)
        assert [server.monitor("/jsz")["streams"] for server in (hub, leaf)] == [5, 0]
    finally:
        await asyncio.to_thread(leaf.kill)


async def carry_a_task(broker: Broker, names: Names) -> None:
    """Offer a task, take it, report it and read the report."""
    subject = names.result("default", "d1")
    await broker.publish(names.task("default", "d1"), b"d1")
    pulls = await broker.pull(names.tasks_stream, names.consumer("default"))
    delivery = await soon(pulls.wait())
    await delivery.in_progress()
    sequence = await broker.publish(subject, b"done")
    await broker.publish(names.presence("a", "w1"), b"here")
    await delivery.ack()

    stored = await broker.last(names.results_stream, subject)
    assert stored is not None
    assert stored.sequence == sequence
    assert [s.body for s in await broker.scan(names.results_stream, names.results())] == [b"done"]
    followed = broker.follow(names.results_stream, after=0)
    assert (await soon(anext(followed))).body == b"done"
    assert await broker.scan(names.tasks_stream, names.tasks()) == []
    await broker.remove(names.results_stream, subject)


NEIGHBOURS = """
accounts {{ A: {{ jetstream: enabled, users: [
  {{ user: alice, password: secret, permissions: {{ publish: ">", subscribe: "{alice}" }} }},
  {{ user: bob, password: secret, permissions: {{ publish: ">", subscribe: "{bob}" }} }}
] }} }}
"""


async def overhear(url: str, subject: str, **options: Any) -> list[bytes]:
    """Return what bob gets of the answer to alice's question."""
    heard: list[bytes] = []

    async def listen(body: bytes) -> bytes:
        heard.append(body)
        return b""

    async with (
        connected(url, user="alice", password="secret", **options) as alice,
        connected(url, user="bob", password="secret", **options) as bob,
    ):
        await bob.serve(subject, listen)
        assert await alice.stream_info("NONE") is None
        await bob.stream_info("NONE")  # whatever was sent to bob before this has arrived
    return heard


async def test_no_user_reads_the_answers_of_another(make_nats_server: MakeNatsServer) -> None:
    """Without a word about inboxes in the settings: the default is the user's own."""
    config = NEIGHBOURS.format(alice="_INBOX_alice.>", bob="_INBOX_bob.>")
    server = make_nats_server(config=config)

    for subject in ("_INBOX_alice.>", "_INBOX.>", "*.>", ">"):
        with pytest.raises(AccessDenied):
            await overhear(server.url, subject)


async def test_a_shared_inbox_prefix_gives_answers_away(make_nats_server: MakeNatsServer) -> None:
    """The counter-proof: it is the prefix that keeps them apart."""
    server = make_nats_server(config=NEIGHBOURS.format(alice="_INBOX.>", bob="_INBOX.>"))

    heard = await overhear(server.url, "_INBOX.>", inbox_prefix="_INBOX")

    assert any(b"stream_info_response" in body for body in heard)
    own = await refusal(server.url, user="alice", password="secret")
    assert isinstance(own, AccessDenied)
    assert "_INBOX_alice" in str(own)


# What is logged, and that it goes on


async def test_an_outage_is_one_line_whatever_the_number_of_servers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    servers = [f"nats://127.0.0.1:{free_port()}" for _ in range(3)]

    async with connect(settings_for(*servers), role="contract") as broker:
        with pytest.raises(BrokerUnavailable):  # several rounds of attempts
            await broker.ready(1)

    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    [line] = warnings
    assert line.startswith(f"cannot reach NATS at {servers[0]}: ")
    assert line.endswith(f"tried in vain as well: {', '.join(sorted(servers[1:]))}{TRIES_AGAIN}")


async def test_an_unforeseen_fault_ends_no_connection_for_good(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where one is made as well as where it is watched."""
    options, flush = broker_module.Connection._connect_options, Client.flush
    calls = {"connect": 0, "flush": 0}

    def faulty_options(self: broker_module.Connection) -> dict[str, Any]:
        calls["connect"] += 1
        if calls["connect"] <= 2:
            raise LookupError("nobody thought of this in connecting")
        return options(self)

    async def faulty_flush(self: Client, timeout: int = 10) -> None:
        calls["flush"] += 1
        if calls["flush"] == 2:  # the first one belongs to connecting
            raise LookupError("nobody thought of this in watching")
        await flush(self, timeout)

    monkeypatch.setattr(broker_module, "WATCH_SECONDS", 1.0)
    monkeypatch.setattr(broker_module.Connection, "_connect_options", faulty_options)
    monkeypatch.setattr(Client, "flush", faulty_flush)
    async with connected(nats_server.url) as broker:
        first = broker.connected_since
        await wait_until(lambda: first < broker.connected_since < math.inf, 5, "a new connection")
        assert await broker.stream_info("NONE") is None

    lines = [record.getMessage() for record in caplog.records]
    end = f"in connecting; check [nats_executor] servers{TRIES_AGAIN}"
    assert [line.endswith(end) for line in lines].count(True) == 1
    assert lines.count("a fault in the connection to NATS; next: a new connection") == 1
    assert caplog.text.count("Traceback") == 2


DENIED = """
authorization {{ users: [ {{ user: worker, password: secret, permissions: {{
  publish: "{publish}", subscribe: "{subscribe}" }} }} ] }}
"""


def denials(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if line.startswith("NATS does not allow ")]


async def test_a_denied_inbox_is_logged_once_and_not_at_every_attempt(
    make_nats_server: MakeNatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_nats_server(config=DENIED.format(publish=">", subscribe="_INBOX_other.>"))
    settings = settings_for(server.url, user="worker", password="secret")

    async with connect(settings, role="contract"):
        await wait_until(lambda: server.monitor("/varz")["total_connections"] >= 4, 10, "attempts")

    (line,) = denials(caplog)
    assert "to subscribe to _INBOX_worker.>: put what `airflow nats auth --user worker" in line


async def test_a_denied_subject_is_logged_once_and_not_after_every_reconnect(
    make_nats_server: MakeNatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_nats_server(config=DENIED.format(publish="mine.*", subscribe="_INBOX_worker.>"))

    async with connected(server.url, user="worker", password="secret") as broker:
        for subject in ("yours.1", "yours.1", "yours.2"):
            with pytest.raises(AccessDenied, match=subject):
                await broker.publish(subject, b"")
            await asyncio.to_thread(server.restart)
            await broker.ready(5)

    named = [line.partition(" publish to ")[2].partition(":")[0] for line in denials(caplog)]
    assert named == ["yours.1", "yours.2"]


async def test_the_end_of_an_encrypted_connection_is_no_warning(
    make_nats_server: MakeNatsServer, pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither at our own word nor at the server's; a worker makes one for each task's log."""
    server = make_nats_server(config=tls_block(pki))

    assert await is_answered(server.url, **trust(pki.ca))
    async with connect(settings_for(server.url, **trust(pki.ca)), role="test") as broker:
        await broker.ready(10)
        server.kill()
        await wait_until(lambda: not broker.is_connected, 10, "the end to be noticed")

    assert [record for record in caplog.records if record.name == "asyncio"] == []

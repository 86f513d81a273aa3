"""The same permissions, whatever a user logs in with: NKey, JWT of an operator, or certificate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.access.accounts import (  # fmt: skip
    BESIDE,
    DOMAIN,
    accounts_for,
    as_account_claims,
    as_accounts,
    member,
)
from nats_executor.access.permissions import Role, as_claims, as_config
from nats_executor.broker.connection import connect
from nats_executor.errors import AccessDenied
from nats_executor.topology import setup
from nats_executor.wire.names import token
from tests.contract.stage import soon
from tests.support.certificates import Authority
from tests.support.fixtures import settings_for
from tests.support.nkeys import NKey, Operator
from tests.support.user_stage import NAMES, QUEUES, USERS, grants, lanes

if TYPE_CHECKING:
    from pathlib import Path

    from nats_executor.broker.port import Broker
    from tests.support.fixtures import MakeNatsServer

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

(WORKER,) = (user for user in USERS if user.name == "worker_a")
GRANTED, LANES = grants(WORKER), lanes(WORKER)


@dataclass(frozen=True)
class Place:
    """A server's configuration, and the options with which a worker and an administrator log in."""

    config: str
    worker: dict[str, Any]
    root: dict[str, Any]


def account(*users: str) -> str:
    return f"accounts {{ AIRFLOW {{ jetstream: enabled, users: [\n{', '.join(users)}\n] }} }}\n"


def nkeys(_: Path) -> Place:
    worker, root = NKey(), NKey()
    return Place(
        account(as_config(worker.public, GRANTED), f"{{ nkey: {root.public} }}"),
        {"nkey_seed": worker.seed},
        {"nkey_seed": root.seed},
    )


def operator(directory: Path) -> Place:
    key = Operator()
    worker, root = directory / "worker.creds", directory / "root.creds"
    key.write_credentials(worker, NKey(), **as_claims(GRANTED))
    key.write_credentials(root, NKey())
    return Place(key.server_config(), {"credentials_file": worker}, {"credentials_file": root})


def certificates(directory: Path) -> Place:
    ca = Authority(directory)
    server, worker, root = (ca.issue(name) for name in ("server", "worker_a", "root"))
    tls = (
        f'tls {{ cert_file: "{server.certificate_file}", key_file: "{server.key_file}", '
        f'ca_file: "{ca.ca_file}", verify_and_map: true }}\n'
    )
    options = [
        {
            "tls_ca_file": ca.ca_file,
            "tls_certificate_file": shown.certificate_file,
            "tls_key_file": shown.key_file,
        }
        for shown in (worker, root)
    ]
    users = as_config("CN=worker_a", GRANTED, has_certificate=True), '{ user: "CN=root" }'
    return Place(tls + account(*users), *options)


def in_accounts(worker: str, root: str, *, have_certificates: bool = False) -> str:
    """Accounts of Airflow and of one worker, with an administrator of the test's own."""
    members = [member(NAMES, "monitor", Role.MONITOR), member(NAMES, worker, Role.WORKER, LANES)]
    text = as_accounts(accounts_for(NAMES, members), have_certificates=have_certificates)
    text = re.sub(r"password: \S+", 'password: "unused"', text)
    main, beside = text.replace("users: [", f"users: [ {root}", 1).split(BESIDE)
    return f"accounts {{ AIRFLOW {{ jetstream: enabled\n{main} }}\n{beside} }}\n"


def borrower(name: str, **login: Any) -> dict[str, Any]:
    return login | {"inbox_prefix": f"_INBOX_{token(name)}", "jetstream_domain": DOMAIN}


def account_nkeys(_: Path) -> Place:
    worker, root = NKey(), NKey()
    return Place(
        in_accounts(worker.public, f"{{ nkey: {root.public} }}"),
        borrower(worker.public, nkey_seed=worker.seed),
        {"nkey_seed": root.seed},
    )


def account_operator(directory: Path) -> Place:
    members = [member(NAMES, "worker_a", Role.WORKER, LANES)]
    claims = as_account_claims(accounts_for(NAMES, members))
    key = Operator(claims)
    worker, root = directory / "worker.creds", directory / "root.creds"
    key.write_credentials(worker, NKey(), "worker_a", **claims["worker_a"]["users"]["worker_a"])
    key.write_credentials(root, NKey())
    options = borrower("worker_a", credentials_file=worker)
    return Place(key.server_config(), options, {"credentials_file": root})


def account_certificates(directory: Path) -> Place:
    place = certificates(directory)
    tls = place.config.partition("accounts {")[0]
    config = in_accounts("CN=worker_a", '{ user: "CN=root" }', have_certificates=True)
    return Place(tls + config, borrower("CN=worker_a", **place.worker), place.root)


WAYS = (nkeys, operator, certificates, account_nkeys, account_operator, account_certificates)


@pytest.mark.parametrize("make", WAYS, ids=lambda make: make.__name__)
async def test_a_worker_serves_its_queue_and_no_other(
    make_nats_server: MakeNatsServer, tmp_path: Path, make: Any
) -> None:
    place = make(tmp_path)
    server = make_nats_server(config=place.config)
    settings = settings_for(server.url, **place.root)
    async with connect(settings, role="test") as root:
        await root.ready(10)
        await setup.apply(root, settings, QUEUES)
        for queue in QUEUES:
            await root.publish(NAMES.task(queue, "d1"), queue.encode())
        options = {"inbox_prefix": WORKER.inbox} | place.worker
        async with connect(settings_for(server.url, **options), role="test") as worker:
            await worker.ready(10)
            await serve(worker)
            await try_another(worker)

        left = await root.scan(NAMES.tasks_stream, NAMES.tasks())
        assert [message.body for message in left] == [b"b"]


async def serve(worker: Broker) -> None:
    pulls = await worker.pull(NAMES.tasks_stream, NAMES.consumer("a"))
    delivery = await soon(pulls.wait())
    assert delivery.body == b"a"
    await worker.publish(NAMES.result("a", "d1"), b"", expected_last=0)
    await delivery.ack()
    await pulls.close()


async def try_another(worker: Broker) -> None:
    pulls = await worker.pull(NAMES.tasks_stream, NAMES.consumer("b"))
    with pytest.raises(AccessDenied, match=r"MSG\.NEXT\.AIRFLOW_TASKS\.b"):
        await soon(pulls.wait())
    with pytest.raises(AccessDenied, match=r"airflow\.results\.b"):
        await worker.publish(NAMES.result("b", "d1"), b"")
    with pytest.raises(AccessDenied, match=r"airflow\.tasks\.a"):
        await worker.publish(NAMES.task("a", "d2"), b"")

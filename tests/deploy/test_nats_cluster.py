"""The shipped cluster.conf as three real servers, with users that the shipped script makes."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor import topology
from nats_executor.broker import connect
from nats_executor.errors import AccessDenied, BrokerUnavailable
from nats_executor.names import Names
from tests.contract.stage import soon
from tests.support.certificates import Authority
from tests.support.fixtures import settings_for
from tests.support.nats_server import NatsServer, free_port, start_together
from tests.support.shipped import NATS, Made, ShippedServer, here, make_users
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from nats_executor.ports import Broker
    from nats_executor.settings import Settings

pytestmark = pytest.mark.integration

NAMES = Names()
QUEUES = ("default", "gpu")
USERS = (
    "admin", "scheduler", "api-server", "triggerer", "monitor", "worker-default", "worker-gpu",
)  # fmt: skip
NODES = ("nats-1", "nats-2", "nats-3")
SECRET = re.compile(r"[0-9a-f]{64}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    directory = tmp_path_factory.mktemp("users") / "new"
    done = make_users(directory, *QUEUES)
    assert done.returncode == 0, done.stderr
    return Made(directory, done.stdout + done.stderr)


@dataclass(frozen=True)
class Cluster:
    servers: Sequence[NatsServer]
    made: Made
    ca: Authority

    def settings(self, user: str) -> Settings:
        servers = [server.url.replace("nats://", "tls://") for server in self.servers]
        options = self.made.options(user) | {"tls_ca_file": str(self.ca.ca_file)}
        return settings_for(*servers, replicas=3, **options)


@pytest.fixture(scope="module")
def cluster(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")
    ca = Authority(directory)
    shown = ca.issue("server")
    ports = {name: free_port() for name in NODES}
    text = (NATS / "cluster.conf").read_text()
    servers: list[ShippedServer] = []
    for name in NODES:
        server = ShippedServer(directory / name, name=name)
        server.directory.mkdir()
        (server.directory / "users.conf").write_bytes((made.directory / "users.conf").read_bytes())
        routes = {f"{node}:6222": f"127.0.0.1:{port}" for node, port in ports.items()}
        server.config = here(
            text,
            routes
            | {
                "0.0.0.0:4222": f"127.0.0.1:{server.port}",
                "0.0.0.0:6222": f"127.0.0.1:{ports[name]}",
                "127.0.0.1:8222": f"127.0.0.1:{server.monitor_port}",
                '"/data"': f'"{server.directory / "data"}"',
                "/etc/nats/certs/server.pem": str(shown.certificate_file),
                "/etc/nats/certs/server.key": str(shown.key_file),
                "/etc/nats/certs/ca.pem": str(ca.ca_file),
            },
        )
        servers.append(server)
    try:
        start_together(servers)
        yield Cluster(servers, made, ca)
    finally:
        for server in servers:
            server.kill()


def test_users_are_made_with_passwords_that_nobody_else_reads(made: Made) -> None:
    files = {path.name: path for path in made.directory.iterdir()}

    assert set(files) == {"users.conf", *(f"{user}.env" for user in USERS)}
    assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o600}
    assert made.directory.stat().st_mode & 0o777 == 0o700
    passwords = {made.options(user)["password"] for user in USERS}
    assert len(passwords) == len(USERS)
    assert all(SECRET.fullmatch(password) for password in passwords)
    assert not SECRET.search(made.output)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_users_are_those_of_the_real_command(made: Made, tmp_path: Path) -> None:
    """Elsewhere here a quicker one stands in for it, which takes seconds for each user."""
    done = make_users(tmp_path, *QUEUES, airflow="airflow")
    assert done.returncode == 0, done.stderr

    real, quick = (
        SECRET.sub("***", (directory / "users.conf").read_text())
        for directory in (tmp_path, made.directory)
    )
    assert real == quick


@pytest.mark.parametrize(
    "queue", ["a/b", "a b", "", "größe", "a,b", "s=", "=a", "s=a=b", "s,t=a", "s=a/b", "s=a b"]
)
def test_a_queue_that_makes_no_user_is_refused(tmp_path: Path, queue: str) -> None:
    done = make_users(tmp_path, queue)

    assert done.returncode == 2
    assert "airflow nats auth" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_passwords_stay_out_of_the_repository() -> None:
    done = make_users(NATS)

    assert done.returncode == 2
    assert "is in the repository" in done.stderr
    assert not (NATS / "users.conf").exists()


def test_a_site_gets_a_user_and_users_of_its_own(tmp_path: Path) -> None:
    done = make_users(tmp_path, "default", "muc=gpu,a-b", HUBS="hub-1:7422 hub-2:7422")
    assert done.returncode == 0, done.stderr

    central, local = Made(tmp_path, ""), Made(tmp_path / "muc", "")
    files = {path.name: path.stat().st_mode & 0o777 for path in local.directory.iterdir()}
    assert files == dict.fromkeys(
        ["hub.conf", "users.conf", "worker-gpu.env", "worker-a-b.env"], 0o600
    )
    site, worker = central.options("site-muc"), local.options("worker-gpu")
    assert worker["jetstream_domain"] == "hub"
    assert worker["inbox_prefix"] == "_INBOX_site-muc.worker-gpu"
    assert "jetstream_domain" not in central.options("worker-default")
    hub = (local.directory / "hub.conf").read_text()
    assert f'"tls://site-muc:{site["password"]}@hub-2:7422"' in hub
    assert site["password"] != worker["password"]
    assert worker["password"] not in (tmp_path / "users.conf").read_text()
    assert not SECRET.search(done.stdout + done.stderr)


def test_a_repetition_keeps_passwords(made: Made, tmp_path: Path) -> None:
    """Here with a command that is no Airflow, and prints a block for any user at once."""
    known = made.options("scheduler")["password"]
    (tmp_path / "scheduler.env").write_text((made.directory / "scheduler.env").read_text())
    airflow = tmp_path / "airflow"
    airflow.write_text(
        '#!/bin/sh\nprintf "{\\n  user: %s\\n  password: \\$P_%s\\n}\\n" "$4" "$4"\n'
    )
    airflow.chmod(0o700)

    done = subprocess.run(
        [str(NATS / "make-users"), str(tmp_path)],
        env=os.environ | {"AIRFLOW": str(airflow)},
        capture_output=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert f'P_scheduler: "{known}"\n' in (tmp_path / "users.conf").read_text()


@pytest.mark.anyio
async def test_a_workload_passes_through_the_shipped_cluster(cluster: Cluster) -> None:
    await set_up(cluster.settings("admin"))
    async with (
        connect(cluster.settings("scheduler"), role="test") as scheduler,
        connect(cluster.settings("worker-gpu"), role="test") as worker,
    ):
        await scheduler.ready(20)
        await worker.ready(20)
        await scheduler.publish(NAMES.task("gpu", "d1"), b"payload")
        await carry(worker)

        async def is_over() -> bool:  # a follower may answer, which is a moment behind
            report = await scheduler.last(NAMES.results_stream, NAMES.result("gpu", "d1"))
            task = await scheduler.last(NAMES.tasks_stream, NAMES.task("gpu", "d1"))
            return report is not None and report.body == b"done" and task is None

        await wait_until(is_over, 20, "the report and the ack")
        with pytest.raises(AccessDenied):
            await worker.publish(NAMES.result("default", "d1"), b"")
    assert replicas(cluster) == {3}


async def set_up(settings: Settings) -> None:
    async with connect(settings, role="test") as admin:

        async def is_set_up() -> bool:
            # Two servers that find each other at once close one of their routes again, and an
            # answer may be lost with it.
            with contextlib.suppress(BrokerUnavailable):
                await admin.ready(20)
                await topology.apply(admin, settings, QUEUES)
                return await topology.inspect(admin, settings, QUEUES) == []
            return False

        await wait_until(is_set_up, 60, "the streams")


async def carry(worker: Broker) -> None:
    pulls = await worker.pull(NAMES.tasks_stream, NAMES.consumer("gpu"))
    delivery = await soon(pulls.wait(), 20)
    assert delivery.body == b"payload"
    await worker.publish(NAMES.result("gpu", "d1"), b"done", expected_last=0)
    await delivery.ack()


def replicas(cluster: Cluster) -> set[int]:
    found: dict[str, Any] = cluster.servers[0].monitor("/jsz?streams=true&config=true")
    streams = [s for account in found["account_details"] for s in account["stream_detail"]]
    assert len(streams) == 4
    return {stream["config"]["num_replicas"] for stream in streams}


@pytest.mark.anyio
async def test_nobody_logs_in_without_a_password(cluster: Cluster) -> None:
    servers = cluster.settings("admin").servers
    settings = settings_for(*servers, tls_ca_file=cluster.ca.ca_file)
    async with connect(settings, role="test") as nobody:
        with pytest.raises(AccessDenied, match="refuses"):
            await nobody.ready(5)


def test_the_servers_flush_what_they_acknowledge(cluster: Cluster) -> None:
    for server in cluster.servers:
        facts = server.monitor("/varz")
        assert facts["jetstream"]["config"]["sync_always"] is True
        assert facts["tls_required"] is True
        assert facts["cluster"]["tls_required"] is True

"""The shipped cluster.conf as three real servers, with accounts that the shipped script makes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.access import accounts
from nats_executor.broker.connection import connect
from nats_executor.errors import AccessDenied, BrokerError, BrokerUnavailable
from nats_executor.fleet.liveness import Liveness, PingResult
from nats_executor.settings import Settings
from nats_executor.topology import setup
from nats_executor.wire.names import Names, Verb
from tests.contract.stage import soon
from tests.support.certificates import Authority
from tests.support.fixtures import Options, settings_for
from tests.support.nats_server import NatsServer, free_port, start_together
from tests.support.shipped import INCLUDED, NATS, Made, ShippedServer, here, make_users
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from nats_executor.broker.port import Broker

pytestmark = pytest.mark.integration

NAMES = Names()
QUEUES = ("default", "gpu")
USERS = (
    "admin", "operator", "scheduler", "api-server", "triggerer", "monitor", "worker-default",
    "worker-gpu",
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

    def url(self, number: int) -> str:
        return self.servers[number].url.replace("nats://", "tls://")

    def common(self) -> dict[str, str]:
        servers = ",".join(self.url(number) for number in range(len(self.servers)))
        return {"servers": servers, "tls_ca_file": str(self.ca.ca_file), "replicas": "3"}

    def settings(self, user: str, team: str | None = None) -> Settings:
        return Settings.load(Options(self.common() | self.made.options(user)), team=team)

    def environment(self) -> dict[str, str]:
        """The sections of the deployment and of the team `red`, without a login."""
        return {
            f"AIRFLOW__{team}NATS_EXECUTOR__{name.upper()}": value
            for team in ("", "RED___")
            for name, value in self.common().items()
        }


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
        made.give(server.directory)
        routes = {f"{node}:6222": f"127.0.0.1:{port}" for node, port in ports.items()}
        server.config = here(
            text,
            routes
            | {
                "0.0.0.0:4222": f"127.0.0.1:{server.port}",
                "0.0.0.0:6222": f"127.0.0.1:{ports[name]}",
                "client_advertise: $NATS_NAME": f"client_advertise: 127.0.0.1:{server.port}",
                "  advertise: $NATS_NAME": f"  advertise: 127.0.0.1:{ports[name]}",
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

    assert set(files) == {*INCLUDED, "queues.list", *(f"{user}.env" for user in USERS)}
    assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o600}
    assert made.directory.stat().st_mode & 0o777 == 0o700
    passwords = {made.options(user)["password"] for user in USERS}
    assert len(passwords) == len(USERS)
    assert all(SECRET.fullmatch(password) for password in passwords)
    assert not SECRET.search(made.output)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_users_are_those_of_the_real_command(made: Made, tmp_path: Path) -> None:
    """Elsewhere here a quicker one stands in for it."""
    done = make_users(tmp_path, *QUEUES, airflow="airflow")
    assert done.returncode == 0, done.stderr

    for name in INCLUDED:
        real, quick = (
            SECRET.sub("***", (directory / name).read_text())
            for directory in (tmp_path, made.directory)
        )
        assert real == quick


@pytest.mark.parametrize(
    "queue",
    [
        "a/",
        "/b",
        "a/b/c",
        "a b",
        "",
        "größe",
        "a,b",
        "s:",
        ":a",
        "s:a:b",
        "=a",
        "s,t:a",
        "s:a/b",
        "s:a b",
    ],
)
def test_a_queue_that_makes_no_user_is_refused(tmp_path: Path, queue: str) -> None:
    done = make_users(tmp_path, queue)

    assert done.returncode == 2
    assert "write QUEUE, NAME=QUEUE, SITE:QUEUE or TEAM/QUEUE" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_passwords_stay_out_of_the_repository() -> None:
    done = make_users(NATS)

    assert done.returncode == 2
    assert "is in the repository" in done.stderr
    assert not any((NATS / name).exists() for name in INCLUDED)


def test_a_site_gets_a_user_and_users_of_its_own(tmp_path: Path) -> None:
    done = make_users(tmp_path, "default", "muc:gpu,a-b", HUBS="hub-1:7422 hub-2:7422")
    assert done.returncode == 0, done.stderr

    central, local = Made(tmp_path, ""), Made(tmp_path / "muc", "")
    files = {path.name: path.stat().st_mode & 0o777 for path in local.directory.iterdir()}
    assert files == dict.fromkeys(
        ["hub.conf", "users.conf", "worker-gpu.env", "worker-a-b.env"], 0o600
    )
    site, worker = central.options("site-muc"), local.options("worker-gpu")
    assert worker["jetstream_domain"] == "hub"
    assert worker["inbox_prefix"] == "_INBOX_site-muc.worker-gpu"
    assert central.options("worker-default")["jetstream_domain"] == accounts.DOMAIN
    hub = (local.directory / "hub.conf").read_text()
    assert f'"tls://site-muc:{site["password"]}@hub-2:7422"' in hub
    assert site["password"] != worker["password"]
    assert worker["password"] not in (tmp_path / "users.conf").read_text()
    assert not SECRET.search(done.stdout + done.stderr)


def test_a_repetition_keeps_passwords(made: Made, tmp_path: Path) -> None:
    for user in ("scheduler", "worker-gpu"):
        (tmp_path / f"{user}.env").write_text((made.directory / f"{user}.env").read_text())

    done = make_users(tmp_path, "gpu", "ml=gpu,training")

    assert done.returncode == 0, done.stderr
    again = Made(tmp_path, done.stdout)
    for user in ("scheduler", "worker-gpu"):
        assert again.options(user) == made.options(user)
        known = (
            f'NATS_PASSWORD_{user.upper().replace("-", "_")}: "{made.options(user)["password"]}"\n'
        )
        assert any(known in (tmp_path / name).read_text() for name in INCLUDED)
    assert again.options("worker-ml")["password"] != made.options("worker-gpu")["password"]


def test_what_there_is_room_for_is_a_value_that_is_remembered(tmp_path: Path) -> None:
    def limits(*args: str, **values: str) -> str:
        done = make_users(tmp_path, *args, **values)
        assert done.returncode == 0, done.stderr
        return (tmp_path / "limits.conf").read_text()

    assert "MAX_STREAMS: 126\nMAX_CONSUMERS: 3000\n" in limits("default")
    grown = limits("--add", "gpu", MAX_TEAMS="40", MAX_QUEUES="5000")
    assert "MAX_STREAMS: 246\nMAX_CONSUMERS: 15000\n" in grown
    assert limits("--add", "red/x", "red/y") == grown
    assert (tmp_path / "queues.list").read_text().split() == ["default", "gpu", "red/x", "red/y"]
    workers = (tmp_path / "workers.conf").read_text()
    assert "max_consumers: 15000" in workers
    assert all(f'"red-worker-{queue}" {{' in workers for queue in "xy")


def test_queues_are_added_to_those_that_are_known(tmp_path: Path) -> None:
    done = make_users(tmp_path, "--add", "gpu")

    assert done.returncode == 2
    assert "give all queues, without --add" in done.stderr


def test_two_users_never_share_a_password(tmp_path: Path) -> None:
    done = make_users(tmp_path, "a_b", "a-b")

    assert done.returncode == 2
    assert "two users would share $NATS_PASSWORD_WORKER_A_B" in done.stderr
    assert list(tmp_path.iterdir()) == []


def set_up_after(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Make users in `folder/users`, with a reload that does nothing; print what is set up."""
    program = folder / "airflow"
    program.write_text(
        '#!/bin/sh\nif [ "$2" = setup ]; then echo "setup $4 ${6:-}"; exit; fi\n'
        f'exec {sys.executable} -m tests.support.quick_airflow "$@"\n'
    )
    program.chmod(0o700)
    with contextlib.chdir(folder):
        return make_users(
            "users", *words,
            AIRFLOW="./airflow", RELOAD=":", PAUSE="0",
            AIRFLOW__RED___NATS_EXECUTOR__SERVERS="nats://127.0.0.1:4222",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["gpu", "ml=gpu,x"], ["setup gpu,gpu,x "]),
        (["odd=a/b,c:d"], ["setup a/b,c:d "]),  # behind a name a queue may have any name
        (["muc:gpu,x"], ["setup gpu,x "]),
        (["red/x,y", "red/x"], ["setup x,y red"]),
    ],
)
def test_each_queue_is_set_up_after_the_reload(
    tmp_path: Path, words: list[str], made: list[str]
) -> None:
    done = set_up_after(tmp_path, *words)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == made


@pytest.mark.parametrize("word", ["gpu", "red/x"])
def test_adding_a_queue_can_be_repeated(tmp_path: Path, word: str) -> None:
    """Such as after a reload that failed."""
    first = set_up_after(tmp_path, word)
    again = set_up_after(tmp_path, "--add", word)

    assert (first.returncode, again.returncode) == (0, 0), again.stderr
    assert first.stdout == again.stdout


def test_a_site_and_a_team_do_not_share_a_directory(tmp_path: Path) -> None:
    done = set_up_after(tmp_path, "red:gpu", "red/gpu")

    assert done.returncode == 2
    assert "red is a site and a team" in done.stderr


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
                await setup.apply(admin, settings, QUEUES)
                return await setup.inspect(admin, settings, QUEUES) == []
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
    assert len(streams) == 5
    return {stream["config"]["num_replicas"] for stream in streams}


@pytest.mark.anyio
async def test_whether_a_worker_lives_is_known_at_once_from_any_server(cluster: Cluster) -> None:
    """To the scheduler, to its own sort and to workers of another account."""
    async with AsyncExitStack() as exits:

        async def connected(user: str, server: int) -> tuple[Broker, Settings]:
            settings = replace(cluster.settings(user), servers=(cluster.url(server),))
            broker = await exits.enter_async_context(connect(settings, role="test"))
            await broker.ready(20)
            return broker, settings

        async def pong(_: bytes) -> bytes:
            return b"pong"

        worker, _ = await connected("worker-gpu", 0)
        for subject in (NAMES.control("w.1", Verb.PING), NAMES.peer("w.1")):
            await worker.serve(subject, pong)
        for user in ("scheduler", "worker-gpu", "worker-default"):
            for server in range(len(cluster.servers)):
                broker, settings = await connected(user, server)
                liveness = Liveness(broker, settings, is_peer=user.startswith("worker"))

                assert await liveness.ping("w.1") is PingResult.ALIVE
                assert await soon(liveness.ping("gone.1"), 2) is PingResult.GONE


def has_reloaded(cluster: Cluster, times: int) -> bool:
    return all(s.log.count("Reloaded server configuration") == times for s in cluster.servers)


@pytest.mark.anyio
async def test_a_queue_is_added_by_a_reload(cluster: Cluster, tmp_path: Path) -> None:
    """And those who are connected stay so."""
    await set_up(cluster.settings("admin"))
    for user in USERS:
        (tmp_path / f"{user}.env").write_bytes(
            (cluster.made.directory / f"{user}.env").read_bytes()
        )
    done = make_users(tmp_path, *QUEUES, "new")
    assert done.returncode == 0, done.stderr
    made = Made(tmp_path, "")
    async with (
        connect(cluster.settings("scheduler"), role="test") as scheduler,
        connect(cluster.settings("worker-gpu"), role="test") as worker,
    ):
        for broker in (scheduler, worker):
            await broker.ready(20)
        pulls = await worker.pull(NAMES.tasks_stream, NAMES.consumer("gpu"))
        waiting = asyncio.create_task(pulls.wait())
        since = [broker.connected_since for broker in (scheduler, worker)]

        # The first reload leaves a new account without what it borrows, on every release so far.
        for times in (1, 2):
            for server in cluster.servers:
                made.give(server.directory)
                server.signal(signal.SIGHUP)
            await wait_until(partial(has_reloaded, cluster, times), 20, "a reload")

        settings = replace(cluster, made=made).settings("worker-new")
        admin = cluster.settings("admin")
        async with connect(settings, role="test") as added, connect(admin, role="test") as root:
            await added.ready(20)
            await root.ready(20)
            await setup.ensure_queue(root, admin, "new")
            new = await added.pull(NAMES.tasks_stream, "new")
            for queue, broker in (("new", added), ("gpu", worker)):
                await scheduler.publish(NAMES.task(queue, "r1"), b"payload")
                delivery = await soon(new.wait() if queue == "new" else waiting, 20)
                await broker.publish(NAMES.result(queue, "r1"), b"done", expected_last=0)
                await delivery.ack()
        assert [broker.connected_since for broker in (scheduler, worker)] == since


@pytest.mark.anyio
async def test_a_queue_and_a_team_are_added_by_one_command(
    cluster: Cluster, tmp_path: Path
) -> None:
    """No server restarts; what waits and runs in the streams of before is undisturbed."""
    admin = cluster.settings("admin")
    await set_up(admin)
    users = tmp_path / "users"
    shutil.copytree(cluster.made.directory, users)
    pids = [server.process.pid for server in cluster.servers if server.process]
    async with (
        connect(cluster.settings("scheduler"), role="test") as scheduler,
        connect(cluster.settings("worker-gpu"), role="test") as worker,
        connect(admin, role="test") as root,
    ):
        for broker in (scheduler, worker, root):
            await broker.ready(20)
        pulls = await worker.pull(NAMES.tasks_stream, NAMES.consumer("gpu"))
        await scheduler.publish(NAMES.task("gpu", "runs"), b"payload")
        running = await soon(pulls.wait(), 20)
        await scheduler.publish(NAMES.task("default", "waits"), b"payload")
        before = await looked_at(root)
        since = [broker.connected_since for broker in (scheduler, worker, root)]

        done = await asyncio.to_thread(
            make_users,
            users, "--add", "added", "red/default,gpu",
            RELOAD=reload_command(cluster), PAUSE="0", MAX_TEAMS="30", **cluster.environment(),
        )  # fmt: skip

        assert done.returncode == 0, done.stdout + done.stderr
        assert await looked_at(root) == before | {"consumers": before["consumers"] + 3}
        await running.ack()
        assert [broker.connected_since for broker in (scheduler, worker, root)] == since
        made = Made(users, "")
        grown = replace(cluster, made=made)
        await passes(grown.settings("scheduler"), grown.settings("worker-added"), "added")
    assert [server.process.pid for server in cluster.servers if server.process] == pids
    red = replace(cluster, made=Made(users / "red", "", "RED"))
    sender, carrier = (red.settings(user, "red") for user in ("scheduler", "worker-gpu"))
    await passes(sender, carrier, "gpu")
    await scheduler_of_another_team_is_refused(cluster.settings("scheduler"), sender.names)
    sizes = {int(s.monitor("/varz")["jetstream"]["config"]["max_storage"]) for s in cluster.servers}
    assert sizes == {31 * 9 * 2**30}


async def looked_at(root: Broker) -> dict[str, int]:
    info = await root.stream_info(NAMES.tasks_stream)
    assert info is not None
    infos = await root.consumer_infos(NAMES.tasks_stream)
    in_flight = sum(found.in_flight for found in infos)
    return {"messages": info.messages, "consumers": len(infos), "running": in_flight}


def reload_command(cluster: Cluster) -> str:
    """Copy the files to each server, have it reload them, and wait until it has done so."""
    lines = []
    for server in cluster.servers:
        assert server.process
        log = server.directory / "server.log"
        lines += [
            f"before=$(grep -c 'Reloaded server conf' '{log}' || true)",
            f"cp {' '.join(INCLUDED)} '{server.directory}'",
            f"kill -HUP {server.process.pid}",
            f"until [ $(grep -c 'Reloaded server conf' '{log}') -gt $before ]; do sleep 0.1; done",
        ]
    return "\n".join(lines)


async def passes(scheduler: Settings, worker: Settings, queue: str) -> None:
    """Have a scheduler's user send a workload, which a worker's user carries."""
    names = scheduler.names
    async with (
        connect(scheduler, role="test") as sender,
        connect(worker, role="test") as carrier,
    ):
        for broker in (sender, carrier):
            await broker.ready(20)
        pulls = await carrier.pull(names.tasks_stream, names.consumer(queue))
        await sender.publish(names.task(queue, "p1"), b"payload")
        delivery = await soon(pulls.wait(), 20)
        assert delivery.body == b"payload"
        await carrier.publish(names.result(queue, "p1"), b"done", expected_last=0)
        await delivery.ack()

        async def is_over() -> bool:
            report = await sender.last(names.results_stream, names.result(queue, "p1"))
            return report is not None and report.body == b"done"

        await wait_until(is_over, 20, "the report")


async def scheduler_of_another_team_is_refused(other: Settings, names: Names) -> None:
    """Its account does not have these subjects at all."""
    async with connect(other, role="test") as broker:
        await broker.ready(20)
        with pytest.raises(BrokerError):
            await broker.publish(names.task("gpu", "forged"), b"payload")


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

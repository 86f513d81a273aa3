"""Servers that are lost with their disks, a backup that is put back, logins that are replaced.

The pages in docs/how-to that say how: recover-a-nats-server, back-up, rotate-credentials.
"""

from __future__ import annotations

import json
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.cli import commands, letter_commands
from tests.remedies.lines import LINES
from tests.remedies.test_quorum import details
from tests.remedies.test_quorum import rows as check_rows
from tests.support.certificates import Authority
from tests.support.nats_server import NatsServer, nats_cluster, start_together
from tests.support.nkeys import NKey
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.remedies.stage import RemedyStage

pytestmark = [pytest.mark.integration, pytest.mark.slow]

OPENED = "Reloaded server configuration"
UNREADABLE = b"no workload"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Sequence[NatsServer]]:
    servers = nats_cluster(tmp_path / "cluster")
    try:
        start_together(servers)
        yield servers
    finally:
        for server in servers:
            server.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """One that the test configures and starts."""
    server = NatsServer(tmp_path / "nats")
    try:
        yield server
    finally:
        server.kill()


def pending(seen: RemedyStage) -> int:
    """Return how many workloads wait in the queue; -1 while NATS does not tell."""
    code, output = seen.console.run(commands.queues_list, output="json")
    return -1 if code else sum(row["pending"] for row in json.loads(output))


def send(seen: RemedyStage, *numbers: int) -> None:
    for number in numbers:
        seen.console.send("a", f"d{number}")


def lose(server: NatsServer) -> None:
    """Kill a server, and take its disk away."""
    server.kill()
    server.wipe_storage()


def test_a_server_that_is_lost_with_its_disk_catches_up_from_the_others(
    cluster: Sequence[NatsServer], open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    """An empty server of the same name takes its place; then any other one may fail."""
    seen = open_remedy_stage(*(server.url for server in cluster), replicas=3)
    assert seen.console.run(commands.setup, queues="a")[0] == 0
    send(seen, *range(20))
    lost, stays, fails = cluster
    lose(lost)
    block_until(lambda: pending(seen) == 20, 60, "a new leader")
    send(seen, *range(20, 30))
    assert details(seen, "degraded")

    lost.launch()
    block_until(lambda: not details(seen, "degraded"), 90, "a copy of everything")
    lose(fails)

    # The new server is needed for a quorum, and may be the leader.
    block_until(lambda: pending(seen) == 30, 60, "all workloads")
    send(seen, 30)
    block_until(lambda: pending(seen) == 31, 60, "another one")
    assert stays.process is not None


def test_what_a_copy_of_a_stopped_servers_disk_holds_is_back_with_it(
    server: NatsServer, tmp_path: Path, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    seen = open_remedy_stage(server.start().url)
    assert seen.console.run(commands.setup, queues="a")[0] == 0
    send(seen, *range(5))
    names = seen.console.settings.names
    seen.console.publish(names.dead_letter("a", "d9"), UNREADABLE)
    server.stop()
    shutil.copytree(server.directory / "storage", tmp_path / "backup")
    server.start()
    send(seen, 5)
    lose(server)

    shutil.copytree(tmp_path / "backup", server.directory / "storage")
    server.start()

    assert pending(seen) == 5
    assert len(letters(seen)) == 1
    assert seen.console.run(commands.setup, queues="a", check=True)[0] == 0


def letters(seen: RemedyStage) -> list[Any]:
    code, output = seen.console.run(
        letter_commands.dead_letters_list, output="json", queue=None, dag=None, older_than=0.0,
        limit=None,
    )  # fmt: skip
    assert code == 0, seen.console.error
    found: list[Any] = json.loads(output)
    return found


def test_disks_of_a_whole_cluster_are_put_back(
    cluster: Sequence[NatsServer], tmp_path: Path, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    seen = open_remedy_stage(*(server.url for server in cluster), replicas=3)
    assert seen.console.run(commands.setup, queues="a")[0] == 0
    send(seen, *range(5))
    for server in cluster:
        server.stop()
        shutil.copytree(server.directory / "storage", tmp_path / "backup" / server.name)
        server.wipe_storage()
        shutil.copytree(tmp_path / "backup" / server.name, server.directory / "storage")

    start_together(cluster)

    block_until(lambda: pending(seen) == 5, 60, "all workloads")
    assert [row for row in check_rows(seen) if row["status"] == "drift"] == []


def reload(server: NatsServer, config: str) -> None:
    """Have a server read its configuration again, as `nats-server --signal reload` does."""
    times = server.log.count(OPENED)
    path = server.directory / "server.conf"
    path.write_text(path.read_text().replace(server.config, config))
    server.config = config
    server.signal(signal.SIGHUP)
    block_until(lambda: server.log.count(OPENED) > times, 20, "its reload")


def users(*lines: str) -> str:
    return f"authorization {{ users: [ {', '.join(f'{{ {line} }}' for line in lines)} ] }}"


def test_a_password_is_replaced_and_the_process_that_has_the_old_one_says_so(
    server: NatsServer, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    """It is sent away at the reload; after its restart it goes on with what it had."""
    server.config = users("user: airflow, password: old")
    seen = open_remedy_stage(server.start().url, user="airflow", password="old")
    assert seen.console.run(commands.setup, queues="a")[0] == 0
    with seen.scheduler() as executor:
        block_until(lambda: executor.heartbeat() or executor.running, 30, "the workload's sending")

        reload(server, users("user: airflow, password: new"))

        line = LINES["wrong password"].format(url=server.url, user="airflow")
        block_until(lambda: seen.logged(line), 30, "what the process says")
    seen.configure(password="new")
    assert pending(seen) == 1


def test_a_second_user_replaces_the_first_without_a_gap(
    server: NatsServer, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    old, new = "user: one, password: old", "user: two, password: new"
    server.config = users(old)
    seen = open_remedy_stage(server.start().url, user="one", password="old")
    assert seen.console.run(commands.setup, queues="a")[0] == 0
    with seen.worker("-q", "a") as before:
        block_until(seen.is_ready, 90, "its readiness")
        reload(server, users(old, new))
        seen.configure(user="two", password="new")
        assert seen.console.run(commands.queues_list)[0] == 0
        assert seen.is_ready()
    assert "refuses" not in before.text
    reload(server, users(new))
    assert seen.console.run(commands.queues_list)[0] == 0


def test_a_seed_in_a_file_is_replaced_without_a_restart(
    server: NatsServer, tmp_path: Path, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    one, two = NKey(), NKey()
    file = tmp_path / "scheduler.nk"
    file.write_text(one.seed)
    server.config = users(f"nkey: {one.public}")
    seen = open_remedy_stage(server.start().url, nkey_seed=file)
    assert seen.console.run(commands.setup, queues="a")[0] == 0
    with seen.scheduler() as executor:
        block_until(lambda: executor.heartbeat() or executor.running, 30, "the workload's sending")
        times = seen.caplog.text.count("connected to NATS")

        reload(server, users(f"nkey: {one.public}", f"nkey: {two.public}"))
        file.write_text(two.seed)
        reload(server, users(f"nkey: {two.public}"))

        block_until(
            lambda: seen.caplog.text.count("connected to NATS") > times, 30, "a new connection"
        )


def test_a_servers_certificate_is_replaced_without_a_restart(
    server: NatsServer, tmp_path: Path, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    ca = Authority(tmp_path)
    old, new = ca.issue("old", expired=True), ca.issue("new")
    server.config = f'tls {{ cert_file: "{old.certificate_file}", key_file: "{old.key_file}" }}'
    seen = open_remedy_stage(server.start().url, tls_ca_file=ca.ca_file)
    line = LINES["expired certificate"].format(url=server.url)
    assert seen.refused(commands.setup) == line
    with seen.scheduler() as executor:
        seen.scheduler_says(executor, line)

        reload(server, f'tls {{ cert_file: "{new.certificate_file}", key_file: "{new.key_file}" }}')

        block_until(lambda: executor.heartbeat() or executor.running, 30, "the workload's sending")

"""A cluster that has lost servers: what still works, what does not, and what is said of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.broker.port import StreamInfo
from nats_executor.broker.quorum import Peer, Replication, replication
from nats_executor.cli import commands
from nats_executor.operations.survey import replica_findings
from nats_executor.topology.wanted import stream_configs
from tests.remedies.lines import LINES
from tests.support.nats_server import nats_cluster, start_together
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.remedies.stage import RemedyStage
    from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.integration

NO_QUORUM = LINES["no quorum"].format(servers="nats-1, nats-2, nats-3")
DEGRADED = LINES["offline"].format(offline="nats-3")


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
def seen(
    cluster: Sequence[NatsServer], open_remedy_stage: Callable[..., RemedyStage]
) -> RemedyStage:
    return open_remedy_stage(*(server.url for server in cluster), replicas=3)


def rows(seen: RemedyStage) -> list[dict[str, Any]]:
    """Return what `check` finds, once no leader is being elected."""
    code, output = block_until(lambda: answered(seen), 90, "an answer")
    found: list[dict[str, Any]] = json.loads(output)
    assert code == int(any(row["status"] != "ok" for row in found))
    return found


def answered(seen: RemedyStage) -> tuple[int, str] | None:
    code, output = seen.console.run(commands.check, output="json")
    return (code, output) if code < 2 else None


def details(seen: RemedyStage, status: str) -> list[str]:
    return [row["details"] for row in rows(seen) if row["status"] == status]


def test_streams_with_too_few_replicas_and_a_server_that_is_away(
    cluster: Sequence[NatsServer], seen: RemedyStage
) -> None:
    seen.configure(replicas=1)
    assert seen.console.run(commands.setup, queues="a")[0] == 0
    seen.configure(replicas=3)
    lines = [
        LINES["too few replicas"].format(name=name, found="1 replica") for name in streams(seen)
    ]

    assert details(seen, "drift") == lines
    with seen.scheduler() as executor:
        block_until(lambda: executor.heartbeat() or executor.running, 10, "the workload's sending")
        for line in lines:
            assert seen.logged(line) == [f"{line}; next: going on with it"]

    # While a stream is copied its consumers may not answer; `setup` is safe to repeat.
    block_until(lambda: seen.console.run(commands.setup, queues="a")[0] == 0, 60, "its setup")
    assert details(seen, "drift") == []
    block_until(lambda: not details(seen, "degraded"), 60, "copies everywhere")
    cluster[2].kill()
    wanted = [DEGRADED] * len(lines)
    block_until(lambda: details(seen, "degraded") == wanted, 60, "the loss to be noticed")


def streams(seen: RemedyStage) -> list[str]:
    return [str(config["name"]) for config in stream_configs(seen.console.settings)]


def test_a_cluster_without_a_quorum_is_one_line_everywhere(
    cluster: Sequence[NatsServer], seen: RemedyStage
) -> None:
    assert seen.console.run(commands.setup, queues="a")[0] == 0
    with seen.worker("-q", "a", "-c", "1") as worker:
        block_until(seen.is_ready, 90, "its readiness")
        for server in cluster[1:]:
            server.kill()

        seen.said(worker, NO_QUORUM)
        block_until(lambda: seen.refusals() == {NO_QUORUM}, 60, "the line of every command")
        with seen.scheduler() as executor:
            seen.scheduler_says(executor, NO_QUORUM)
            block_until(
                lambda: seen.readiness().startswith("not ready: no answer to pulls"), 30, "silence"
            )
            assert worker.text.count(NO_QUORUM) == 1, worker.text
            # At first there may have been no answer at all.
            assert worker.text.count("next: what runs goes on") <= 2

            for server in cluster[1:]:
                server.launch()
            block_until(lambda: executor.heartbeat() or executor.running, 60, "its sending")
        seen.said(worker, "NATS is back after")
        block_until(seen.is_ready, 60, "its readiness again")
        assert rows(seen)


def test_a_single_server_that_is_asked_for_replicas(
    nats_server: NatsServer, open_remedy_stage: Callable[..., RemedyStage], names: Any
) -> None:
    seen = open_remedy_stage(nats_server.url, replicas=3, subject_prefix=names.prefix)
    line = LINES["single server"]

    assert seen.refused(commands.setup) == line
    with seen.scheduler() as executor:
        seen.scheduler_says(executor, line)


@pytest.mark.parametrize("copies", [1, 2])
def test_a_stream_that_is_not_where_it_should_be_yet(copies: int) -> None:
    """Also after a server that is none of a cluster has taken the setting, as 2.11 does."""
    peers = tuple(Peer(f"nats-{number}") for number in range(1, copies))
    info = StreamInfo("S", 0, 0, 0, 0.0, 0.0, replicas=3, replication=Replication("nats-0", peers))

    [row] = replica_findings(info, 3)

    assert (row["status"], row["details"]) == (
        "degraded",
        LINES["being copied"].format(copies=copies),
    )
    assert replica_findings(info, 1) == []  # then the setting is what differs


def test_a_stream_that_is_not_taken_over_yet_is_degraded_although_all_copies_are_complete() -> None:
    """As 2.15.1 tells it: a server that is stopped now may leave the stream without a leader."""
    cluster: dict[str, Any] = {
        "name": "test", "leader": "nats-1", "desired": {"origin": {"replicas": 1}},
        "replicas": [{"name": f"nats-{number}", "current": True} for number in (2, 3)],
    }  # fmt: skip

    def found() -> list[dict[str, Any]]:
        copies = replication({"cluster": cluster})
        return replica_findings(
            StreamInfo("S", 0, 0, 0, 0.0, 0.0, replicas=3, replication=copies), 3
        )

    [row] = found()
    del cluster["desired"]

    assert (row["status"], row["details"]) == ("degraded", LINES["being handed over"])
    assert found() == []


def test_more_replicas_than_a_cluster_has_servers(seen: RemedyStage) -> None:
    seen.configure(replicas=5)

    assert seen.refused(commands.setup) == LINES["small cluster"]


def test_more_replicas_than_are_asked_for(seen: RemedyStage) -> None:
    """One host lacks the option: `setup` must not be the first thing to do."""
    assert seen.console.run(commands.setup, queues="a")[0] == 0
    seen.configure(replicas=1)

    assert details(seen, "drift") == [
        LINES["more replicas"].format(name=name) for name in streams(seen)
    ]

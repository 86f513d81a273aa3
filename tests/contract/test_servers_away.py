"""Several addresses, some of which are dead: which are tried, and what is said."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.broker import connection as broker_module
from nats_executor.broker import pulls as pulls_module
from nats_executor.broker.connection import connect
from nats_executor.errors import BrokerError, BrokerUnavailable
from tests.contract.stage import RealStage, soon
from tests.support.cable import Cable
from tests.support.fixtures import settings_for
from tests.support.nats_server import free_port, nats_cluster, start_together
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from contextlib import AsyncExitStack
    from pathlib import Path

    from nats_executor.broker.port import Broker
    from nats_executor.wire.names import Names
    from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

LANES = ("a", "b", "c")
CONNECT_SECONDS = 3.0


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


class Hole:
    """An address that takes connections and never says a word."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []

    @property
    def hits(self) -> int:
        return len(self.writers)

    async def swallow(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)


@contextlib.asynccontextmanager
async def hole(port: int) -> AsyncIterator[Hole]:
    made = Hole()
    server = await asyncio.start_server(made.swallow, "127.0.0.1", port)
    try:
        yield made
    finally:
        server.close()
        for writer in made.writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # in which their sockets are closed


async def renewed(broker: Broker, since: float) -> None:
    await wait_until(lambda: since < broker.connected_since < math.inf, 60, "a new connection")


# One of several


async def test_one_of_three_servers_that_is_away_is_not_worth_a_line(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Each upload of a log is such a connection: it was a line each."""
    dead = [f"nats://127.0.0.1:{free_port()}" for _ in range(2)]
    settings = settings_for(*dead, nats_server.url)
    for _ in range(20):
        async with connect(settings, role="contract") as broker:
            await broker.ready(30)

    assert warnings(caplog) == []


async def test_an_upload_says_by_itself_that_no_server_is_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    async with connect(settings_for(url), role="task log") as broker:
        with pytest.raises(BrokerUnavailable, match=f"cannot reach NATS at {url}"):
            await broker.ready(1)

    assert warnings(caplog) == []


async def test_a_server_that_hangs_after_it_has_answered_needs_no_other_settings(
    private_nats_server: NatsServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broker_module, "WATCH_SECONDS", 1.0)
    url = private_nats_server.url
    settings = settings_for(url, connect_timeout_seconds=1)
    async with connect(settings, role="contract") as broker:
        await broker.ready(30)
        since = broker.connected_since
        private_nats_server.pause()
        try:
            await wait_until(lambda: warnings(caplog), 60, "a line")
        finally:
            private_nats_server.resume()
        await renewed(broker, since)

    [line] = warnings(caplog)
    assert line.startswith(f"no greeting of a NATS server from {url}; there was one before: ")
    assert "tls_handshake_first" not in line


# A cluster


@pytest.fixture
def holes() -> list[int]:
    return [free_port() for _ in range(3)]


@pytest.fixture
def advertising(tmp_path: Path, holes: list[int]) -> Iterator[Sequence[NatsServer]]:
    """A cluster that tells its clients of addresses which lead nowhere."""
    servers = nats_cluster(tmp_path / "cluster")
    for server, port in zip(servers, holes, strict=True):
        server.config += f"client_advertise: 127.0.0.1:{port}\n"
    try:
        start_together(servers)
        yield servers
    finally:
        for server in servers:
            server.kill()


@pytest.mark.integration
async def test_advertised_addresses_that_are_dead_cost_no_reconnect(
    advertising: Sequence[NatsServer], holes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """A worker outside: one address, a balancer's, leads to the cluster."""
    async with contextlib.AsyncExitStack() as exits:
        dead = [await exits.enter_async_context(hole(port)) for port in holes]
        balancer = exits.enter_context(Cable(advertising[0].port))
        url = f"nats://127.0.0.1:{balancer.port}"
        settings = settings_for(url, connect_timeout_seconds=CONNECT_SECONDS)
        broker = await exits.enter_async_context(connect(settings, role="contract"))
        await broker.ready(60)
        for _ in range(16):
            since = broker.connected_since
            await asyncio.to_thread(balancer.do, balancer.drop())
            await renewed(broker, since)
        assert [each.hits for each in dead] == [0, 0, 0]
        assert warnings(caplog) == []

        since = broker.connected_since
        await asyncio.to_thread(balancer.unplug)
        await wait_until(lambda: warnings(caplog), 60, "a line")
        balancer.plug()
        await renewed(broker, since)

    [line] = warnings(caplog)
    assert f" {url}" in line.partition("; and nats://127.0.0.1:")[0]
    advertised = [f"nats://127.0.0.1:{port}" for port in holes]
    assert sum(f"{address}, which the servers advertise" in line for address in advertised) == 1
    assert "set no_advertise: true in their cluster block" in line
    assert max(each.hits for each in dead) == 1


async def is_sent(stage: RealStage, lane: str) -> bool:
    try:
        subject = stage.names.task(lane, "d")
        await stage.broker.publish(subject, b"d", message_id=f"d-{lane}", timeout=1)
    except BrokerUnavailable:  # no leader yet
        return False
    return True


async def led_apart(stage: RealStage, consumer: str) -> str | None:
    """Return the leader of a consumer, once another server leads the results."""
    broker: Any = stage.broker
    try:
        info = await broker._call(f"CONSUMER.INFO.{stage.tasks}.{consumer}")
        results = await broker._call(f"STREAM.INFO.{stage.results}")
        leader = str(info["cluster"].get("leader", ""))
        if leader and results["cluster"].get("leader") not in {None, leader}:
            return leader
        await broker._call(f"STREAM.LEADER.STEPDOWN.{stage.results}")
    except BrokerError:
        pass  # one of them is being elected
    return None


@pytest.mark.integration
async def test_an_election_is_no_reason_to_set_anything_up(
    names: Names,
    nats_cluster_of_three: Sequence[NatsServer],
    exits: AsyncExitStack,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A worker comes from the killed leader to another server, which knows of none yet."""
    stage = RealStage(names, nats_cluster_of_three[0], exits, replicas=3)
    urls = tuple(server.url for server in nats_cluster_of_three)
    stage.settings = dataclasses.replace(stage.settings, servers=urls)
    await stage.build()
    await stage.queue("a")
    name = await wait_until(partial(led_apart, stage, names.consumer("a")), 60, "two leaders")
    [leader] = [server for server in nats_cluster_of_three if server.name == name]
    settings = dataclasses.replace(stage.settings, servers=(leader.url,))
    broker = await exits.enter_async_context(connect(settings, role="contract"))
    await broker.ready(30)
    wait = asyncio.create_task((await stage.pulls(broker, "a")).wait())
    try:
        await asyncio.to_thread(leader.kill)
        await wait_until(partial(is_sent, stage, "a"), 60, "a leader of the stream")
        assert (await soon(wait, 60)).body == b"d"
    finally:
        wait.cancel()
        await asyncio.wait([wait])

    assert "airflow nats setup" not in caplog.text


async def silent_waits(stage: RealStage, is_told: Callable[[], object]) -> None:
    """Wait for messages of all lanes, unanswered, until something is told."""
    waits = [asyncio.create_task((await stage.pulls(stage.broker, lane)).wait()) for lane in LANES]
    try:
        await wait_until(is_told, 60, "a line")
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)


async def test_consumers_that_are_gone_are_one_line(
    real_stage: RealStage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No election lasts so long; and what concerns all lanes is not said by each."""
    monkeypatch.setattr(pulls_module, "LONGEST_ELECTION_SECONDS", 2.5)
    consumers = [real_stage.names.consumer(lane) for lane in LANES]
    for lane, consumer in zip(LANES, consumers, strict=True):
        await real_stage.queue(lane)
        await (await real_stage.pulls(real_stage.broker, lane)).take(1)
        place = f"{real_stage.tasks}.{consumer}"
        await real_stage.broker.request(f"$JS.API.CONSUMER.DELETE.{place}", b"", timeout=30)

    await silent_waits(real_stage, lambda: warnings(caplog))

    [line] = warnings(caplog)
    assert line == (
        f"no answer from consumer {', '.join(consumers)} of stream {real_stage.tasks}; next: "
        "asking again until it does; remedy: airflow nats setup, with --queues"
    )


async def test_consumers_that_were_never_there_are_no_trouble(
    real_stage: RealStage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a fresh start no queue has had a task: each worker has warned of all its lanes."""
    monkeypatch.setattr(pulls_module, "LONGEST_ELECTION_SECONDS", 2.5)
    caplog.set_level(logging.INFO)
    lanes = ", ".join(map(real_stage.names.consumer, LANES))
    line = (
        f"stream {real_stage.tasks} has no consumer {lanes} yet; a queue gets its consumers with "
        "its first task"
    )

    await silent_waits(real_stage, lambda: line in caplog.messages)

    assert warnings(caplog) == []
    assert caplog.messages.count(line) == 1

"""Outages and recovery."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

import pytest

from nats_executor.broker import connection as broker_module
from nats_executor.broker.connection import connect
from nats_executor.broker.port import Outgoing, ServerOffer
from nats_executor.errors import BrokerUnavailable
from nats_executor.wire.names import Lane, Verb
from tests.contract.stage import PUBLISH_TIMEOUT, RealStage, soon
from tests.support.fixtures import settings_for
from tests.support.nats_server import NatsServer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AsyncExitStack
    from pathlib import Path

    from testcontainers.community.nats import NatsContainer

    from nats_executor.wire.names import Names
    from tests.contract.stage import Stage
    from tests.support.fixtures import MakeNatsServer

pytestmark = pytest.mark.anyio


async def no_reply(_: bytes) -> bytes:
    return b""


# Outages


async def test_a_connection_knows_since_when_it_stands(fragile_stage: Stage) -> None:
    broker = fragile_stage.broker
    first = broker.connected_since
    assert broker.is_connected
    assert first <= time.monotonic()

    await fragile_stage.stop_server()
    assert not broker.is_connected
    assert broker.connected_since == math.inf

    await fragile_stage.start_server()
    assert broker.is_connected
    assert first < broker.connected_since <= time.monotonic()


async def test_a_connection_tells_what_its_server_allows(fragile_stage: Stage) -> None:
    broker = fragile_stage.broker

    assert broker.offer.max_payload == 1024 * 1024
    assert broker.offer.certificate_ends == 0.0
    await fragile_stage.stop_server()
    assert broker.offer == ServerOffer()


async def test_every_question_is_refused_in_time_while_the_server_is_away(
    fragile_stage: Stage,
) -> None:
    stage, broker = fragile_stage, fragile_stage.broker
    pulls = await stage.queue()
    await stage.send("d1")
    delivery = await soon(pulls.wait())
    subject = stage.names.task("default", "d2")
    await stage.stop_server()

    answers = asyncio.gather(
        broker.publish(subject, b"", timeout=PUBLISH_TIMEOUT),
        broker.last(stage.tasks, subject),
        broker.last_of_each(stage.tasks, [subject, subject]),
        broker.occupied(stage.tasks, [subject]),
        broker.occupied(stage.tasks, [subject] * 600),
        broker.scan(stage.tasks, stage.names.tasks()),
        broker.remove(stage.tasks, subject),
        broker.request(subject, b"", timeout=PUBLISH_TIMEOUT),
        broker.stream_info(stage.tasks),
        broker.consumer_infos(stage.tasks),
        broker.stream_config(stage.tasks),
        broker.create_stream(stage.tasks_config()),
        broker.update_stream(stage.tasks_config()),
        broker.consumer_config(stage.tasks, "default"),
        broker.create_consumer(stage.tasks, stage.consumer_config("default", ack_wait=30)),
        broker.update_consumer(stage.tasks, stage.consumer_config("default", ack_wait=30)),
        broker.ready(0.1),
        pulls.take(1),
        delivery.ack(),
        delivery.nak(),
        delivery.term("reason"),
        delivery.in_progress(),
        return_exceptions=True,
    )

    outcomes = await soon(answers)
    assert {type(outcome) for outcome in outcomes} == {BrokerUnavailable}


async def test_none_of_many_messages_counts_as_stored_while_the_server_is_away(
    fragile_stage: Stage,
) -> None:
    stage = fragile_stage
    sent = [Outgoing(stage.names.task("default", f"d{n}"), b"") for n in range(3)]
    await stage.stop_server()

    outcomes = await soon(stage.broker.publish_all(sent, timeout=PUBLISH_TIMEOUT))

    assert [type(outcome) for outcome in outcomes] == [BrokerUnavailable] * 3


async def test_everything_works_again_without_a_new_object(fragile_stage: Stage) -> None:
    stage, broker = fragile_stage, fragile_stage.broker
    pulls = await stage.queue()
    await stage.send("d1")
    delivery = await soon(pulls.wait())

    await stage.restart_server()

    await delivery.in_progress()
    await delivery.ack()
    assert await stage.send("d2") == 2
    await stage.offers(1)
    assert [d.body for d in await pulls.take(5)] == [b"d2"]
    assert await broker.remove(stage.tasks, stage.names.task("default", "d2"))


async def test_what_is_opened_during_an_outage_works_after_it(fragile_stage: Stage) -> None:
    stage = fragile_stage
    await stage.queue()
    await stage.stop_server()

    pulls = await stage.pulls(stage.broker)
    waiting = asyncio.create_task(pulls.wait())
    await stage.broker.serve(stage.names.control("w1", Verb.PING), no_reply)
    await stage.start_server()
    await stage.send("d1")

    assert (await soon(waiting)).body == b"d1"
    assert await stage.broker.request(stage.names.control("w1", Verb.PING), b"", timeout=1) == b""


async def test_a_pending_wait_gets_what_is_published_after_a_restart(fragile_stage: Stage) -> None:
    stage = fragile_stage
    pulls = await stage.queue()
    waiting = asyncio.create_task(pulls.wait())

    await stage.restart_server()
    await stage.send("d1")

    assert (await soon(waiting, 3)).body == b"d1"


async def test_a_pending_wait_survives_kill_9(real_stage: RealStage) -> None:
    pulls = await real_stage.queue()
    waiting = asyncio.create_task(pulls.wait())

    await real_stage.stop_server(hard=True)
    await real_stage.start_server()
    await real_stage.send("d1")

    assert (await soon(waiting, 3)).body == b"d1"


async def test_a_pending_wait_survives_the_loss_of_its_consumer(real_stage: RealStage) -> None:
    """The server's disk is lost and `airflow nats setup` runs again; the workers go on."""
    stage = real_stage
    waiting = asyncio.create_task((await stage.queue()).wait())
    await stage.stop_server()
    stage.server.wipe_storage()
    await stage.start_server()

    await stage.broker.create_stream(stage.tasks_config())
    await stage.queue()
    await stage.send("d1")

    assert (await soon(waiting)).body == b"d1"


async def test_an_ack_to_a_consumer_that_is_gone_is_unavailable(real_stage: RealStage) -> None:
    stage = real_stage
    pulls = await stage.queue()
    await stage.send("d1")
    delivery = await soon(pulls.wait())
    await stage.stop_server()
    stage.server.wipe_storage()
    await stage.start_server()

    with pytest.raises(BrokerUnavailable, match="does not answer"):
        await delivery.ack()


async def test_an_ack_from_before_a_wipe_spares_the_message_that_has_its_number(
    real_stage: RealStage,
) -> None:
    """An ack names its message by the sequence alone, and a wiped server counts from 1 again."""
    stage = real_stage
    pulls = await stage.queue()
    await stage.send("d1")
    old = await soon(pulls.wait())
    await stage.stop_server()
    stage.server.wipe_storage()
    await stage.start_server()
    await stage.broker.create_stream(stage.tasks_config())
    pulls = await stage.queue()
    assert await stage.send("d2") == old.stream_sequence
    new = await soon(pulls.wait())

    await old.in_progress()
    await old.nak()
    await old.ack()

    [left] = await stage.broker.scan(stage.tasks, stage.names.tasks())
    assert left.subject == new.subject
    await new.ack()
    assert await stage.broker.scan(stage.tasks, stage.names.tasks()) == []


async def test_removing_messages_keeps_those_in_flight_over_a_restart(
    real_stage: RealStage,
) -> None:
    """With STREAM.PURGE nats-server 2.15.1 never offers some of them again."""
    stage = real_stage
    pulls = await stage.queue(ack_wait=1)
    for number in range(30):
        await stage.send(f"d{number}")
    await stage.offers(30)
    held = list(await pulls.take(30))
    assert len(held) == 30
    for delivery in held[:12]:
        await delivery.ack()
    for delivery in held[15:]:
        assert await stage.broker.remove(stage.tasks, delivery.subject)

    await stage.restart_server()

    again = {(await soon(pulls.wait())).subject for _ in range(3)}
    assert again == {delivery.subject for delivery in held[12:15]}


async def test_stored_messages_survive_kill_9(real_stage: RealStage) -> None:
    stage = real_stage
    await asyncio.gather(*(stage.send(f"d{n}") for n in range(100)))

    await stage.stop_server(hard=True)
    await stage.start_server()

    assert len(await stage.broker.scan(stage.tasks, stage.names.tasks())) == 100


async def test_publishes_under_way_fail_at_once_when_the_server_dies(
    real_stage: RealStage,
) -> None:
    """Frozen first, so that none of them is answered before the server is killed."""
    real_stage.server.pause()
    publish, task = real_stage.broker.publish, real_stage.names.task
    under_way = [
        asyncio.create_task(publish(task("default", f"d{n}"), b"", timeout=60)) for n in range(500)
    ]
    await asyncio.sleep(0)

    await real_stage.stop_server(hard=True)
    outcomes = await soon(asyncio.gather(*under_way, return_exceptions=True), 30)

    assert {type(outcome) for outcome in outcomes} == {BrokerUnavailable}


async def test_a_frozen_server_is_unavailable_within_the_timeout(real_stage: RealStage) -> None:
    """What was sent meanwhile arrives later: the message id makes that harmless."""
    stage = real_stage
    subject = stage.names.task("default", "d1")
    stage.server.pause()
    with pytest.raises(BrokerUnavailable, match="no answer"):
        await soon(stage.broker.publish(subject, b"", message_id="m1", timeout=0.3))

    stage.server.resume()

    assert await stage.broker.publish(subject, b"", message_id="m1") == 1


async def test_a_deaf_connection_is_replaced(
    real_stage: RealStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen server, or a firewall that drops packets: TCP alone would not tell for hours."""
    monkeypatch.setattr(broker_module, "WATCH_SECONDS", 1.0)
    broker = await real_stage.another()
    real_stage.server.pause()

    await wait_until(lambda: not broker.is_connected, 5, "the dead connection to be noticed")
    real_stage.server.resume()
    await broker.ready(10)

    assert await broker.last(real_stage.tasks, real_stage.names.task("q", "d")) is None


async def test_a_pull_that_is_given_up_while_it_opens_costs_no_connection(
    real_stage: RealStage, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that is told to stop gives up what it waits for; its reports are still to come."""
    stage = real_stage
    since = stage.broker.connected_since
    stage.server.pause()
    opening = asyncio.create_task(stage.broker.pull(stage.tasks, "any"))
    await wait_until(lambda: is_flushed(stage), 5, "the question whether it is subscribed")

    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    stage.server.resume()

    assert await stage.broker.last(stage.tasks, stage.names.task("q", "d")) is None
    assert await stage.broker.stream_info(stage.tasks) is not None
    assert stage.broker.connected_since == since
    assert "Traceback" not in caplog.text


def is_flushed(stage: RealStage) -> bool:
    """Whether nats-py waits for the server's answer to a flush, which only its own list tells."""
    return bool(stage.broker._link._client._pongs)  # type: ignore[attr-defined]


async def test_a_start_without_a_server_connects_when_there_is_one(
    tmp_path: Path, names: Names
) -> None:
    server = NatsServer(tmp_path)
    settings = settings_for(server.url, subject_prefix=names.prefix)
    async with connect(settings, role="contract") as broker:
        with pytest.raises(BrokerUnavailable, match=str(server.port)):
            await broker.ready(0.3)
        try:
            await asyncio.to_thread(server.start)
            await broker.ready(5)
            assert await broker.stream_info("NONE") is None
        finally:
            await asyncio.to_thread(server.kill)


async def test_any_of_the_configured_servers_will_do(names: Names, nats_server: NatsServer) -> None:
    settings = settings_for(
        "nats://127.0.0.1:1", nats_server.url, "nats://127.0.0.1:2", subject_prefix=names.prefix
    )
    async with connect(settings, role="contract") as broker:
        await broker.ready(5)


async def test_a_connection_shows_its_role_to_operators(real_stage: RealStage) -> None:
    (connection,) = real_stage.server.monitor("/connz")["connections"]

    assert connection["name"].startswith("contract@")


async def test_a_closed_connection_is_gone(real_stage: RealStage) -> None:
    async with real_stage.connection() as broker:
        await broker.ready(5)
    assert not broker.is_connected
    with pytest.raises(BrokerUnavailable):
        await broker.last(real_stage.tasks, "x")

    def connections() -> int:
        return int(real_stage.server.monitor("/connz")["num_connections"])

    await wait_until(lambda: connections() == 1, 3, "only the stage's own connection")


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21, 34])
async def test_a_connection_can_be_closed_at_any_moment(
    nats_server: NatsServer, turns: int
) -> None:
    """nats-py swallows a cancellation that comes while it connects."""

    async def open_and_close() -> None:
        async with connect(settings_for(nats_server.url), role="contract"):
            for _ in range(turns):
                await asyncio.sleep(0)

    await soon(open_and_close(), 2)


async def test_a_connection_can_be_closed_while_the_server_is_away(
    private_nats_server: NatsServer,
) -> None:
    async def open_and_close() -> None:
        settings = settings_for(private_nats_server.url)
        async with connect(settings, role="contract") as broker:
            await broker.ready(5)
            await asyncio.to_thread(private_nats_server.kill)
            await wait_until(lambda: not broker.is_connected, 5, "disconnection")

    await soon(open_and_close(), 5)


# A cluster and the official image


@pytest.mark.integration
async def test_a_lost_server_of_a_cluster_is_replaced_by_one_that_was_not_configured(
    names: Names, nats_cluster_of_three: Sequence[NatsServer], exits: AsyncExitStack
) -> None:
    first, *others = nats_cluster_of_three
    stage = RealStage(names, first, exits, replicas=3)
    await stage.build()
    await stage.send("d1")
    since = stage.broker.connected_since

    await asyncio.to_thread(first.kill)
    await wait_until(lambda: since < stage.broker.connected_since < math.inf, 5, "another server")

    async def is_published() -> bool:
        try:
            await stage.broker.publish(
                stage.names.task("default", "d2"), b"", message_id="d2", timeout=1
            )
        except BrokerUnavailable:  # no leader yet
            return False
        return True

    await wait_until(is_published, 15, "a new leader of the stream")
    assert len(await stage.broker.scan(stage.tasks, stage.names.tasks())) == 2
    assert sum(server.monitor("/connz")["num_connections"] for server in others) == 1


@pytest.mark.docker
async def test_the_official_image_carries_a_task_from_end_to_end(
    names: Names, nats_container: NatsContainer
) -> None:
    settings = settings_for(nats_container.nats_uri(), subject_prefix=names.prefix)
    async with connect(settings, role="contract") as broker:
        await broker.ready(5)
        config = {"name": names.tasks_stream, "subjects": [names.tasks()], "retention": "workqueue"}
        await broker.create_stream(config)
        await broker.create_consumer(
            names.tasks_stream,
            {
                "durable_name": "q",
                "filter_subject": names.tasks(Lane("q")),
                "ack_policy": "explicit",
            },
        )
        await broker.publish(names.task("q", "d1"), b"d1")
        pulls = await broker.pull(names.tasks_stream, "q")
        delivery = await soon(pulls.wait())
        await delivery.ack()

        info = await broker.stream_info(names.tasks_stream)
        assert info is not None
        assert info.messages == 0


@pytest.mark.parametrize("number", [41, 60])
async def test_more_than_the_server_sends_at_a_time_is_asked_for_again(
    make_nats_server: MakeNatsServer, names: Names, number: int
) -> None:
    """A batched get ends before its answers are too much for one connection."""
    server = make_nats_server(config="max_pending: 5000000")
    subjects = [names.task("q", f"d{n}") for n in range(number)]
    async with connect(settings_for(server.url), role="contract") as broker:
        await broker.ready(5)
        config = {
            "name": names.tasks_stream,
            "subjects": [names.tasks()],
            "storage": "memory",
            "allow_direct": True,
        }
        await broker.create_stream(config)
        for subject in subjects:
            await broker.publish(subject, bytes(100_000))

        each = await broker.last_of_each(names.tasks_stream, subjects)
        all_of_them = await broker.scan(names.tasks_stream, names.tasks())

    assert [message.subject for message in each] == subjects
    assert [message.subject for message in all_of_them] == subjects

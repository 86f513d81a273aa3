"""Users with limited rights: what they may do works, what they may not do says so at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from nats_executor.broker.connection import connect
from nats_executor.errors import AccessDenied
from nats_executor.wire.names import Verb
from tests.contract.stage import RealStage, soon
from tests.support.fixtures import settings_for

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from nats_executor.broker.port import Broker
    from nats_executor.wire.names import Names
    from tests.support.fixtures import MakeNatsServer

pytestmark = pytest.mark.anyio


async def no_reply(_: bytes) -> bytes:
    return b""


WORKER = """
accounts {{ A: {{ jetstream: enabled, users: [
  {{ user: admin, password: secret }},
  {{ user: worker, password: secret, permissions: {{
    publish: [ "$JS.API.CONSUMER.MSG.NEXT.{tasks}.mine", "$JS.ACK.{tasks}.mine.>",
               "$JS.ACK.*.*.{tasks}.mine.>", "{prefix}.results.mine.*" ],
    subscribe: [ "_INBOX_worker.>", "{prefix}.ctl.mine.*" ] }} }}
] }} }}
"""


@pytest.fixture
async def limited_stage(
    names: Names, make_nats_server: MakeNatsServer, exits: AsyncExitStack
) -> RealStage:
    """A server with an admin, whose connection the stage has, and a worker of queue `mine`."""
    server = make_nats_server(config=WORKER.format(tasks=names.tasks_stream, prefix=names.prefix))
    stage = RealStage(names, server, exits, user="admin", password="secret")
    await stage.build()
    await stage.queue("mine")
    await stage.queue("yours")
    return stage


async def worker_of(stage: RealStage, **options: str) -> Broker:
    credentials = {"user": "worker", "password": "secret"}
    settings = settings_for(
        stage.server.url, subject_prefix=stage.names.prefix, **(credentials | options)
    )
    return await stage.exits.enter_async_context(connect(settings, role="worker"))


async def test_a_wrong_password_names_user_and_server(limited_stage: RealStage) -> None:
    worker = await worker_of(limited_stage, password="wrong")

    with pytest.raises(AccessDenied, match="worker") as caught:
        await worker.ready(1)

    assert f"127.0.0.1:{limited_stage.server.port}" in str(caught.value)
    assert "wrong" not in str(caught.value)
    with pytest.raises(AccessDenied):
        await worker.publish(limited_stage.names.result("mine", "d1"), b"")


async def test_a_worker_works_with_least_privileges(limited_stage: RealStage) -> None:
    stage = limited_stage
    worker = await worker_of(stage)
    await worker.ready(5)
    pulls = await stage.pulls(worker, "mine")
    waiting = asyncio.create_task(pulls.wait())
    await stage.send("d1", queue="mine")
    await stage.send("d2", queue="mine")
    await worker.serve(stage.names.control("mine", Verb.PING), no_reply)

    first = await soon(waiting)
    await first.in_progress()
    await first.nak()
    await stage.offers(1, "mine")
    deliveries = [await soon(pulls.wait()), *await pulls.take(5)]
    for delivery in deliveries:
        await delivery.ack()
    await worker.publish(stage.names.result("mine", "d1"), b"", expected_last=0)

    assert await stage.broker.scan(stage.tasks, stage.names.tasks()) == []


async def test_a_denied_publish_names_the_missing_permission_at_once(
    limited_stage: RealStage,
) -> None:
    worker = await worker_of(limited_stage)
    await worker.ready(5)
    subject = limited_stage.names.result("yours", "d1")

    with pytest.raises(AccessDenied) as caught:
        await soon(worker.publish(subject, b"", timeout=60), 30)

    prefix = limited_stage.names.prefix
    assert str(caught.value) == (
        f"NATS does not allow user worker to publish to {prefix}.results.yours.*: put what "
        "`airflow nats auth --user worker --role worker --queues QUEUES` prints into the "
        "servers' configuration"
    )
    assert await worker.publish(limited_stage.names.result("mine", "d1"), b"") == 1


async def test_every_question_that_is_not_allowed_is_denied(limited_stage: RealStage) -> None:
    stage = limited_stage
    worker = await worker_of(stage)
    await worker.ready(5)
    pulls = await stage.pulls(worker, "yours")
    subject = stage.names.task("yours", "d1")

    outcomes = await asyncio.gather(
        worker.publish(subject, b""),
        worker.last(stage.tasks, subject),
        worker.last_of_each(stage.tasks, [subject]),
        worker.scan(stage.tasks, stage.names.tasks()),
        worker.remove(stage.tasks, subject),
        worker.request(stage.names.control("yours", Verb.PING), b"", timeout=1),
        worker.stream_info(stage.tasks),
        worker.consumer_infos(stage.tasks),
        worker.create_consumer(stage.tasks, stage.consumer_config("third", ack_wait=30)),
        worker.create_stream(stage.tasks_config()),
        pulls.take(1),
        return_exceptions=True,
    )

    assert [type(outcome) for outcome in outcomes] == [AccessDenied] * len(outcomes)


async def test_waiting_for_a_queue_that_is_not_allowed_is_denied(limited_stage: RealStage) -> None:
    worker = await worker_of(limited_stage)
    await worker.ready(5)
    pulls = await limited_stage.pulls(worker, "yours")

    with pytest.raises(AccessDenied, match="yours"):
        await soon(pulls.wait())


async def test_following_a_stream_that_is_not_allowed_is_denied(limited_stage: RealStage) -> None:
    worker = await worker_of(limited_stage)
    await worker.ready(5)

    with pytest.raises(AccessDenied, match=limited_stage.results):
        await soon(anext(worker.follow(limited_stage.results, after=0)))


async def test_serving_a_subject_that_is_not_allowed_is_denied(limited_stage: RealStage) -> None:
    worker = await worker_of(limited_stage)
    await worker.ready(5)

    with pytest.raises(AccessDenied, match=r"subscribe to \w+\.ctl\.\*\.\*: "):
        await worker.serve(limited_stage.names.control("yours", Verb.PING), no_reply)


async def test_an_inbox_prefix_that_is_not_allowed_is_denied(limited_stage: RealStage) -> None:
    """Otherwise every call would time out and nothing would say why."""
    worker = await worker_of(limited_stage, inbox_prefix="_INBOX_other")

    with pytest.raises(AccessDenied, match="_INBOX_other"):
        await worker.ready(2)

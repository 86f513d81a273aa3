"""Following a stream, and requests between connections."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest

from nats_executor.errors import BrokerUnavailable, LimitReached, NoResponders
from nats_executor.wire.names import Verb
from tests.contract.stage import soon
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

    from nats_executor.broker.port import Broker, Stored
    from tests.contract.stage import RealStage, Stage

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def following(
    stage: Stage, after: int, stream: str = ""
) -> AsyncIterator[AsyncIterator[Stored]]:
    messages = stage.broker.follow(stream or stage.results, after=after)
    async with aclosing(cast("AsyncGenerator[Stored, None]", messages)):
        yield messages


@asynccontextmanager
async def collecting(
    stage: Stage, after: int = 0, stream: str = ""
) -> AsyncIterator[Callable[[int], Awaitable[list[Stored]]]]:
    """Follow in the background; yields a function that waits for so many messages in all."""
    found: list[Stored] = []

    async def collect() -> None:
        async with following(stage, after, stream) as messages:
            async for message in messages:
                found.append(message)  # noqa: PERF401 - it never ends

    async def first(count: int) -> list[Stored]:
        await wait_until(lambda: len(found) >= count or task.done(), 10, f"{count} messages")
        return found

    task = asyncio.create_task(collect())
    try:
        yield first
    finally:
        task.cancel()
        await asyncio.wait([task])


async def read(messages: AsyncIterator[Stored], count: int) -> list[Stored]:
    return [await soon(anext(messages)) for _ in range(count)]


async def report(stage: Stage, *dispatch_ids: str) -> list[int]:
    return [
        await stage.broker.publish(stage.names.result("q", dispatch_id), dispatch_id.encode())
        for dispatch_id in dispatch_ids
    ]


def bodies(messages: Sequence[Stored]) -> list[bytes]:
    return [message.body for message in messages]


# follow


async def test_following_yields_what_is_there_in_order(stage: Stage) -> None:
    sequences = await report(stage, "d1", "d2", "d3")

    async with following(stage, 0) as messages:
        found = await read(messages, 3)

    assert bodies(found) == [b"d1", b"d2", b"d3"]
    assert [message.sequence for message in found] == sequences
    assert found[0].subject == stage.names.result("q", "d1")
    first = await stage.broker.last(stage.results, found[0].subject)
    assert first is not None
    assert found[0].at == pytest.approx(first.at, abs=0.001)


async def test_following_yields_what_comes_later(stage: Stage) -> None:
    async with collecting(stage) as first:
        await report(stage, "d1")
        await first(1)

        await report(stage, "d2")

        assert bodies(await soon(first(2))) == [b"d1", b"d2"]


async def test_following_begins_after_a_sequence(stage: Stage) -> None:
    sequences = await report(stage, "d1", "d2", "d3")

    async with following(stage, sequences[1]) as messages:
        assert bodies(await read(messages, 1)) == [b"d3"]


async def test_following_from_the_end_yields_only_new_messages(stage: Stage) -> None:
    (last,) = await report(stage, "d1")

    async with collecting(stage, last) as first:
        await report(stage, "d2")
        assert bodies(await first(1)) == [b"d2"]


async def test_following_skips_what_was_replaced_meanwhile(stage: Stage) -> None:
    """A reader that lags sees the last message of a subject, which is the truth."""
    subject = stage.names.result("q", "d1")
    for body in (b"claimed", b"running", b"success"):
        await stage.broker.publish(subject, body)

    async with following(stage, 0) as messages:
        assert bodies(await read(messages, 1)) == [b"success"]


async def test_following_sees_every_report_that_it_keeps_up_with(stage: Stage) -> None:
    subject = stage.names.result("q", "d1")
    seen = []
    async with following(stage, 0) as messages:
        for body in (b"claimed", b"running", b"success"):
            await stage.broker.publish(subject, body)
            seen += bodies(await read(messages, 1))

    assert seen == [b"claimed", b"running", b"success"]


async def test_following_reads_more_than_one_batch(stage: Stage) -> None:
    await asyncio.gather(*(report(stage, f"d{n}") for n in range(2500)))

    async with following(stage, 0) as messages:
        found = await read(messages, 2500)

    assert [message.sequence for message in found] == list(range(1, 2501))


async def test_two_readers_see_everything_each(stage: Stage) -> None:
    await report(stage, "d1", "d2")

    async with following(stage, 0) as one, following(stage, 0) as two:
        assert bodies(await read(one, 2)) == bodies(await read(two, 2)) == [b"d1", b"d2"]


async def test_following_goes_on_after_the_server_was_away(fragile_stage: Stage) -> None:
    stage = fragile_stage
    await report(stage, "d1")
    async with collecting(stage) as first:
        await first(1)

        await stage.restart_server()
        await report(stage, "d2", "d3")

        assert bodies(await first(3)) == [b"d1", b"d2", b"d3"]


async def test_following_goes_on_after_kill_9(real_stage: RealStage) -> None:
    stage = real_stage
    await report(stage, *(f"d{n}" for n in range(50)))
    async with following(stage, 0) as messages:
        found = await read(messages, 20)

        await stage.stop_server(hard=True)
        await stage.start_server()
        await report(stage, "last")
        found += await read(messages, 31)

    assert [message.sequence for message in found] == list(range(1, 52))


async def test_following_starts_over_when_the_stream_was_lost(real_stage: RealStage) -> None:
    """A server that lost its disk counts from 1 again; the reader must not wait for 4."""
    stage = real_stage
    await report(stage, "d1", "d2", "d3")
    async with collecting(stage) as first:
        await first(3)

        await stage.stop_server()
        stage.server.wipe_storage()
        await stage.start_server()
        await stage.broker.create_stream(stage.results_config())
        await report(stage, "d4")

        assert bodies(await first(4))[3:] == [b"d4"]


async def test_following_reads_a_new_stream_from_its_start_however_long_it_is(
    real_stage: RealStage,
) -> None:
    """Its numbers say nothing: it may have caught up before the reader looks."""
    stage = real_stage
    await report(stage, "d1")
    async with collecting(stage) as first:
        await first(1)

        await stage.stop_server()
        stage.server.wipe_storage()
        await stage.start_server()
        await stage.broker.create_stream(stage.results_config())
        await report(stage, *(f"n{number}" for number in range(5)))

        assert bodies(await first(6))[1:] == [f"n{number}".encode() for number in range(5)]


async def test_following_waits_for_a_stream_that_is_not_there_yet(stage: Stage) -> None:
    async with collecting(stage, stream="LATER") as first:
        await stage.elapse(0.1)
        config = stage.results_config() | {"name": "LATER", "subjects": ["later.>"]}
        await stage.broker.create_stream(config)
        await stage.broker.publish("later.d1", b"d1")

        assert bodies(await first(1)) == [b"d1"]


async def test_a_reader_that_is_closed_leaves_no_subscription(real_stage: RealStage) -> None:
    def subscriptions() -> int:
        return int(real_stage.server.monitor("/connz?subs=1")["connections"][0]["subscriptions"])

    await report(real_stage, "d1")
    before = subscriptions()
    async with following(real_stage, 0) as messages:
        await read(messages, 1)
        assert subscriptions() > before

    await wait_until(lambda: subscriptions() == before, 3, "the reader's subscription to end")


# request and serve


async def shout(body: bytes) -> bytes:
    return body.upper()


async def answers(stage: Stage, subject: str) -> bool:
    try:
        await stage.broker.request(subject, b"", timeout=1)
    except NoResponders:
        return False
    return True


async def is_deserted(stage: Stage, subject: str) -> bool:
    try:
        return not await answers(stage, subject)
    except BrokerUnavailable:  # sent to a connection that was being closed
        return False


async def serve(stage: Stage, subject: str) -> Broker:
    """Serve on another connection, and return once requests reach it."""
    other = await stage.another()
    await other.serve(subject, shout)

    await wait_until(lambda: answers(stage, subject), 5, "the subscription to reach the server")
    return other


async def test_a_request_gets_the_answer_of_whoever_serves_the_subject(stage: Stage) -> None:
    subject = stage.names.control("w1", Verb.PING)
    await serve(stage, subject)

    assert await stage.broker.request(subject, b"ping", timeout=1) == b"PING"


async def test_requests_do_not_mix_up_their_answers(stage: Stage) -> None:
    subject = stage.names.control("w1", Verb.PING)
    await serve(stage, subject)

    answers = await asyncio.gather(
        *(stage.broker.request(subject, f"p{n}".encode(), timeout=5) for n in range(200))
    )

    assert answers == [f"P{n}".encode() for n in range(200)]


async def test_a_connection_may_ask_itself(stage: Stage) -> None:
    subject = stage.names.control("w1", Verb.PING)
    await stage.broker.serve(subject, shout)

    assert await stage.broker.request(subject, b"ping", timeout=1) == b"PING"


async def test_a_request_that_nobody_listens_to_says_so_at_once(stage: Stage) -> None:
    subject = stage.names.control("w1", Verb.PING)

    with pytest.raises(NoResponders, match="ping"):
        await soon(stage.broker.request(subject, b"", timeout=60), 30)


async def test_an_answer_that_takes_too_long_is_unavailable(stage: Stage) -> None:
    async def think(_: bytes) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    subject = stage.names.control("w1", Verb.PING)
    await stage.broker.serve(subject, think)

    with pytest.raises(BrokerUnavailable, match="ping"):
        await stage.broker.request(subject, b"", timeout=0.1)


async def test_one_slow_answer_does_not_hold_up_others(stage: Stage) -> None:
    """A worker answers a ping while it reads a large log for another reader."""
    gate = asyncio.Event()

    async def slow(_: bytes) -> bytes:
        await gate.wait()
        return b"slow"

    log, ping = stage.names.control("w1", Verb.LOG), stage.names.control("w1", Verb.PING)
    other = await serve(stage, ping)
    await other.serve(log, slow)
    waiting = asyncio.create_task(stage.broker.request(log, b"", timeout=5))

    assert await stage.broker.request(ping, b"ping", timeout=1) == b"PING"

    gate.set()
    assert await soon(waiting) == b"slow"


async def test_an_answer_that_fails_does_not_end_the_service(stage: Stage) -> None:
    async def fragile(body: bytes) -> bytes:
        if body == b"bad":
            raise RuntimeError("made to fail")
        return body

    subject = stage.names.control("w1", Verb.LOG)
    await stage.broker.serve(subject, fragile)

    with pytest.raises(BrokerUnavailable):
        await stage.broker.request(subject, b"bad", timeout=0.2)
    assert await stage.broker.request(subject, b"good", timeout=1) == b"good"


async def test_a_worker_that_left_no_longer_answers(stage: Stage) -> None:
    subject = stage.names.control("w1", Verb.PING)
    async with stage.connection() as worker:
        await worker.ready(5)
        await worker.serve(subject, shout)
        await wait_until(lambda: answers(stage, subject), 5, "the worker to answer")

    await wait_until(lambda: is_deserted(stage, subject), 5, "the worker to be gone")


async def test_serving_goes_on_after_the_server_was_away(fragile_stage: Stage) -> None:
    stage = fragile_stage
    subject = stage.names.control("w1", Verb.PING)
    await serve(stage, subject)

    await stage.restart_server()

    assert await stage.broker.request(subject, b"ping", timeout=1) == b"PING"


async def test_a_limit_of_readers_is_said(real_stage: RealStage) -> None:
    """A scheduler would else read no reports, and nobody knew."""
    broker, stream = real_stage.broker, real_stage.results
    config = await broker.stream_config(stream)
    assert config is not None
    await broker.create_stream(
        config | {"name": "NARROW", "subjects": ["narrow.*"], "max_consumers": 1}
    )
    await broker.publish("narrow.a", b"a")
    async with following(real_stage, 0, "NARROW") as messages:
        await soon(anext(messages))
        async with following(real_stage, 0, "NARROW") as more:
            with pytest.raises(LimitReached, match="maximum consumers limit reached"):
                await soon(anext(more))

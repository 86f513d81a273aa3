"""Deliveries: taking, waiting, and every way to end one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.contract.stage import ACK_WAIT, soon
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.broker.port import ConsumerInfo, Delivery, Pulls
    from tests.contract.stage import Stage

pytestmark = pytest.mark.anyio


async def info_of(stage: Stage) -> ConsumerInfo:
    (info,) = await stage.broker.consumer_infos(stage.tasks)
    return info


async def start_waiting(stage: Stage, pulls: Pulls) -> asyncio.Task[Delivery]:
    """Wait in the background, and return once the server knows of it."""
    task = asyncio.create_task(pulls.wait())

    async def is_known() -> bool:
        return (await info_of(stage)).waiting == 1

    await wait_until(is_known, 5, "the pull to reach the server")
    return task


def ids(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


# take


async def test_take_of_an_empty_queue_returns_at_once(stage: Stage) -> None:
    pulls = await stage.queue()

    assert await soon(pulls.take(16)) == []


async def test_take_returns_what_is_there_and_never_more_than_asked_for(stage: Stage) -> None:
    pulls = await stage.queue()
    for number in range(5):
        await stage.send(f"d{number}")

    await stage.offers(5)
    first = await pulls.take(3)
    second = await pulls.take(3)
    third = await pulls.take(3)

    assert ids(first) == [b"d0", b"d1", b"d2"]
    assert ids(second) == [b"d3", b"d4"]
    assert third == []


async def test_a_take_of_fewer_than_asked_for_returns_at_once(stage: Stage) -> None:
    pulls = await stage.queue()
    await stage.send("d1")
    await stage.offers(1)

    assert ids(await soon(pulls.take(100))) == [b"d1"]


async def test_a_large_backlog_is_taken_completely(stage: Stage) -> None:
    pulls = await stage.queue()
    await asyncio.gather(*(stage.send(f"d{number}") for number in range(500)))

    await stage.offers(500)
    taken = [*await pulls.take(400), *await pulls.take(400)]

    assert sorted(ids(taken)) == sorted(f"d{number}".encode() for number in range(500))


async def test_a_delivery_says_where_it_comes_from(stage: Stage) -> None:
    pulls = await stage.queue()
    await stage.send("d0", queue="other")
    sequence = await stage.send("d1")
    stored = await stage.broker.last(stage.tasks, stage.names.task("default", "d1"))

    delivery = await soon(pulls.wait())

    assert stored is not None
    assert delivery.subject == stage.names.task("default", "d1")
    assert delivery.body == b"d1"
    assert delivery.stream_sequence == sequence
    assert delivery.num_delivered == 1
    assert delivery.at == pytest.approx(stored.at, abs=0.001)


async def test_two_queues_do_not_see_each_others_messages(stage: Stage) -> None:
    a, b = await stage.queue("a"), await stage.queue("b")
    await stage.send("d1", queue="a")
    await stage.send("d2", queue="b")

    await stage.offers(1, "a")
    await stage.offers(1, "b")
    assert ids(await b.take(5)) == [b"d2"]
    assert ids(await a.take(5)) == [b"d1"]


async def test_two_workers_of_a_queue_share_its_messages(stage: Stage) -> None:
    one = await stage.queue()
    two = await stage.pulls(await stage.another())
    for number in range(4):
        await stage.send(f"d{number}")

    await stage.offers(4)
    taken = [*await one.take(2), *await two.take(10)]

    assert sorted(ids(taken)) == [b"d0", b"d1", b"d2", b"d3"]


async def test_messages_wait_for_a_queue_that_has_no_consumer_yet(stage: Stage) -> None:
    await stage.send("d1")

    pulls = await stage.queue()

    await stage.offers(1)
    assert ids(await pulls.take(1)) == [b"d1"]


async def test_more_than_a_thousand_messages_may_be_in_flight(stage: Stage) -> None:
    """NATS's default of `max_ack_pending` would stop at 1000 running tasks."""
    pulls = await stage.queue()
    await asyncio.gather(*(stage.send(f"d{number}") for number in range(1010)))

    await stage.offers(1010)
    taken = [*await pulls.take(1000), *await pulls.take(1000)]

    assert len(taken) == 1010


# wait


async def test_wait_returns_what_is_there(stage: Stage) -> None:
    pulls = await stage.queue()
    await stage.send("d1")

    assert (await soon(pulls.wait())).body == b"d1"


async def test_wait_gets_a_message_that_is_published_later(stage: Stage) -> None:
    pulls = await stage.queue()
    waiting = await start_waiting(stage, pulls)

    await stage.send("d1")

    assert (await soon(waiting, 1.0)).body == b"d1"


@pytest.mark.parametrize("way", ["remove", "purge"])
async def test_wait_gets_the_room_that_removed_messages_leave(stage: Stage, way: str) -> None:
    """A full consumer's room, where an executor or a person removes messages that are in flight."""
    limited = stage.consumer_config("default", ack_wait=30.0) | {"max_ack_pending": 2}
    await stage.broker.create_consumer(stage.tasks, limited)
    pulls = await stage.pulls(stage.broker)
    for number in range(4):
        await stage.send(f"d{number}")
    await stage.offers(4)
    assert ids(await pulls.take(2)) == [b"d0", b"d1"]
    waiting = await start_waiting(stage, pulls)

    for number in range(2):
        subject = stage.names.task("default", f"d{number}")
        await getattr(stage.broker, way)(stage.tasks, subject)

    assert (await soon(waiting, 30.0)).body == b"d2"


async def test_wait_may_be_called_again_and_again(stage: Stage) -> None:
    pulls = await stage.queue()

    for number in range(20):
        waiting = asyncio.create_task(pulls.wait())
        await stage.send(f"d{number}")
        delivery = await soon(waiting)
        assert delivery.body == f"d{number}".encode()
        await delivery.ack()


async def test_wait_and_take_do_not_disturb_each_other(stage: Stage) -> None:
    pulls = await stage.queue()
    waiting = await start_waiting(stage, pulls)

    assert await pulls.take(5) == []
    await stage.send("d1")
    delivery = await soon(waiting, 1.0)
    await stage.send("d2")

    await stage.offers(1)
    assert ids([delivery, *await pulls.take(5)]) == [b"d1", b"d2"]


async def test_a_cancelled_wait_loses_nothing(stage: Stage) -> None:
    """Another worker gets the message at once, not after `ack_wait`, which is 30 s here."""
    waiting = await start_waiting(stage, await stage.queue())
    other = await stage.pulls(await stage.another())

    waiting.cancel()
    await asyncio.wait([waiting])
    await stage.send("d1")

    assert (await soon(other.wait(), 2.0)).body == b"d1"


@pytest.mark.parametrize("turns", range(6))
async def test_a_wait_that_is_cancelled_while_a_message_comes_loses_nothing(
    stage: Stage, turns: int
) -> None:
    """The waiter or another worker has it soon."""
    waiting = await start_waiting(stage, await stage.queue())
    other = await stage.pulls(await stage.another())

    sending = asyncio.create_task(stage.send("d1"))
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting, sending])

    if waiting.cancelled():
        assert (await soon(other.wait(), 2.0)).body == b"d1"
    else:
        assert waiting.result().body == b"d1"


async def test_a_wait_after_a_cancelled_one_gets_the_next_message_once(stage: Stage) -> None:
    pulls = await stage.queue()
    waiting = await start_waiting(stage, pulls)
    waiting.cancel()
    await asyncio.wait([waiting])

    await stage.send("d1")
    delivery = await soon(pulls.wait())
    await delivery.ack()

    assert delivery.body == b"d1"
    assert await pulls.take(5) == []
    assert (await info_of(stage)).in_flight == 0


async def test_closed_pulls_leave_the_messages_to_others(stage: Stage) -> None:
    pulls = await stage.queue()
    waiting = await start_waiting(stage, pulls)
    other = await stage.pulls(await stage.another())
    waiting.cancel()
    await asyncio.wait([waiting])
    await pulls.close()

    await stage.send("d1")

    assert (await soon(other.wait(), 2.0)).body == b"d1"


# How a delivery ends


async def test_ack_removes_the_message(stage: Stage) -> None:
    pulls = await stage.queue()
    await stage.send("d1")
    delivery = await soon(pulls.wait())

    await delivery.ack()

    info = await stage.broker.stream_info(stage.tasks)
    assert info is not None
    assert info.messages == 0
    assert (await info_of(stage)).in_flight == 0


async def test_acking_twice_is_fine(stage: Stage) -> None:
    pulls = await stage.queue()
    await stage.send("d1")
    delivery = await soon(pulls.wait())

    await delivery.ack()
    await delivery.ack()


async def test_a_naked_message_is_offered_again_at_once(stage: Stage) -> None:
    pulls = await stage.queue()
    await stage.send("d1")
    delivery = await soon(pulls.wait())

    await delivery.nak()

    again = await soon(pulls.wait(), 1.0)
    assert again.body == b"d1"
    assert again.num_delivered == 2
    assert again.stream_sequence == delivery.stream_sequence


async def test_a_naked_message_goes_before_new_ones(stage: Stage) -> None:
    pulls = await stage.queue()
    for dispatch_id in ("d1", "d2", "d3"):
        await stage.send(dispatch_id)
    delivery = await soon(pulls.wait())

    await delivery.nak()

    assert (await soon(pulls.wait())).body == b"d1"


async def test_a_naked_message_is_offered_again_after_its_delay(stage: Stage) -> None:
    pulls = await stage.queue(ack_wait=30)
    await stage.send("d1")
    delivery = await soon(pulls.wait())

    await delivery.nak(0.6)

    await stage.elapse(0.3)
    assert await pulls.take(1) == []
    await stage.elapse(0.3)
    assert (await soon(pulls.wait(), 1.0)).num_delivered == 2


async def test_a_terminated_message_is_gone(stage: Stage) -> None:
    pulls = await stage.queue(ack_wait=ACK_WAIT)
    await stage.send("d1")
    delivery = await soon(pulls.wait())

    await delivery.term("undecodable")

    assert await stage.broker.scan(stage.tasks, stage.names.tasks()) == []
    assert (await info_of(stage)).in_flight == 0


async def test_a_silent_worker_loses_its_message_after_ack_wait(stage: Stage) -> None:
    pulls = await stage.queue(ack_wait=ACK_WAIT)
    other = await stage.pulls(await stage.another())
    await stage.send("d1")
    await soon(pulls.wait())

    await stage.elapse(ACK_WAIT / 2)
    assert await other.take(1) == []
    await stage.elapse(ACK_WAIT / 2)
    again = await soon(other.wait(), ACK_WAIT)

    assert (again.body, again.num_delivered) == (b"d1", 2)
    assert (await info_of(stage)).redelivered == 1


async def test_in_progress_starts_ack_wait_anew(stage: Stage) -> None:
    pulls = await stage.queue(ack_wait=ACK_WAIT)
    other = await stage.pulls(await stage.another())
    await stage.send("d1")
    delivery = await soon(pulls.wait())

    for _ in range(4):
        await stage.elapse(ACK_WAIT / 2)
        await delivery.in_progress()
    assert await other.take(1) == []

    await stage.elapse(ACK_WAIT)
    assert (await soon(other.wait(), ACK_WAIT)).num_delivered == 2


async def test_the_first_workers_late_ack_ends_a_redelivered_message(stage: Stage) -> None:
    """An ack proves no ownership: that is what the claim is for."""
    pulls = await stage.queue(ack_wait=ACK_WAIT)
    other = await stage.pulls(await stage.another())
    await stage.send("d1")
    delivery = await soon(pulls.wait())
    await stage.elapse(ACK_WAIT)
    again = await soon(other.wait())

    await delivery.ack()
    await again.ack()

    assert await stage.broker.scan(stage.tasks, stage.names.tasks()) == []

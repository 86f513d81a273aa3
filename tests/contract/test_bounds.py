"""Bounds of what a caller reads, when more was stored than any writer should have written."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import pytest

from nats_executor.broker import gets, reading
from nats_executor.errors import BrokerUnavailable
from nats_executor.wire.names import Verb
from nats_executor.wire.sizes import ANSWER_BYTES, QUESTION_BYTES
from tests.contract.stage import soon
from tests.support import fake_broker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from nats_executor.broker.port import Stored
    from tests.contract.stage import Stage

pytestmark = pytest.mark.anyio

LARGEST = 100


async def report(stage: Stage, *sizes: int) -> list[str]:
    """Publish reports of these sizes, and return their subjects."""
    subjects = [stage.names.result("q", f"d{n}") for n in range(len(sizes))]
    for subject, size in zip(subjects, sizes, strict=True):
        await stage.broker.publish(subject, bytes(size))
    return subjects


def sizes(messages: list[Stored]) -> list[int]:
    return [len(message.body) for message in messages]


async def followed(stage: Stage, count: int, largest: int = LARGEST) -> list[Stored]:
    messages = stage.broker.follow(stage.results, after=0, largest=largest)
    async with aclosing(cast("AsyncGenerator[Stored, None]", messages)):
        return [await soon(anext(messages)) for _ in range(count)]


async def test_a_larger_body_is_cut_one_byte_after_its_bound(stage: Stage) -> None:
    subjects = await report(stage, 99, 100, 101, 1000)
    cut = [99, 100, 101, 101]

    assert sizes(await stage.broker.scan(stage.results, f"{stage.names.prefix}.results.>",
                                         largest=LARGEST)) == cut  # fmt: skip
    found = await stage.broker.last_of_each(stage.results, subjects, largest=LARGEST)
    assert sorted(sizes(found)) == cut
    assert sizes(await followed(stage, 4)) == cut
    assert await stage.broker.occupied(stage.results, subjects) == set(subjects)


async def test_following_passes_by_what_is_larger_than_a_whole_batch(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FOLLOW_BYTES", 600)
    wanted = [1, 900, 2, 3, 900, 900, 4, *range(100, 120), 900]
    await report(stage, *wanted)

    found = await followed(stage, len(wanted), largest=1000)

    assert sizes(found) == wanted
    assert [message.sequence for message in found] == list(range(1, len(wanted) + 1))


async def test_a_batch_of_a_reader_is_bounded(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow its caller is, no more is on the way to it."""
    monkeypatch.setattr(reading, "FOLLOW_BYTES", 5000)
    await report(stage, *[900] * 50)
    messages = stage.broker.follow(stage.results, after=0, largest=1000)
    async with aclosing(cast("AsyncGenerator[Stored, None]", messages)):
        await soon(anext(messages))

        if monitored := getattr(getattr(stage, "server", None), "monitor", None):
            # What the server has sent: of all, at most a batch.
            [stream] = [
                s
                for account in monitored("/jsz?consumers=1&accounts=1")["account_details"]
                for s in account["stream_detail"]
                if s["name"] == stage.results
            ]
            [reader] = stream["consumer_detail"]
            assert 1 <= reader["delivered"]["consumer_seq"] <= 5
        assert sizes([await soon(anext(messages)) for _ in range(49)]) == [900] * 49


async def test_a_scan_ends_somewhere(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gets, fake_broker):
        monkeypatch.setattr(module, "MOST_RECORDS", 10)
        monkeypatch.setattr(module, "MOST_RECORD_BYTES", 5000)
    everything = f"{stage.names.prefix}.results.>"
    await report(stage, *[20] * 11)

    assert len(await stage.broker.scan(stage.results, everything)) == 10

    await report(stage, *[900] * 9)  # in the place of the first ones
    found = await stage.broker.scan(stage.results, everything)
    assert sizes(found) == [20, 20, 900, 900, 900, 900, 900]


async def test_an_answer_that_is_too_large_is_none(stage: Stage) -> None:
    async def answer(question: bytes) -> bytes:
        return bytes(int(question))

    subject = stage.names.control("w1", Verb.PING)
    await stage.broker.serve(subject, answer)

    largest = str(ANSWER_BYTES).encode()
    assert len(await stage.broker.request(subject, largest, timeout=5)) == ANSWER_BYTES
    with pytest.raises(BrokerUnavailable, match=f"an answer of {ANSWER_BYTES + 1} bytes"):
        await stage.broker.request(subject, str(ANSWER_BYTES + 1).encode(), timeout=5)


async def test_of_a_question_that_is_too_large_the_beginning_comes(stage: Stage) -> None:
    asked: asyncio.Queue[int] = asyncio.Queue()

    async def answer(question: bytes) -> bytes:
        asked.put_nowait(len(question))
        return b""

    subject = stage.names.control("w1", Verb.PING)
    await stage.broker.serve(subject, answer)

    for size in (QUESTION_BYTES, QUESTION_BYTES + 1, 2 * QUESTION_BYTES):
        await stage.broker.request(subject, bytes(size), timeout=5)

    assert [asked.get_nowait() for _ in range(3)] == [QUESTION_BYTES, *[QUESTION_BYTES + 1] * 2]

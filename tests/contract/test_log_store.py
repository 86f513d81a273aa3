"""Task logs in their bucket: whole or not there, whatever breaks off, and on whichever broker."""

from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING, Any

import nats  # noqa: TID251 - what others read it with
import pytest

from nats_executor.errors import BrokerUnavailable, NatsExecutorError
from nats_executor.logs import store
from nats_executor.topology import setup
from nats_executor.wire.log_parts import CHUNK_BYTES, STORED_BYTES, Part, beginning, part_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.broker.port import Broker, Outgoing
    from nats_executor.errors import BrokerError
    from tests.contract.stage import RealStage, Stage

pytestmark = pytest.mark.anyio

QUEUE = "größe"
PATH = "dag_id=a/run_id=manual__2026-01-01T00:00:00+00:00/task_id=t/attempt=1.log"


class Dying:
    """A broker whose user is killed in the middle of its n-th batch of messages."""

    def __init__(self, broker: Broker, after: int) -> None:
        self.broker = broker
        self.left = after

    async def publish_all(
        self, messages: Sequence[Outgoing], *, timeout: float
    ) -> list[BrokerError | None]:
        self.left -= 1
        if self.left < 0:
            await self.broker.publish_all(messages[: len(messages) // 2], timeout=timeout)
            raise InterruptedError
        return await self.broker.publish_all(messages, timeout=timeout)


class Stuttering:
    """A broker that takes every other message, at first."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.batches = 0

    async def publish_all(
        self, messages: Sequence[Outgoing], *, timeout: float
    ) -> list[BrokerError | None]:
        self.batches += 1
        taken = messages[::2] if self.batches % 2 else messages
        await self.broker.publish_all(taken, timeout=timeout)
        lost = BrokerUnavailable("no answer")
        return [None if message in taken else lost for message in messages]


class Bucket:
    """The bucket of a stage, with what one does to it."""

    def __init__(self, stage: Stage, **options: Any) -> None:
        self.stage = stage
        self.broker = stage.broker
        self.settings = dataclasses.replace(stage.settings, stores_logs=True, **options)
        self.names = self.settings.names

    async def build(self) -> Bucket:
        await setup.apply(self.broker, self.settings, [])
        return self

    async def put(self, data: bytes, path: str = PATH, *, broker: Any = None) -> Part | None:
        with io.BytesIO(data) as file:
            return await store.put(broker or self.broker, self.names, QUEUE, path, file)

    async def put_and_die(self, data: bytes, after: int) -> None:
        with pytest.raises(InterruptedError):
            await self.put(data, broker=Dying(self.broker, after))

    async def parts(self, path: str = PATH, queue: str = QUEUE) -> list[Part]:
        return (await store.find(self.broker, self.names, queue, path)).parts

    async def read(self, part: Part, path: str = PATH) -> list[bytes | None]:
        return await store.chunks(self.broker, self.names, QUEUE, path, part, part.numbers)

    async def text(self, path: str = PATH) -> bytes:
        """The one part of a log."""
        [part] = await self.parts(path)
        return b"".join(body or b"(gone)" for body in await self.read(part, path))


@pytest.fixture
async def bucket(bare_stage: Stage) -> Bucket:
    return await Bucket(bare_stage).build()


def log(size: int, first: str = "first") -> bytes:
    """Lines that all differ, so that no two chunks are the same."""
    lines = [f"{first} line\n"]
    lines += [f"{first} {number}\n" for number in range(size // 8)]
    return "".join(lines).encode()[:size]


LONG = log(3 * CHUNK_BYTES + 100)
LONGER = log(10 * CHUNK_BYTES + 5)  # more than one batch
assert LONGER.startswith(LONG)


@pytest.mark.parametrize(
    "size", [1, 100, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, len(LONGER)]
)
async def test_a_log_is_read_as_it_was_stored(bucket: Bucket, size: int) -> None:
    await bucket.put(LONGER[:size])

    assert await bucket.text() == LONGER[:size]


async def test_nothing_is_stored_of_an_empty_log(bucket: Bucket) -> None:
    assert await bucket.put(b"") is None
    assert await bucket.parts() == []


async def test_a_log_that_has_grown_takes_its_own_place(bucket: Bucket) -> None:
    await bucket.put(LONG)
    await bucket.put(LONGER)
    await bucket.put(LONGER)

    assert await bucket.text() == LONGER


async def test_what_another_worker_has_stands_beside_it(bucket: Bucket) -> None:
    await bucket.put(log(100, "on one"))
    await bucket.put(log(100, "on another"))
    await bucket.put(log(200, "on one"))

    parts = await bucket.parts()
    bodies = {b"".join(body or b"" for body in await bucket.read(part)) for part in parts}
    assert bodies == {log(200, "on one"), log(100, "on another")}


async def test_logs_of_other_tasks_and_queues_are_others(bucket: Bucket) -> None:
    await bucket.put(LONG)

    assert await bucket.parts(path="attempt=2.log") == []
    assert await bucket.parts(queue="default") == []


@pytest.mark.parametrize("after", [0, 1, 2])
async def test_of_an_upload_that_breaks_off_nothing_can_be_read(bucket: Bucket, after: int) -> None:
    await bucket.put_and_die(LONGER, after)

    # The record goes last but one, and the last one is for the tools of NATS.
    assert len(await bucket.parts()) == (after == 2)


@pytest.mark.parametrize("after", [0, 1])
async def test_what_was_there_stays_when_a_later_upload_breaks_off(
    bucket: Bucket, after: int
) -> None:
    await bucket.put(LONG)
    await bucket.put_and_die(LONGER, after)
    assert await bucket.text() == LONG

    await bucket.put(LONGER)
    assert await bucket.text() == LONGER


async def test_what_the_broker_did_not_take_is_sent_again(bucket: Bucket) -> None:
    stuttering = Stuttering(bucket.broker)

    await bucket.put(LONGER, broker=stuttering)

    assert stuttering.batches == 6
    assert await bucket.text() == LONGER


async def test_the_digest_is_that_of_what_is_stored(bucket: Bucket) -> None:
    part = await bucket.put(LONG)

    assert [part] == await bucket.parts()


async def test_of_a_log_without_end_the_end_is_stored(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nats_executor.logs.store.STORED_BYTES", 2 * CHUNK_BYTES)

    part = await bucket.put(LONGER)

    assert part is not None
    assert part.start == 9 * CHUNK_BYTES
    assert await bucket.text() == LONGER[part.start :]


def test_where_a_long_log_begins() -> None:
    assert beginning(STORED_BYTES, most=STORED_BYTES, step=CHUNK_BYTES) == 0
    assert beginning(STORED_BYTES + 1, most=STORED_BYTES, step=CHUNK_BYTES) == CHUNK_BYTES
    assert beginning(STORED_BYTES + CHUNK_BYTES, most=STORED_BYTES, step=CHUNK_BYTES) == CHUNK_BYTES


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b"[]", b'{"metadata": {}, "digest": 1}'])
async def test_a_record_that_is_none_is_counted(bucket: Bucket, body: bytes) -> None:
    await bucket.broker.publish(bucket.names.log_part(QUEUE, PATH, "a" * 16), body)

    found = await store.find(bucket.broker, bucket.names, QUEUE, PATH)

    assert found == ([], 1)


async def test_a_record_says_nothing_about_another_part(bucket: Bucket) -> None:
    await bucket.put(LONG)
    names = bucket.names
    mine = names.log_part(QUEUE, PATH, part_id(LONG))
    record = await bucket.broker.last(names.logs_stream, mine)
    assert record is not None

    await bucket.broker.publish(names.log_part(QUEUE, PATH, "0" * 16), record.body)

    found = await store.find(bucket.broker, names, QUEUE, PATH)
    assert len(found.parts) == found.unreadable == 1


async def test_names_for_tools_change_nothing_that_is_shown(bucket: Bucket) -> None:
    """Every worker may write them."""
    await bucket.put(LONG)

    for message in await bucket.broker.scan(bucket.names.logs_stream, bucket.names.log_names()):
        await bucket.broker.publish(message.subject, b"somebody else's")

    assert await bucket.text() == LONG


async def test_without_a_bucket_it_is_an_error(bare_stage: Stage) -> None:
    bucket = Bucket(bare_stage)

    with pytest.raises(NatsExecutorError, match=r"stream|no answer"):
        await bucket.parts()


# On real servers


@pytest.fixture
async def real_bucket(real_stage: RealStage) -> Bucket:
    return await Bucket(real_stage, max_log_bucket_bytes=2_000_000).build()


@pytest.mark.integration
async def test_a_full_bucket_drops_the_oldest_logs(real_bucket: Bucket) -> None:
    for number in range(20):
        await real_bucket.put(LONG, f"{number}.log")

    assert await real_bucket.text("19.log") == LONG
    assert await real_bucket.parts("0.log") == []
    info = await real_bucket.broker.stream_info(real_bucket.names.logs_stream)
    assert info is not None
    assert info.bytes <= 2_000_000


@pytest.mark.integration
async def test_no_header_of_a_worker_removes_what_others_stored(real_bucket: Bucket) -> None:
    """NATS's own object stores allow a message that removes all the others."""
    await real_bucket.put(LONG)

    with pytest.raises(NatsExecutorError):
        await real_bucket.broker.publish(
            real_bucket.names.log_chunk(QUEUE, PATH, "x", 0), b"", headers={"Nats-Rollup": "all"}
        )

    assert await real_bucket.text() == LONG


@pytest.mark.integration
@pytest.mark.parametrize("path", [PATH, "x" * 3000])
async def test_the_tools_of_nats_can_read_it(
    real_bucket: Bucket, real_stage: RealStage, path: str
) -> None:
    await real_bucket.put(LONG, path)
    await real_bucket.put(LONGER, path)

    client = await nats.connect(real_stage.server.url)
    try:
        bucket = await client.jetstream().object_store(real_bucket.names.logs_bucket)
        [listed] = await bucket.list()
        assert listed.name in {f"{path}/{part_id(LONG)}", part_id(LONG)}
        found = await bucket.get(listed.name)
    finally:
        await client.close()

    assert found.data == LONGER

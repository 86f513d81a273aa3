"""A worker's login of queue `a` writes the largest and the most that it may; the rest works on.

The streams have no limits of their own here: what reads them has. How much memory and time it
takes is printed by `python -m tests.attacks.readers`; here is what decides that.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections import Counter
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from nats_executor.broker.connection import connect
from nats_executor.fleet.liveness import Holder, Liveness, PingResult
from nats_executor.fleet.workers import seen_workers
from nats_executor.logs import ended, store
from nats_executor.logs.running import TaskLogs
from nats_executor.scheduler.dispatcher import Dispatcher
from nats_executor.scheduler.inspector import Inspector
from nats_executor.scheduler.reports import Mailbox
from nats_executor.scheduler.telemetry import Telemetry
from nats_executor.wire.messages import Presence, decode, encode
from nats_executor.wire.names import Lane, Verb
from nats_executor.wire.sizes import LOG_ENTRY_BYTES, MOST_RECORDS, PRESENCE_BYTES, REPORT_BYTES
from nats_worker.control.presence import Announcer
from tests.attacks import burdens
from tests.attacks.burdens import LAST, MAX_PAYLOAD, PATH
from tests.remedies.lines import LINES
from tests.support.user_stage import NAMES, ROOT_USER
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nats_executor.broker.jetstream import JetStream
    from tests.attacks.conftest import MakeUserStage
    from tests.support.user_stage import UserStage

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

COUNT = 4  # of 8 MB each, on three servers


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(name="open_user_stage")
async def open_user_stage_fixture(make_user_stage: MakeUserStage) -> UserStage:
    """Servers that take 8 MB, and streams that take all that their servers do."""
    user_stage = await asyncio.to_thread(lambda: make_user_stage(config=MAX_PAYLOAD))
    await burdens.unlimited(user_stage)
    return user_stage


@asynccontextmanager
async def as_user(user_stage: UserStage, user: str) -> AsyncIterator[JetStream]:
    async with connect(user_stage.settings(user), role="test") as broker:
        await broker.ready(10)
        yield broker


@pytest.fixture(name="decoded")
def decoded_fixture(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all that was decoded."""
    sizes: list[int] = []
    unpackb, loads = msgpack.unpackb, json.loads

    def unpack(body: bytes, **options: Any) -> Any:
        sizes.append(len(body))
        return unpackb(body, **options)

    def load(body: bytes) -> Any:
        sizes.append(len(body))
        return loads(body)

    monkeypatch.setattr(msgpack, "unpackb", unpack)
    own = SimpleNamespace(loads=load, dumps=json.dumps)
    monkeypatch.setattr("nats_executor.wire.log_parts.json", own)
    return sizes


async def test_a_scheduler_reads_the_reports_of_others(
    open_user_stage: UserStage, decoded: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    async with as_user(open_user_stage, "worker_a") as worker:
        await burdens.large_reports(worker, COUNT)
        await burdens.many_reports(worker, 2500)
        await burdens.large_reports(worker, 1)
    async with as_user(open_user_stage, "worker_b") as worker:
        last = encode(burdens.report(LAST, "b"))
        await worker.publish(NAMES.result("b", LAST), last, timeout=30)
    dispatcher = Dispatcher(open_user_stage.settings("scheduler"), "s1")
    dispatcher._streams.read_after = 0
    reports = dispatcher.mailbox.reports

    running = asyncio.create_task(dispatcher.run())
    try:
        await wait_until(lambda: reports and reports[-1].dispatch_id == LAST, 60, "the last one")
    finally:
        running.cancel()
        await asyncio.wait([running])

    # The last large one took the place of the first one.
    assert len(reports) == 2500 + 1
    assert max(decoded) <= REPORT_BYTES
    refused = [r.getMessage() for r in caplog.records if "unreadable report" in r.getMessage()]
    assert len(refused) == COUNT
    subjects = [text.split()[3].rstrip(":") for text in refused]
    assert refused == [LINES["large report"].format(subject=subject) for subject in subjects]


async def test_workers_are_seen_among_records_of_8_mb(
    open_user_stage: UserStage, decoded: list[int]
) -> None:
    honest = encode(burdens.presence("honest", "b"))
    async with as_user(open_user_stage, "worker_a") as worker:
        await burdens.large_records(worker, COUNT)
    async with as_user(open_user_stage, "worker_b") as worker:
        await worker.publish(NAMES.presence("b", "honest"), honest)
    settings = open_user_stage.settings("scheduler")
    async with as_user(open_user_stage, "scheduler") as broker:
        seen = await seen_workers(broker, settings)
        reading = await Telemetry(settings)._read(lambda: broker)
        honest_one = Holder("honest.1", "honest", "b")
        evil = [Holder(f"evil{n}.1", f"evil{n}", "a") for n in range(COUNT)]
        lost = await Liveness(broker, settings).lost([honest_one, *evil])
    logs = TaskLogs(lambda: open_user_stage.settings("api_server"))
    try:
        _, [remark] = await asyncio.to_thread(logs.read, "d1", "b")
    finally:
        await asyncio.to_thread(logs.close)

    assert [worker.presence.name for worker in seen] == ["honest"]
    assert reading.workers.total() == 1
    assert honest_one not in lost
    assert "no worker says that it runs this task; no answer from honest" in remark
    assert max(decoded) <= PRESENCE_BYTES


async def test_a_worker_starts_where_a_record_of_8_mb_has_its_name(
    open_user_stage: UserStage, decoded: list[int]
) -> None:
    mine = burdens.presence("evil0", "a")
    async with as_user(open_user_stage, "worker_a") as worker:
        await burdens.large_records(worker, 1)
    async with as_user(open_user_stage, "worker_a") as broker:
        await Announcer(broker, open_user_stage.settings("worker_a"), lambda: mine).claim_name()
        found = await broker.last(NAMES.workers_stream, NAMES.presence("a", "evil0"))

    assert found is not None
    assert decode(Presence, found.body) == mine
    assert max(decoded) <= PRESENCE_BYTES


async def test_there_is_an_end_to_a_look_at_any_number_of_records(
    open_user_stage: UserStage, caplog: pytest.LogCaptureFixture
) -> None:
    async with as_user(open_user_stage, "worker_a") as worker:
        await burdens.many_records(worker, MOST_RECORDS + 100)
    settings = open_user_stage.settings("scheduler")
    async with as_user(open_user_stage, "scheduler") as broker:
        for _ in range(2):
            seen = await seen_workers(broker, settings)
            assert len(seen) == MOST_RECORDS

    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    line = LINES["too many records"].format(bucket=NAMES.workers_stream, keys=NAMES.presences())
    assert [text for text in said if "more under" in text] == [line]


async def test_any_number_of_records_hides_no_worker_of_another_queue_from_the_scheduler(
    open_user_stage: UserStage,
) -> None:
    """Its tasks would be taken back and in the end fail: no worker seems to serve them."""
    async with as_user(open_user_stage, "worker_a") as worker:
        await burdens.many_records(worker, MOST_RECORDS + 100)
    async with as_user(open_user_stage, "worker_b") as worker:
        await worker.publish(NAMES.presence("b", "honest"), encode(burdens.presence("honest", "b")))
    async with as_user(open_user_stage, "scheduler") as broker:
        settings = open_user_stage.settings("scheduler")
        inspector = Inspector(settings, "s1", lambda: broker, Mailbox(settings.names))

        await inspector._warn_of_unserved(broker, Counter({Lane("b"): 1, Lane("c"): 1}))

    assert inspector.unserved == {Lane("c")}


async def test_an_answer_of_8_mb_is_none(open_user_stage: UserStage, decoded: list[int]) -> None:
    """One login may answer in another worker's stead; see docs/explanation/security.md."""

    async def answer(_: bytes) -> bytes:
        return burdens.filler({"v": 1})

    async with (
        as_user(open_user_stage, "worker_a") as evil,
        as_user(open_user_stage, "scheduler") as broker,
    ):
        await evil.serve(NAMES.control("evil.1", Verb.PING), answer)
        settings = open_user_stage.settings("scheduler")

        found = await Liveness(broker, settings).ask("evil.1", b"d1")

    assert found == (PingResult.SILENT, b"")
    assert decoded == []


async def test_logs_of_others_are_shown_and_a_flooded_one_as_what_it_is(
    open_user_stage: UserStage, decoded: list[int], tmp_path: Path
) -> None:
    async with as_user(open_user_stage, "worker_a") as worker:
        await burdens.large_log_records(worker, COUNT)
    async with as_user(open_user_stage, "worker_b") as worker:
        text = b"".join(b"line %d\n" % n for n in range(50_000))
        await store.put(worker, NAMES, "b", PATH, io.BytesIO(text))
    logs = ended.StoredLogs(tmp_path, deletes=False)
    logs.__dict__["_settings"] = open_user_stage.settings("api_server")

    def read(queue: str) -> list[str]:
        _, parts = logs.stream(PATH, SimpleNamespace(queue=queue))
        return [line for part in parts for line in part]

    try:
        own = await asyncio.to_thread(read, "b")
        [remark] = await asyncio.to_thread(read, "a")
    finally:
        await asyncio.to_thread(logs._connections.close)

    assert own == text.decode().splitlines()
    assert f"{COUNT} parts of {PATH}" in remark
    assert max(decoded) <= LOG_ENTRY_BYTES


async def test_few_of_many_large_messages_are_held_at_a_time(open_user_stage: UserStage) -> None:
    """What a caller has no use for is cut as it comes."""
    async with as_user(open_user_stage, "worker_a") as worker:
        await burdens.large_reports(worker, COUNT)
    subjects = [NAMES.result("a", f"large{n}") for n in range(COUNT)]
    async with as_user(open_user_stage, ROOT_USER) as root:
        stream = NAMES.results_stream
        each = await root.last_of_each(stream, subjects, largest=100)
        scanned = await root.scan(stream, NAMES.results(), largest=100)
        followed = []
        async for message in root.follow(stream, after=0, largest=100):
            followed.append(message)
            if len(followed) == COUNT:
                break

    for found in (each, scanned, followed):
        assert [message.subject for message in found] == subjects
        assert [len(message.body) for message in found] == [101] * COUNT

"""Who lives: the records of workers, and the question to them."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_executor import liveness as liveness_module
from nats_executor import topology
from nats_executor.liveness import Answer, Liveness, is_lost
from nats_executor.messages import Presence, decode, encode
from nats_worker.presence import Announcer, NameTaken
from tests.support.fake_broker import FakeServer
from tests.support.fixtures import settings_for
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio

SETTINGS = settings_for("nats://127.0.0.1:4222", heartbeat_seconds=0.02, worker_lost_seconds=10)
NAMES = SETTINGS.names
RECORD = NAMES.presence("w")


def record(worker: str = "w.1") -> Presence:
    return Presence(
        worker=worker, name="w", host="host-7", pid=7, queues=["default"], concurrency=2,
        running=0, draining=False, started_at=0.0, at=0.0, version="1",
    )  # fmt: skip


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness_module, "PING_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(liveness_module, "PING_SECONDS", 0.02)


@pytest.fixture
async def server() -> FakeServer:
    server = FakeServer(monotonic=lambda: -1e9)
    server.now = time.time()
    await topology.apply(server.broker(), SETTINGS, [])
    return server


def announcer(server: FakeServer, worker: str = "w.1") -> Announcer:
    return Announcer(server.broker(), SETTINGS, lambda: record(worker))


def stored(server: FakeServer) -> Presence | None:
    found = server.stream(NAMES.workers_stream).last(RECORD)
    return decode(Presence, found.body) if found and found.body else None


# Liveness


@given(
    st.sampled_from(Answer),
    st.floats(min_value=0, allow_nan=False),
    st.floats(allow_nan=False),
)
def test_one_sign_of_life_is_enough(answer: Answer, age: float, connected: float) -> None:
    lost = is_lost(answer=answer, record_age=age, connected_for=connected, lost_after_seconds=10)

    limits = {Answer.ALIVE: math.inf, Answer.SILENT: 20, Answer.NOBODY: 10}
    assert lost == (min(age, connected) > limits[answer])


async def test_an_answer_is_enough(server: FakeServer) -> None:
    worker = server.broker()
    await worker.serve(NAMES.control("w.1", "ping"), echo)

    assert await Liveness(server.broker(), SETTINGS).lost({"w.1": "w", "x.1": "x"}) == {"x.1"}


async def test_another_worker_asks_on_a_subject_of_its_own(server: FakeServer) -> None:
    worker = server.broker()
    await worker.serve(NAMES.peer("w.1"), echo)

    assert await Liveness(server.broker(), SETTINGS, is_peer=True).ping("w.1") is Answer.ALIVE
    assert await Liveness(server.broker(), SETTINGS).ping("w.1") is Answer.NOBODY


@pytest.mark.parametrize(
    ("age", "is_alive"), [(5, True), (11, False), (None, False)], ids=["fresh", "old", "none"]
)
async def test_a_record_is_a_sign_of_life_for_a_while(
    server: FakeServer, age: int | None, is_alive: bool
) -> None:
    if age is not None:
        server.put(RECORD, encode(record()))
        server.advance(age)

    assert await Liveness(server.broker(), SETTINGS).is_alive("w.1", "w") == is_alive


@pytest.mark.parametrize("body", [b"", b"unreadable", encode(record("w.2"))])
async def test_anothers_record_is_none(server: FakeServer, body: bytes) -> None:
    """A worker of the same name has started since, or the record was deleted."""
    server.put(RECORD, body)

    assert await Liveness(server.broker(), SETTINGS).record_ages({"w.1": "w"}) == {"w.1": math.inf}


async def test_a_worker_that_was_not_subscribed_yet_is_asked_again(server: FakeServer) -> None:
    link, other = server.broker(), server.broker()
    asked = 0
    enter = link.enter

    async def enter_and_wait(method: str, *, needs_server: bool = True) -> None:
        nonlocal asked
        asked += method == "request"
        if asked == 2:
            await other.serve(NAMES.control("w.1", "ping"), echo)
        await enter(method, needs_server=needs_server)

    link.enter = enter_and_wait  # type: ignore[method-assign]

    assert await Liveness(link, SETTINGS).ping("w.1") is Answer.ALIVE
    assert asked == 2


async def echo(body: bytes) -> bytes:
    return body


async def test_a_worker_that_hangs_is_waited_for_longer(server: FakeServer) -> None:
    """Its connection is open, as that of a machine that lost its power."""
    worker = server.broker()
    await worker.serve(NAMES.control("w.1", "ping"), never)
    server.put(RECORD, encode(record()))
    liveness = Liveness(server.broker(), SETTINGS)

    server.advance(15)
    assert await liveness.lost({"w.1": "w"}) == set()
    server.advance(10)
    assert await liveness.lost({"w.1": "w"}) == {"w.1"}


async def never(_: bytes) -> bytes:
    return await asyncio.Event().wait() and b""


async def test_a_connection_that_breaks_makes_nobody_look_lost(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = server.broker()
    liveness = Liveness(link, SETTINGS)

    async def ping(_: str) -> Answer:
        link.disconnect()
        return Answer.SILENT

    monkeypatch.setattr(liveness, "ping", ping)

    assert await liveness.lost({"w.1": "w"}) == set()


# Records


async def test_a_record_is_renewed_and_in_the_end_deleted(server: FakeServer) -> None:
    mine = announcer(server)
    beating = asyncio.create_task(mine.beat_forever())
    await asyncio.sleep(0)
    assert stored(server) is None

    await mine.claim_name()
    stream = server.stream(NAMES.workers_stream)
    first = stream.last_sequence
    await wait_until(lambda: stream.last_sequence > first + 2, 5, "heartbeats")
    await mine.retire()
    last = stream.last_sequence
    await mine.beat()
    await mine.retire()

    assert stored(server) is None
    assert stream.last_sequence == last
    beating.cancel()


async def test_a_broker_that_is_away_does_not_stop_the_beat(server: FakeServer) -> None:
    mine = announcer(server)
    await mine.claim_name()

    server.stop()
    await mine.beat()
    await mine.retire()


async def test_a_name_is_taken_from_a_dead_worker(server: FakeServer) -> None:
    server.put(RECORD, encode(record("w.0")))

    await announcer(server).claim_name()

    assert stored(server) == record("w.1")


async def test_a_name_is_left_to_a_living_worker(server: FakeServer) -> None:
    await server.broker().serve(NAMES.peer("w.0"), echo)
    server.put(RECORD, encode(record("w.0")))

    with pytest.raises(NameTaken, match=r"'w' runs already on host-7 \(process 7\)"):
        await announcer(server).claim_name()

    assert stored(server) == record("w.0")


async def test_of_two_that_want_a_name_at_once_one_gets_it(server: FakeServer) -> None:
    for worker in ("w.1", "w.2"):
        await server.broker().serve(NAMES.peer(worker), echo)

    outcomes = await asyncio.gather(
        announcer(server, "w.1").claim_name(),
        announcer(server, "w.2").claim_name(),
        return_exceptions=True,
    )

    assert [type(outcome) for outcome in outcomes].count(NameTaken) == 1


async def test_an_unreadable_record_does_not_keep_a_worker_from_starting(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.put(RECORD, b"what?")

    await announcer(server).claim_name()

    assert stored(server) == record("w.1")
    assert "unreadable presence record" in caplog.text


# A record has a size


async def test_a_record_of_very_many_queues_is_cut_and_said_once(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    queues = [f"{number:04}" + "q" * 246 for number in range(1000)]
    described = dataclasses.replace(record(), queues=queues)
    announcing = Announcer(server.broker(), SETTINGS, lambda: described)

    await announcing.claim_name()
    await announcing.beat()

    found = stored(server)
    assert found is not None
    assert found.queues == queues[: len(found.queues)]
    assert 200 < len(found.queues) < 1000
    assert (
        len([line for line in caplog.messages if "names of 1000 queues are too long" in line]) == 1
    )

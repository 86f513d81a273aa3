"""Living workers are known by their records, and by their answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_executor.errors import AccessDenied
from nats_executor.fleet import liveness as liveness_module
from nats_executor.fleet.liveness import Holder, Liveness, PingResult, is_lost
from nats_executor.fleet.workers import seen_workers
from nats_executor.topology import setup
from nats_executor.wire.messages import Presence, decode, encode
from nats_executor.wire.names import Verb
from nats_worker.control.presence import BEATS, Announcer, NameTaken
from tests.remedies.lines import LINES
from tests.support.fake_broker import FakeServer
from tests.support.fixtures import settings_for
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio

SETTINGS = settings_for("nats://127.0.0.1:4222", heartbeat_seconds=0.02, worker_lost_seconds=10)
NAMES = SETTINGS.names
RECORD = NAMES.presence("default", "w")
W, X = Holder("w.1", "w", "default"), Holder("x.1", "x", "default")


def record(worker: str = "w.1") -> Presence:
    return Presence(
        worker=worker, name="w", host="host-7", pid=7, queues=["default"], concurrency=2,
        running=0, draining=False, started_at=0.0, at=0.0, version="1",
    )  # fmt: skip


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness_module, "COMPLAINTS", deque())
    monkeypatch.setattr(liveness_module, "PING_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(liveness_module, "PING_SECONDS", 0.02)


@pytest.fixture
async def server() -> FakeServer:
    server = FakeServer(monotonic=lambda: -1e9)
    server.now = time.time()
    await setup.apply(server.broker(), SETTINGS, [])
    return server


def announcer(server: FakeServer, worker: str = "w.1") -> Announcer:
    return Announcer(server.broker(), SETTINGS, lambda: record(worker))


def stored(server: FakeServer) -> Presence | None:
    found = server.stream(NAMES.workers_stream).last(RECORD)
    return decode(Presence, found.body) if found and found.body else None


# Liveness


@given(
    st.sampled_from(PingResult),
    st.floats(min_value=0, allow_nan=False),
    st.floats(allow_nan=False),
)
def test_one_sign_of_life_is_enough(answer: PingResult, age: float, connected: float) -> None:
    lost = is_lost(answer=answer, record_age=age, connected_for=connected, lost_after_seconds=10)

    limits = {PingResult.ALIVE: math.inf, PingResult.SILENT: 20, PingResult.GONE: 10}
    assert lost == (min(age, connected) > limits[answer])


async def test_an_answer_is_enough(server: FakeServer) -> None:
    worker = server.broker()
    await worker.serve(NAMES.control("w.1", Verb.PING), echo)

    assert await Liveness(server.broker(), SETTINGS).lost([W, X]) == {X}


async def test_another_worker_asks_on_a_subject_of_its_own(server: FakeServer) -> None:
    worker = server.broker()
    await worker.serve(NAMES.peer("w.1"), echo)

    assert await Liveness(server.broker(), SETTINGS, is_peer=True).ping("w.1") is PingResult.ALIVE
    assert await Liveness(server.broker(), SETTINGS).ping("w.1") is PingResult.GONE


@pytest.mark.parametrize(
    ("age", "is_alive"), [(5, True), (11, False), (None, False)], ids=["fresh", "old", "none"]
)
async def test_a_record_is_a_sign_of_life_for_a_while(
    server: FakeServer, age: int | None, is_alive: bool
) -> None:
    if age is not None:
        server.put(RECORD, encode(record()))
        server.advance(age)

    assert await Liveness(server.broker(), SETTINGS).is_alive(W) == is_alive


@pytest.mark.parametrize("body", [b"", b"unreadable", encode(record("w.2"))])
async def test_anothers_record_is_none(server: FakeServer, body: bytes) -> None:
    """A worker of the same name has started since, or the record was deleted."""
    server.put(RECORD, body)

    assert await Liveness(server.broker(), SETTINGS).record_ages([W]) == {W: math.inf}


async def test_a_worker_that_was_not_subscribed_yet_is_asked_again(server: FakeServer) -> None:
    link, other = server.broker(), server.broker()
    asked = 0
    enter = link.enter

    async def enter_and_wait(method: str, *, needs_server: bool = True) -> None:
        nonlocal asked
        asked += method == "request"
        if asked == 2:
            await other.serve(NAMES.control("w.1", Verb.PING), echo)
        await enter(method, needs_server=needs_server)

    link.enter = enter_and_wait  # type: ignore[method-assign]

    assert await Liveness(link, SETTINGS).ping("w.1") is PingResult.ALIVE
    assert asked == 2


async def echo(body: bytes) -> bytes:
    return body


async def test_a_worker_that_hangs_is_waited_for_longer(server: FakeServer) -> None:
    """Its connection is open, as that of a machine that lost its power."""
    worker = server.broker()
    await worker.serve(NAMES.control("w.1", Verb.PING), never)
    server.put(RECORD, encode(record()))
    liveness = Liveness(server.broker(), SETTINGS)

    server.advance(15)
    assert await liveness.lost([W]) == set()
    server.advance(10)
    assert await liveness.lost([W]) == {W}


async def never(_: bytes) -> bytes:
    return await asyncio.Event().wait() and b""


async def test_a_connection_that_breaks_makes_nobody_look_lost(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = server.broker()
    liveness = Liveness(link, SETTINGS)

    async def ping(_: str) -> PingResult:
        link.disconnect()
        return PingResult.SILENT

    monkeypatch.setattr(liveness, "ping", ping)

    assert await liveness.lost([W]) == set()


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

    with pytest.raises(NameTaken) as caught:
        await announcer(server).claim_name()

    assert str(caught.value) == LINES["name taken"].format(worker="w", queue=record().queues[0])

    assert stored(server) == record("w.0")


async def test_a_name_is_not_kept_by_an_answer_alone(server: FakeServer) -> None:
    """Workers of other queues hear the ping, and one of them may answer for a dead worker."""
    await server.broker().serve(NAMES.peer("w.0"), echo)
    server.put(RECORD, encode(record("w.0")))
    server.advance(21)

    await announcer(server).claim_name()

    assert stored(server) == record("w.1")


async def test_a_worker_whose_record_is_old_has_the_time_to_renew_it(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of each one after an outage of the broker."""
    await server.broker().serve(NAMES.peer("w.0"), echo)
    server.put(RECORD, encode(record("w.0")))
    server.advance(21)

    async def renewed_meanwhile(_: float) -> None:
        server.put(RECORD, encode(record("w.0")))

    monkeypatch.setattr("nats_worker.control.presence.asyncio.sleep", renewed_meanwhile)

    with pytest.raises(NameTaken):
        await announcer(server).claim_name()


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


# Several queues


def of_queues(server: FakeServer, *queues: str) -> tuple[Announcer, list[str]]:
    """Return an announcer, and the list of the queues that it serves."""
    served = list(queues)
    return Announcer(
        server.broker(), SETTINGS, lambda: replace(record(), queues=list(served))
    ), served


def keys(server: FakeServer) -> dict[str, list[str]]:
    """Return the queues that each record lists, by the key's queue."""
    messages = server.messages(NAMES.workers_stream)
    return {m.subject.split(".")[2]: decode(Presence, m.body).queues for m in messages if m.body}


async def test_a_worker_has_a_record_in_each_of_its_queues(server: FakeServer) -> None:
    mine, _ = of_queues(server, "a", "b")
    await mine.claim_name()

    assert keys(server) == {"a": ["a"], "b": ["b"]}

    await mine.retire()
    assert keys(server) == {}


async def test_a_queue_that_it_serves_no_more_keeps_its_record(server: FakeServer) -> None:
    """A workload that the worker took from there may still run."""
    mine, served = of_queues(server, "a", "b")
    await mine.claim_name()
    served.remove("b")
    server.advance(60)

    await mine.beat()

    assert keys(server) == {"a": ["a"], "b": []}
    holders = [Holder("w.1", "w", queue) for queue in ("a", "b")]
    assert await Liveness(server.broker(), SETTINGS).record_ages(holders) == dict.fromkeys(
        holders, 0.0
    )


async def test_a_record_of_another_queue_is_no_sign_of_life(server: FakeServer) -> None:
    server.put(NAMES.presence("other", "w"), encode(replace(record(), queues=["other"])))

    ages = await Liveness(server.broker(), SETTINGS).record_ages([W])

    assert ages == {W: math.inf}


async def test_a_name_that_is_taken_in_one_queue_is_taken(server: FakeServer) -> None:
    await server.broker().serve(NAMES.peer("w.0"), echo)
    server.put(NAMES.presence("b", "w"), encode(replace(record("w.0"), queues=["b"])))
    mine, _ = of_queues(server, "a", "b")

    with pytest.raises(NameTaken, match="for queue 'b'"):
        await mine.claim_name()

    assert keys(server) == {"b": ["b"]}


async def test_the_same_name_in_another_queue_is_another_worker(server: FakeServer) -> None:
    await server.broker().serve(NAMES.peer("w.0"), echo)
    server.put(NAMES.presence("b", "w"), encode(replace(record("w.0"), queues=["b"])))
    mine, _ = of_queues(server, "a")

    await mine.claim_name()

    assert keys(server) == {"a": ["a"], "b": ["b"]}


async def test_a_queue_whose_record_may_not_be_written_does_not_keep_it_from_others(
    server: FakeServer,
) -> None:
    mine, _ = of_queues(server, "a", "b")
    allowed = deny(mine, NAMES.presence("a", "w"))

    await mine.claim_name()
    assert keys(server) == {"b": ["b"]}

    allowed.set()
    await mine.beat()
    assert keys(server) == {"a": ["a"], "b": ["b"]}


async def test_a_worker_that_may_write_no_record_does_not_begin(server: FakeServer) -> None:
    mine, _ = of_queues(server, "a")
    allowed = deny(mine, NAMES.presence("a", "w"))

    with pytest.raises(AccessDenied):
        await mine.claim_name()

    allowed.set()
    await mine.claim_name()
    assert keys(server) == {"a": ["a"]}


def deny(announcer: Announcer, subject: str) -> asyncio.Event:
    """Let nothing be written there until the event is set."""
    broker: Any = announcer._broker
    publish, allowed = broker.publish, asyncio.Event()

    async def refuse(to: str, *args: Any, **options: Any) -> Any:
        if to == subject and not allowed.is_set():
            raise AccessDenied("no")
        return await publish(to, *args, **options)

    broker.publish = refuse
    return allowed


# The release before


async def test_the_record_of_a_worker_of_the_release_before_is_a_sign_of_life(
    server: FakeServer,
) -> None:
    server.put(NAMES.older_presence("w"), encode(record()))

    for is_peer in (False, True):
        liveness = Liveness(server.broker(), SETTINGS, is_peer=is_peer)
        assert await liveness.record_ages([W, X]) == {W: 0.0, X: math.inf}


async def test_one_look_at_who_had_the_name_is_enough_for_all_queues(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a worker of 200 queues that comes back takes its first task half an hour later."""
    pings: list[bytes] = []
    waits: list[float] = []
    sleep = asyncio.sleep

    async def answer(question: bytes) -> bytes:
        pings.append(question)
        return b""

    async def counted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    await server.broker().serve(NAMES.peer("w.0"), answer)
    queues = [f"q{number}" for number in range(5)]
    for queue in queues:
        server.put(NAMES.presence(queue, "w"), encode(replace(record("w.0"), queues=[queue])))
    server.advance(60)
    mine, _ = of_queues(server, *queues)
    monkeypatch.setattr(asyncio, "sleep", counted)

    await mine.claim_name()

    assert keys(server) == {queue: [queue] for queue in queues}
    assert len(pings) == 1
    assert waits.count(BEATS * SETTINGS.heartbeat_seconds) == 1


async def test_a_worker_of_the_release_before_keeps_its_name(server: FakeServer) -> None:
    await server.broker().serve(NAMES.peer("w.0"), echo)
    server.put(NAMES.older_presence("w"), encode(record("w.0")))

    with pytest.raises(NameTaken):
        await announcer(server).claim_name()


async def test_what_is_wrong_with_a_record_is_said_once(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.put(NAMES.presence("other", "w"), encode(record()))

    for _ in range(3):
        assert await seen_workers(server.broker(), SETTINGS) == []

    line = LINES["unreadable record"].format(key=NAMES.presence("other", "w"))
    assert caplog.messages == [line]

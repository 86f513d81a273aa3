"""Messages to an inbox of the past are handed back, and never taken for an answer of today."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.broker import pull_times, pulls
from nats_executor.broker.port import ServerOffer
from nats_executor.broker.pulls import LONGEST_ELECTION_SECONDS, QueuePulls, Silence, StreamView
from nats_executor.errors import BrokerUnavailable
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats_executor.broker.link import Listener

pytestmark = pytest.mark.anyio

LONE = ServerOffer(is_lone=True)
NEXT = "$JS.API.CONSUMER.MSG.NEXT.T.c"


@dataclass
class Message:
    subject: str
    reply: str = ""
    data: bytes = b""
    headers: dict[str, str] | None = None


@dataclass
class FakeLink:
    """A connection that answers nothing by itself."""

    connected_since: float = 1.0
    offer: ServerOffer = LONE
    listeners: list[Listener] = field(default_factory=list)
    forgotten: list[Listener] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    bodies: list[dict[str, int]] = field(default_factory=list)
    said: list[tuple[str, bytes]] = field(default_factory=list)

    async def listen(self, listener: Listener) -> None:
        listener.subject = f"inbox.{len(self.listeners)}"
        self.listeners.append(listener)

    async def forget(self, listener: Listener) -> None:
        self.forgotten.append(listener)

    async def send(
        self, subject: str, body: bytes, *, reply: str = "", headers: Any = None
    ) -> None:
        assert (subject, headers) == (NEXT, None)
        self.sent.append(reply)
        self.bodies.append(json.loads(body))

    async def ask(self, subject: str, body: bytes, **_: Mapping[str, Any]) -> None:
        self.said.append((subject, body))

    def renew(self) -> None:
        for number, listener in enumerate(self.listeners):
            listener.subject = f"inbox.{number}.again"
            listener.on_renewed()

    async def deliver(self, listener: Listener, sequence: int) -> str:
        ack = f"$JS.ACK.T.c.1.{sequence}.{sequence}.1700000000000000000.0"
        await listener.on_message(Message("t.tasks.q.d", ack))
        return ack


async def is_sound() -> bool:
    return True


async def nothing_there(_: str) -> None:
    return None


async def opened(link: Any) -> QueuePulls:
    return await QueuePulls.open(link, NEXT, StreamView(nothing_there, True, is_sound, Silence()))


@contextlib.asynccontextmanager
async def waiting(queue: QueuePulls) -> Any:
    wait = asyncio.create_task(queue.wait())
    try:
        yield wait
    finally:
        wait.cancel()
        await asyncio.wait([wait])


async def test_a_message_that_comes_to_a_pull_which_was_given_up_is_handed_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pull_times, "silence_seconds", lambda _: 0.01)
    link = FakeLink()
    queue = await opened(link)
    async with waiting(queue) as wait:
        await wait_until(lambda: len(link.forgotten) >= 1, 30, "the pull to be given up")
        monkeypatch.undo()

        late = await link.deliver(link.forgotten[0], 1)
        await wait_until(lambda: link.said, 30, "it to be handed back")
        assert link.said == [(late, b"-NAK")]
        assert not wait.done()

        await wait_until(lambda: link.sent[-1] == link.listeners[-1].subject, 30, "another pull")
        await link.deliver(link.listeners[-1], 2)
        assert (await wait).stream_sequence == 2


async def test_a_pull_that_was_sent_while_its_connection_opened_is_not_sent_again() -> None:
    """It is on the inbox of the new connection already when that says that it is a new one."""
    link = FakeLink()
    queue = await opened(link)
    async with waiting(queue):
        await wait_until(lambda: link.sent, 30, "a pull")
        link.renew()
        await wait_until(lambda: len(link.sent) == 2, 30, "a pull on the new connection")

        link.listeners[1].on_renewed()
        heartbeat = Message("inbox", headers={"Status": "100"})
        await link.listeners[1].on_message(heartbeat)
        await wait_until(queue._waiting.arrivals.empty, 30, "both to be read")

        assert link.sent == ["inbox.1", "inbox.1.again"]


async def test_a_take_after_one_without_an_answer_has_an_inbox_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pulls, "TAKE_SECONDS", 0.01)
    link = FakeLink()
    queue = await opened(link)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable, match="no answer"):
            await queue.take(5)

    first, second = link.sent
    assert first != second
    assert [listener.subject for listener in link.forgotten] == [first]


# What is said of a consumer that does not answer


def test_an_election_is_not_told() -> None:
    silence = Silence()
    for now in range(int(LONGEST_ELECTION_SECONDS)):
        assert silence.note("a", now) == []


def test_a_consumer_that_does_not_answer_for_long_is_told_once_with_the_others() -> None:
    silence = Silence()
    told = []
    for now in range(2 * int(LONGEST_ELECTION_SECONDS)):
        told += [silence.note("a", now), silence.note("b", now + 0.5)]

    assert [names for names in told if names] == [["a", "b"]]


def test_a_consumer_that_answers_in_between_begins_again() -> None:
    silence = Silence()
    for now in range(2 * int(LONGEST_ELECTION_SECONDS)):
        assert silence.note("a", now) == []
        if now % 10 == 0:
            silence.end("a")


def test_two_elections_with_quiet_between_them_are_two() -> None:
    silence = Silence()
    assert silence.note("a", 0.0) == []
    assert silence.note("a", 100.0) == []


@pytest.mark.parametrize(
    ("is_lone", "sees_reconnects", "is_limited", "heartbeat"),
    [
        (True, True, False, 5.0),
        (True, True, True, 1.0),  # a purge may make room
        (False, True, False, 1.0),  # the pull may wait at another server of the cluster
        (True, False, False, 1.0),  # the stream is behind a leaf node
    ],
)
async def test_the_server_speaks_often_where_the_connection_shows_no_loss(
    is_lone: bool, sees_reconnects: bool, is_limited: bool, heartbeat: float
) -> None:
    link = FakeLink(offer=ServerOffer(is_lone=is_lone))
    look = StreamView(nothing_there, sees_reconnects, is_sound, Silence(), is_limited)
    queue = await QueuePulls.open(link, NEXT, look)  # type: ignore[arg-type]
    async with waiting(queue):
        await wait_until(lambda: link.bodies, 30, "a pull")

    assert link.bodies[0]["idle_heartbeat"] == pulls.nanoseconds(heartbeat)
    assert link.bodies[0]["batch"] == 1

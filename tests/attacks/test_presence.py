"""Attacks with presence records, by a login of queue `a`, on queue `b`."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.broker.connection import connect
from nats_executor.fleet.liveness import PATIENCE, Holder, Liveness
from nats_executor.fleet.queues import queue_rows
from nats_executor.fleet.workers import seen_workers
from nats_executor.logs.running import TaskLogs
from nats_executor.operations.orders import give_orders
from nats_executor.operations.survey import check_rows, take_survey
from nats_executor.scheduler.dispatcher import Dispatcher
from nats_executor.scheduler.ledger import Dispatch
from nats_executor.wire.log_pages import Page, encode_log_message
from nats_executor.wire.messages import Kind, Obeyed, encode
from nats_executor.wire.names import Verb, in_domain
from nats_worker import worker as worker_module
from nats_worker.control.presence import Announcer, NameTaken
from nats_worker.state import Plan
from nats_worker.worker import Worker
from tests.support.fake_pool import FakePool
from tests.support.presences import presence_of
from tests.support.user_stage import NAMES, ROOT_USER, UserStage
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from nats_executor.broker.port import Broker
    from nats_executor.wire.messages import Presence

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

QUICK: dict[str, Any] = {"heartbeat_seconds": 0.2, "worker_lost_seconds": 1}
WORKERS = NAMES.workers_stream
FORGER = "forged.1"
INBOX = "_INBOX_worker_a.x"
OF_B, OF_NONE = NAMES.presence("b", "w"), NAMES.older_presence("w")


@dataclass
class Stage:
    """A login of queue `a` that writes what it likes, and the real parts of a deployment."""

    user_stage: UserStage
    exits: AsyncExitStack
    pool: FakePool

    async def broker(self, user: str) -> Broker:
        broker = await self.exits.enter_async_context(
            connect(self.user_stage.settings(user, **QUICK), role="test")
        )
        await broker.ready(10)
        return broker

    def write(
        self, subject: str, presence: Presence, user: str = "worker_a", headers: bytes = b""
    ) -> dict[str, Any] | str:
        """Store a record past the product; return JetStream's answer, or the server's word."""
        domain = self.user_stage.settings(user).jetstream_domain
        address, inbox = in_domain(subject, domain), f"_INBOX_{user}.x"
        with self.user_stage.raw(user) as client:
            client.subscribe(f"_INBOX_{user}.>")
            client.arrived.clear()
            if word := client.publish(address, encode(presence), inbox, headers):
                return word
            return client.next().answer

    def forge(self, *queues: str, user: str = "worker_a", key: str = "a") -> None:
        """Say that a worker `w` serves these queues, under a key of its own."""
        record = replace(presence_of("w", worker=FORGER), queues=list(queues))
        answer = self.write(NAMES.presence(key, "w"), record, user)
        assert isinstance(answer, dict), answer
        assert "error" not in answer

    async def answer(self, subject: str, body: bytes, user: str = "worker_a") -> list[bytes]:
        """Answer what is asked there as the forger; returns what it has heard, as it grows."""
        heard: list[bytes] = []

        async def reply(question: bytes) -> bytes:
            heard.append(question)
            return body

        broker = await self.broker(user)
        await broker.serve(subject, reply)
        return heard

    async def start(self, name: str, queue: str) -> Worker:
        """Start a real worker with its own user, and return once it takes workloads."""
        plan = Plan(
            name=name, queues=(queue,), concurrency=2, team=None, cleanup_seconds=0.0, version="1"
        )
        worker = Worker(self.user_stage.settings(f"worker_{queue}", **QUICK), plan)
        life = asyncio.create_task(worker.run())

        async def end() -> None:
            while not life.done():  # nats-py may swallow a cancellation
                life.cancel()
                await asyncio.wait([life], timeout=0.1)

        self.exits.push_async_callback(end)
        await wait_until(lambda: worker.state.intake or life.done(), 20, "the worker")
        if life.done():
            await life
        return worker


@pytest.fixture
async def stage(user_stage: UserStage, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    pool = FakePool()
    monkeypatch.setattr(worker_module, "ProcessPool", lambda **_: pool.branch())
    monkeypatch.setattr(Worker, "listen_to_signals", lambda _: None)
    async with AsyncExitStack() as exits:
        yield Stage(user_stage, exits, pool)


@pytest.fixture
def user_stage(shared_user_stage: UserStage) -> UserStage:
    """Set up in a thread of its own, as these tests have a loop."""

    def fresh() -> UserStage:
        shared_user_stage.clear()
        shared_user_stage.set_up()
        return shared_user_stage

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(fresh).result()


# Writing


@pytest.mark.parametrize("subject", [OF_B, OF_NONE, f"{OF_B}.more"])
async def test_a_record_of_another_queue_cannot_be_written(stage: Stage, subject: str) -> None:
    word = stage.write(subject, presence_of("w", "b"))

    assert "Permissions Violation for Publish" in str(word)
    assert stage.write(OF_B, presence_of("w", "b"), "worker_b") == {"stream": WORKERS, "seq": 1}


@pytest.mark.parametrize("scope", ["all", "sub"])
async def test_a_rollup_header_removes_nothing(stage: Stage, scope: str) -> None:
    """With rollups allowed, one message of any login takes the place of the whole bucket."""
    stage.write(OF_B, presence_of("w", "b"), "worker_b")
    header = f"NATS/1.0\r\nNats-Rollup: {scope}\r\n\r\n".encode()

    answer = stage.write(NAMES.presence("a", "w"), presence_of("w", "a"), headers=header)

    assert isinstance(answer, dict)
    assert "rollup not permitted" in answer["error"]["description"]
    root = await stage.broker(ROOT_USER)
    assert [m.subject for m in await root.scan(WORKERS, NAMES.presences())] == [OF_B]


@pytest.mark.parametrize(
    "question", [{"last_by_subj": OF_B}, {"multi_last": [NAMES.presences()]}, {"batch": 10}],
    ids=json.dumps,
)  # fmt: skip
async def test_records_of_another_queue_are_not_shown(
    stage: Stage, question: dict[str, Any]
) -> None:
    stage.write(OF_B, presence_of("w", "b"), "worker_b")
    stage.forge("a")
    api, body = stage.user_stage.api("worker_a"), json.dumps(question).encode()
    looks = [f"{api}.DIRECT.GET.{WORKERS}", f"{api}.DIRECT.GET.{WORKERS}.{OF_B}"]

    with stage.user_stage.raw("worker_a") as client:
        client.subscribe("_INBOX_worker_a.>")
        assert all("Permissions Violation" in client.publish(s, body, INBOX) for s in looks)
        client.publish(f"{api}.DIRECT.GET.{WORKERS}.{NAMES.presence('a', 'w')}", body, INBOX)
        last = client.ask(f"{api}.STREAM.INFO.{NAMES.results_stream}", b"", INBOX)

    assert not [m for m in [*client.arrived, last] if b"host-7" in m.body and OF_B in m.headers]


# Names


async def test_a_forged_name_does_not_keep_a_worker_of_another_queue_from_starting(
    stage: Stage,
) -> None:
    stage.forge("a")
    await stage.answer(NAMES.peer(FORGER), b"alive")

    worker = await stage.start("w", "b")

    broker = await stage.broker("monitor")
    seen = await seen_workers(broker, stage.user_stage.settings("monitor", **QUICK))
    assert {(s.presence.worker, *s.presence.queues) for s in seen} == {
        (FORGER, "a"), (worker.state.id, "b")
    }  # fmt: skip


async def test_a_false_answer_does_not_keep_the_name_of_a_dead_worker(stage: Stage) -> None:
    """Every worker's user hears the pings to all workers."""
    dead = presence_of("w", "b", worker="dead.1")
    assert isinstance(stage.write(OF_B, dead, "worker_b"), dict)
    # A peer's ping comes as the scheduler's where each worker user has an account.
    pings = (NAMES.peer("dead.1"), NAMES.control("dead.1", Verb.PING))
    asked = [await stage.answer(subject, encode(dead)) for subject in pings]
    broker, settings = (
        await stage.broker("worker_b"),
        stage.user_stage.settings("worker_b", **QUICK),
    )
    liveness, holder = Liveness(broker, settings, is_peer=True), Holder("dead.1", "w", "b")

    async def is_old() -> bool:
        ages = await liveness.record_ages([holder])
        return ages[holder] > PATIENCE * settings.worker_lost_seconds

    await wait_until(is_old, 20, "the record to be old")
    worker = await stage.start("w", "b")

    assert worker.state.intake
    assert any(asked)


async def test_a_login_of_its_own_queue_can_keep_it_from_starting(stage: Stage) -> None:
    """What is left: a user that may write for a queue may be its worker of any name."""
    stage.forge("b", user="worker_b", key="b")
    await stage.answer(NAMES.peer(FORGER), b"alive", "worker_b")

    settings = stage.user_stage.settings("worker_b", **QUICK)
    announcer = Announcer(await stage.broker("worker_b"), settings, lambda: presence_of("w", "b"))
    with pytest.raises(NameTaken):
        await announcer.claim_name()


# Queues


@pytest.mark.parametrize("queues", [["b"], ["a", "b"], ["a"], []], ids=str)
async def test_a_forged_record_does_not_hide_that_a_queue_is_unserved(
    stage: Stage, queues: list[str]
) -> None:
    stage.forge(*queues)
    await in_thread(stage.user_stage.send, "b")

    settings = stage.user_stage.settings("monitor", **QUICK)
    survey = await take_survey(await stage.broker("monitor"), settings)
    statuses = {row["check"]: row["status"] for row in check_rows(survey, settings)}
    workers = {
        row["queue"]: row["workers"]
        for row in queue_rows(survey.consumers, survey.workers, settings)
    }

    assert statuses["queue b"] == "unserved"
    assert workers["b"] == 0
    dispatch = Dispatch("d1", "key", "b", Kind.TASK, "d1")
    assert await unserved_by(stage, dispatch) == {"b"}


async def unserved_by(stage: Stage, dispatch: Dispatch) -> set[str]:
    """Return the queues of which a scheduler warns."""
    dispatcher = Dispatcher(stage.user_stage.settings("scheduler", **QUICK), "scheduler-1")
    running = asyncio.create_task(dispatcher.run())
    try:
        await asyncio.wait_for(dispatcher.prepared(), 10)
        await dispatcher.inspector.sweep([dispatch])
        return {lane.queue for lane in dispatcher.inspector.unserved}
    finally:
        while not running.done():
            running.cancel()
            await asyncio.wait([running], timeout=0.1)


@pytest.mark.parametrize("changes", [{"draining": True}, {"paused": "forged"}], ids=str)
async def test_a_served_queue_stays_served(stage: Stage, changes: dict[str, Any]) -> None:
    """A copy of the worker's record, with its id, that says that it takes nothing."""
    worker = await stage.start("w", "b")
    copy = replace(worker.state.presence(), **changes, queues=["a"])
    assert isinstance(stage.write(NAMES.presence("a", "w"), copy), dict)

    settings = stage.user_stage.settings("monitor", **QUICK)
    survey = await take_survey(await stage.broker("monitor"), settings)

    (row,) = (
        row for row in queue_rows(survey.consumers, survey.workers, settings) if row["queue"] == "b"
    )
    assert (row["workers"], row["slots"]) == (1, 2)


async def test_a_dead_worker_of_another_queue_is_not_revived(stage: Stage) -> None:
    stage.forge("a")

    for user, is_peer in (("scheduler", False), ("worker_b", True)):
        broker = await stage.broker(user)
        settings = stage.user_stage.settings(user, **QUICK)
        liveness = Liveness(broker, settings, is_peer=is_peer)
        holders = [Holder(FORGER, "w", "b")]
        assert set(await liveness.record_ages(holders)) == set(holders)
        assert (await liveness.record_ages(holders))[holders[0]] == float("inf")


# Orders


async def test_an_order_reaches_the_right_worker_or_nobody(stage: Stage) -> None:
    worker = await stage.start("w", "b")
    stage.forge("a")
    lie = Obeyed(queues=["b"], concurrency=7, running=0, is_changed=True)
    heard = await stage.answer(NAMES.control(FORGER, Verb.SET_CONCURRENCY), encode(lie))
    admin, settings = await stage.broker("admin"), stage.user_stage.settings("admin", **QUICK)

    async def give(serving: str | None) -> str:
        (answer,) = await give_orders(
            admin, settings, ["w"], Verb.SET_CONCURRENCY, "7", serving=serving
        )
        return answer.text

    assert "several workers are named 'w'" in await give(None)
    assert worker.state.slots.concurrency == 2

    assert await give("b") == "worker w now has concurrency 7, queues b; until it restarts"
    assert worker.state.slots.concurrency == 7
    assert heard == []


# Logs


async def test_a_forged_record_shows_no_forged_log(stage: Stage) -> None:
    page = Page(runs=True, path="/forged.log", size=7, data=b"forged\n")
    await stage.answer(NAMES.control(FORGER, Verb.LOG), encode_log_message(page))
    texts = []
    for queues in (["a"], ["b"], ["a", "b"]):
        stage.forge(*queues)
        texts.append(await log_of(stage, "d1", "b"))

    assert all("no worker says that it runs this task" in text for text in texts), texts
    stage.forge("a")
    assert "forged" in await log_of(stage, "d1", "a")  # of its own queue it can


async def log_of(stage: Stage, dispatch_id: str, queue: str) -> str:
    logs = TaskLogs(lambda: stage.user_stage.settings("api_server", **QUICK))
    try:
        _, texts = await asyncio.to_thread(logs.read, dispatch_id, queue)
    finally:
        await asyncio.to_thread(logs.close)
    return "".join(texts)


async def in_thread(act: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.to_thread(act, *args)

"""The product under users with the permissions that it grants: all works, and all is needed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import signal
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor import NatsExecutor
from nats_executor.broker import connection as broker_module
from nats_executor.broker.connection import connect
from nats_executor.fleet.drains import seen_notes
from nats_executor.fleet.letters import Wanted
from nats_executor.fleet.workers import seen_workers
from nats_executor.logs import store
from nats_executor.logs.running import TaskLogs
from nats_executor.operations.choosing import Which
from nats_executor.operations.deleting import delete_queue
from nats_executor.operations.describing import description_of
from nats_executor.operations.draining import drain_workers, undrain_workers
from nats_executor.operations.facts import Instance
from nats_executor.operations.letters import (
    find_letters,
    letters_at,
    letters_page,
    remove_letters,
)
from nats_executor.operations.orders import give_orders, send_order
from nats_executor.operations.pausing import Wish, pause_queues, resume_queues
from nats_executor.operations.pinging import forget_workers, ping_workers
from nats_executor.operations.probing import ping_queue
from nats_executor.operations.purging import Store, carry_out, purge_of
from nats_executor.operations.reasons import Cause, conclude
from nats_executor.operations.schedulers import state_of_executor
from nats_executor.operations.situations import look_in_nats
from nats_executor.operations.survey import check_rows, take_survey
from nats_executor.retrying import Outage
from nats_executor.scheduler.answers import Answers
from nats_executor.scheduler.dispatcher import Dispatcher, Envelope
from nats_executor.scheduler.ledger import Dispatch, Ledger
from nats_executor.scheduler.telemetry import Telemetry
from nats_executor.topology import setup
from nats_executor.topology.wanted import SECOND, stream_configs
from nats_executor.wire.descriptions import Description
from nats_executor.wire.messages import Drain, Kind, Obeyed, Report, State, encode
from nats_executor.wire.names import Lane, Order, Verb
from nats_executor.wire.scheduler_answers import ProbeOrder
from nats_worker import worker as worker_module
from nats_worker.state import Plan
from nats_worker.worker import Worker
from tests.support.fake_pool import FakePool, FakeRun
from tests.support.nats_server import server_version
from tests.support.user_stage import (
    NAMES,
    QUEUES,
    ROOT_USER,
    USERS,
    UserStage,
    accounts_config,
    one_account_config,
)
from tests.support.waiting import wait_until
from tests.support.worker_stage import task, token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from nats_executor.broker.port import Broker
    from nats_executor.settings import Settings
    from tests.support.fixtures import MakeNatsServer

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

QUICK: dict[str, Any] = {"ack_wait_seconds": 2, "heartbeat_seconds": 0.5, "worker_lost_seconds": 1}
GHOST = "ghost.1"
LANE = Lane("a")
# A person with the commands, and the API server for the users of its page.
DAILY = ("operator", "api_server")
ACKS = {"older": "", "newer": "feature_flags { js_ack_fc_v2: true }"}
PLACES: dict[str, Callable[[str], str]] = {
    "one-account": one_account_config,
    "accounts": accounts_config,
}


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject is one of a pattern's."""
    wanted, found = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted, found = wanted[:-1], found[: len(wanted) - 1]
    return len(wanted) == len(found) and all(
        w in {"*", f} for w, f in zip(wanted, found, strict=True)
    )


@dataclass
class RoleStage:
    """A scheduler and a worker of queue `a`, each as its own user, and what they sent."""

    user_stage: UserStage
    sent: defaultdict[str, set[str]]
    exits: AsyncExitStack
    pool: FakePool = field(default_factory=FakePool)
    reports: list[Report] = field(default_factory=list)

    async def begin(self) -> None:
        self.root = await self.broker(ROOT_USER)
        self.admin = await self.broker("admin")
        await self.set_up()
        executor = NatsExecutor()
        executor.job_id = 7
        settings = self.settings("scheduler")
        outage = Outage(time.monotonic)
        answers = Answers(executor, settings, "scheduler-1", Ledger(), outage)
        self.dispatcher = Dispatcher(settings, "scheduler-1", answers)
        await self.live(self.dispatcher.run())
        await asyncio.wait_for(self.dispatcher.prepared(), 10)
        plan = Plan(
            name="w", queues=("a",), concurrency=8, team=None, cleanup_seconds=0.0, version="1"
        )
        self.pool.is_quick = True
        self.worker = Worker(self.settings("worker_a"), plan)
        self.working = await self.live(self.worker.run())

    def settings(self, user: str) -> Settings:
        return self.user_stage.settings(user, **QUICK)

    # What a worker's supervisor, a triggerer and an API server do with the log of what has ended

    async def store_log(self, user: str, queue: str, path: str) -> None:
        broker = await self.broker(user)
        with io.BytesIO(f"stored by {user}".encode()) as file:
            await store.put(broker, NAMES, queue, path, file)

    async def broker(self, user: str) -> Broker:
        broker = await self.exits.enter_async_context(connect(self.settings(user), role="test"))
        await broker.ready(10)
        return broker

    async def live(self, life: Any) -> asyncio.Task[None]:
        living = asyncio.create_task(life)

        async def end() -> None:
            while not living.done():  # nats-py may swallow a cancellation
                living.cancel()
                await asyncio.wait([living], timeout=0.1)

        self.exits.push_async_callback(end)
        return living

    # What an administrator does

    async def set_up(self) -> None:
        """Create everything, and put right what was changed by hand."""
        settings = self.settings("admin")
        await setup.apply(self.admin, settings, QUEUES)
        assert set(await setup.known_queues(self.admin, settings)) == set(QUEUES)
        for config in stream_configs(settings):
            changes = {"max_age": 7200 * SECOND, "description": "changed"}
            await self.root.update_stream(config | changes)
        drifts = await setup.apply(self.admin, settings, QUEUES)
        assert len({drift.where for drift in drifts}) == 6

    async def give_orders(self, user: str) -> None:
        broker, settings = await self.broker(user), self.settings(user)
        values: dict[Order, str] = {
            Verb.SET_CONCURRENCY: "9", Verb.ADD_QUEUE: "a", Verb.REMOVE_QUEUE: "none"
        }  # fmt: skip
        for order, value in values.items():
            (answer,) = await give_orders(broker, settings, ["w"], order, value)
            # It tells that it does not serve that queue.
            assert answer.is_obeyed is (value != "none"), answer
        [seen] = await seen_workers(broker, settings)
        drain = encode(Drain(worker="w", by="ann", at=1.0))
        for order, body in ((Verb.DRAIN, drain), (Verb.UNDRAIN, b"ann")):
            obeyed = await send_order(broker, settings, seen, order, body, lacks="")
            assert isinstance(obeyed, Obeyed), obeyed
        refused = await send_order(broker, settings, seen, Verb.SHUT_DOWN, b"", lacks="")
        assert "cannot be read" in str(refused)

    # What a scheduler does

    async def send(
        self, dispatch_id: str, lane: Lane = LANE, body: bytes = b"", **changes: Any
    ) -> Dispatch:
        workload = task(dispatch_id, lane.queue, **changes)
        envelope = Envelope(lane, dispatch_id, dispatch_id, body or encode(workload))
        assert await self.dispatcher.publish([envelope]) == {dispatch_id: None}
        return Dispatch(dispatch_id, "key", lane.queue, Kind.TASK, dispatch_id, lane.band)

    async def reported(self, dispatch_id: str, state: State) -> Report:
        """Wait for a report that the scheduler reads."""

        def look() -> Report | None:
            arrived = self.dispatcher.mailbox.reports
            self.reports += [arrived.popleft() for _ in range(len(arrived))]
            found = [r for r in self.reports if (r.dispatch_id, r.state) == (dispatch_id, state)]
            return found[-1] if found else None

        report: Report = await wait_until(look, 20, f"{dispatch_id} {state}: {self.reports}")
        return report

    async def claim_by_ghost(self, dispatch: Dispatch, state: State) -> None:
        """Report as a worker that never was."""
        dispatch.state, dispatch.worker, dispatch.worker_name = state, GHOST, "ghost"
        report = Report(
            dispatch_id=dispatch.id, queue=dispatch.queue, state=state, kind=Kind.TASK,
            key=["dag", dispatch.id], worker=GHOST, worker_name="ghost",
        )  # fmt: skip
        await self.root.publish(NAMES.result(dispatch.queue, dispatch.id), encode(report))

    async def is_queued(self, dispatch: Dispatch) -> bool:
        subject = NAMES.task(dispatch.queue, dispatch.id, dispatch.band)
        return await self.root.last(NAMES.tasks_stream, subject) is not None

    # What a worker does

    async def run_of(self, dispatch_id: str) -> FakeRun:
        def look() -> FakeRun | None:
            runs = [run for run in self.pool.requested if run.dispatch_id == dispatch_id]
            return runs[-1] if runs else None

        run: FakeRun = await wait_until(look, 20, f"{dispatch_id} to run")
        return run

    async def finished(self, dispatch: Dispatch) -> None:
        """End a run, and see that it was reported and acked."""
        (await self.run_of(dispatch.id)).finish()
        await self.reported(dispatch.id, State.SUCCESS)

        async def is_acked() -> bool:
            return not await self.is_queued(dispatch)

        await wait_until(is_acked, 10, f"{dispatch.id} to be acked")
        assert [r.dispatch_id for r in self.pool.requested].count(dispatch.id) == 1


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> defaultdict[str, set[str]]:
    """Every subject that each user publishes on."""
    sent: defaultdict[str, set[str]] = defaultdict(set)
    send = broker_module.Connection.send

    async def note(
        self: broker_module.Connection,
        subject: str,
        body: bytes,
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        sent[self._settings.user or ""].add(subject)
        await send(self, subject, body, reply=reply, headers=headers)

    monkeypatch.setattr(broker_module.Connection, "send", note)
    return sent


@pytest.fixture(params=ACKS)
def acks(request: pytest.FixtureRequest) -> str:
    form: str = request.param
    if form == "newer" and server_version() < (2, 14):
        pytest.skip("this server knows the older form of acks only")
    return form


@pytest.fixture(params=PLACES)
async def role_stage(
    request: pytest.FixtureRequest,
    acks: str,
    make_nats_server: MakeNatsServer,
    sent: defaultdict[str, set[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[RoleStage]:
    server = make_nats_server(config=PLACES[request.param](ACKS[acks]))
    async with AsyncExitStack() as exits:
        role_stage = RoleStage(UserStage(server, request.param == "accounts"), sent, exits)
        monkeypatch.setattr(worker_module, "ProcessPool", lambda **_: role_stage.pool.branch())
        monkeypatch.setattr(Worker, "listen_to_signals", lambda _: None)
        await role_stage.begin()
        yield role_stage


async def test_everything_works_with_what_is_granted_and_needs_all_of_it(
    role_stage: RoleStage, caplog: pytest.LogCaptureFixture, acks: str
) -> None:
    lanes = role_stage.settings("scheduler").lanes("a")
    held = [await role_stage.send(f"held{lane.band}", lane) for lane in lanes]
    for dispatch in held:
        (await role_stage.run_of(dispatch.id)).begin()
        await role_stage.reported(dispatch.id, State.RUNNING)
    await renew_a_token(role_stage)
    await bury_what_nobody_can_read(role_stage)
    await take_over_from_the_dead(role_stage)
    await take_back(role_stage)
    await look_around(role_stage)
    await keep_logs(role_stage)
    for user in ("admin", *DAILY):
        await role_stage.give_orders(user)
    for user in DAILY:
        await ask_what_runs(role_stage, user)
        await drain(role_stage, user)
        await pause(role_stage, user)
        await explain_what_waits(role_stage, user)
        await read_letters(role_stage, user)
    await remove_letters_of_the_page(role_stage)
    await empty(role_stage)
    await interrupt(role_stage, held)
    for dispatch in held:  # for longer than `ack_wait`, and across a reconnect
        await role_stage.finished(dispatch)
    await retire(role_stage)
    await delete(role_stage)

    assert [line for line in caplog.messages if "does not allow" in line] == []
    unused = {
        user.name: unneeded(role_stage, user.name) for user in USERS if user.name != "worker_b"
    }
    other = "$JS.ACK.*.*." if acks == "older" else "$JS.ACK.AIRFLOW"
    expected = {
        pattern
        for pattern in role_stage.user_stage.grants("worker_a").publish
        if pattern.startswith(other)
    }
    assert unused.pop("worker_a") == expected
    assert [found for found in unused.values() if found] == []


async def interrupt(role_stage: RoleStage, held: Sequence[Dispatch]) -> None:
    """Restart the server until the worker had to look at what it holds.

    It need not where the restart took longer than `ack_wait`, as the message came again then.
    """
    looks = [f".{NAMES.task(d.queue, d.id, d.band)}" for d in held]

    def are_looked_at() -> bool:
        asked = tuple(role_stage.sent["worker_a"])
        return all(any(subject.endswith(look) for subject in asked) for look in looks)

    for _ in range(10):
        await asyncio.to_thread(role_stage.user_stage.server.restart)
        with contextlib.suppress(TimeoutError):
            await wait_until(are_looked_at, QUICK["ack_wait_seconds"])
            return


def unneeded(role_stage: RoleStage, name: str) -> set[str]:
    """What was granted to a user and never used."""
    return {
        pattern
        for pattern in role_stage.user_stage.grants(name).publish
        if not any(matches(pattern, subject) for subject in role_stage.sent[name])
    }


async def renew_a_token(role_stage: RoleStage) -> None:
    dispatch = await role_stage.send(
        "old", body=encode(task("old", "a", body={"token": token(-60)}))
    )
    await role_stage.reported("old", State.EXPIRED)
    clock = f"STREAM.INFO.{NAMES.results_stream}"  # how long it has waited for a renewal

    def is_asked() -> bool:
        return any(subject.endswith(clock) for subject in role_stage.sent["worker_a"])

    await wait_until(is_asked, 10, "the message to come again")
    fresh = token(name="fresh")
    await role_stage.dispatcher.renew(dispatch, fresh)
    run = await role_stage.run_of("old")
    assert run.body["token"] == fresh
    await role_stage.finished(dispatch)


async def bury_what_nobody_can_read(role_stage: RoleStage) -> None:
    dispatch = await role_stage.send("garbage", body=b"garbage")
    report = await role_stage.reported("garbage", State.FAILED)
    assert report.info.startswith("dead letter")
    await wait_until(lambda: is_gone(role_stage, dispatch), 10, "the garbage to be gone")
    letters = await role_stage.root.scan(NAMES.dead_letters_stream, NAMES.dead_letters("a"))
    assert [letter.body for letter in letters] == [b"garbage"]


async def is_gone(role_stage: RoleStage, dispatch: Dispatch) -> bool:
    return not await role_stage.is_queued(dispatch)


async def take_over_from_the_dead(role_stage: RoleStage) -> None:
    """A worker does, and where there is none, the scheduler."""
    claimed = Dispatch("claimed", "key", "a", Kind.TASK, "claimed")
    await role_stage.claim_by_ghost(claimed, State.CLAIMED)
    await role_stage.send("claimed")
    await role_stage.finished(claimed)

    running = await role_stage.send("running", Lane("b"))
    await role_stage.claim_by_ghost(running, State.RUNNING)

    async def is_buried() -> bool:
        await role_stage.dispatcher.inspector.watch([running])
        return await is_gone(role_stage, running)

    await wait_until(is_buried, 10, "the dead worker to be noticed")
    assert "ghost lost" in (await role_stage.reported("running", State.FAILED)).info


async def take_back(role_stage: RoleStage) -> None:
    waiting, running = await role_stage.send("waiting", Lane("b")), await role_stage.send("stopped")
    run = await role_stage.run_of("stopped")
    run.deadly.add(signal.SIGTERM)
    await role_stage.dispatcher.revoke(waiting.lane, waiting.id, "")
    await role_stage.dispatcher.revoke(running.lane, running.id, role_stage.worker.state.id)

    assert not await role_stage.is_queued(waiting)
    await wait_until(lambda: run.is_over, 10, "the stop")


async def look_around(role_stage: RoleStage) -> None:
    """What a scheduler does after a start and from time to time, and what a monitor shows."""
    unserved = await role_stage.send("unserved", Lane("b"))
    await role_stage.send("new", Lane("new"))
    inspector = role_stage.dispatcher.inspector
    places = [(unserved.lane, unserved.id), (Lane("a"), "old"), (Lane("a"), "nothing")]
    evidence = await inspector.look_up(places)
    assert [evidence[id_].is_in_stream for _, id_ in places] == [True, False, False]
    assert evidence["old"].last_report
    await inspector.sweep([unserved])
    assert inspector.unserved == {unserved.lane}

    reading = await Telemetry(role_stage.settings("scheduler"))._read(
        role_stage.dispatcher.require_broker
    )
    assert reading.is_connected
    dispatcher = role_stage.dispatcher
    await dispatcher.chronicle.write(dispatcher.require_broker(), 1000)
    logs = TaskLogs(lambda: role_stage.settings("api_server"))
    source, _ = await asyncio.to_thread(logs.read, "held0", "a")
    await asyncio.to_thread(logs.close)
    assert "on worker w" in source[0]

    for user in ("admin", *DAILY):
        asked = await state_of_executor(await role_stage.broker(user), NAMES, "7")
        assert asked.state, asked.silence
        assert asked.state.sender == "scheduler-1"
    for user in ("admin", "operator"):
        order = ProbeOrder(queue="a", seconds=20.0)
        pinged = await ping_queue(await role_stage.broker(user), NAMES, ["7"], order)
        assert (pinged.failure, pinged.result and pinged.result.worker) == ("", "w")
    for user in ("admin", *DAILY, "monitor"):
        settings = role_stage.settings(user)
        survey = await take_survey(await role_stage.broker(user), settings)
        statuses = {row["check"]: row["status"] for row in check_rows(survey, settings)}
        assert statuses["streams"] == statuses["queue a"] == "ok"
        assert statuses["queue b"] == "unserved"
        assert survey.usage is not None


async def explain_what_waits(role_stage: RoleStage, user: str) -> None:
    """What an operator finds out about one task without reading a workload."""
    settings, broker = role_stage.settings(user), await role_stage.broker(user)
    instance = Instance(
        dag="d", run="r", task="t", map_index=None, try_number=1, state="queued", queue="b",
        dispatch_id="unserved",
    )  # fmt: skip

    assert conclude(await look_in_nats(broker, settings, instance)).cause is Cause.NO_WORKER
    held = dataclasses.replace(instance, queue="a", dispatch_id="held0")
    assert (await look_in_nats(broker, settings, held)).is_reported


async def keep_logs(role_stage: RoleStage) -> None:
    for user in ("worker_a", "triggerer"):
        await role_stage.store_log(user, "a", f"{user}.log")
        reader = await role_stage.broker("api_server")
        [part] = (await store.find(reader, NAMES, "a", f"{user}.log")).parts
        found = await store.chunks(reader, NAMES, "a", f"{user}.log", part, part.numbers)
        assert found == [f"stored by {user}".encode()]


async def ask_what_runs(role_stage: RoleStage, user: str) -> None:
    operator, settings = await role_stage.broker(user), role_stage.settings(user)
    [seen] = await seen_workers(operator, settings)
    description = await description_of(operator, settings, seen, ["held0"])
    assert isinstance(description, Description), description
    assert [(one.dispatch_id, one.phase) for one in description.carried] == [("held0", "running")]
    [pinged] = await ping_workers(operator, settings, Which([]))
    assert pinged.seconds is not None
    [kept] = await forget_workers(operator, settings, Which(["w"]))
    assert "answers" in kept.text


async def drain(role_stage: RoleStage, user: str) -> None:
    """An operator's drain is noted where the worker's own login finds it at its next start."""
    operator, settings = await role_stage.broker(user), role_stage.settings(user)
    outcome = await drain_workers(operator, settings, Which(["w"]), by="ann", reason="")
    assert [seen.presence.name for seen in outcome.obeying] == ["w"]
    again = Worker(role_stage.worker._settings, role_stage.worker.state.plan)
    assert await again.drains.look_up(await role_stage.broker("worker_a"))
    assert again.state.drained
    assert again.state.drained.by == "ann"
    (result,) = await undrain_workers(operator, settings, Which([], "a"), by="ann")
    assert result.is_obeyed
    assert await seen_notes(operator, NAMES) == []


async def pause(role_stage: RoleStage, by_user: str) -> None:
    """Everyone who looks sees who paused a queue; whatever runs goes on."""
    wish = Wish(by="ann", reason="new driver", seconds=60.0)
    operator = await role_stage.broker(by_user)
    await pause_queues(operator, NAMES, ["a"], wish)
    for user in ("admin", *DAILY, "monitor"):
        survey = await take_survey(await role_stage.broker(user), role_stage.settings(user))
        [details] = [
            row["details"] for row in check_rows(survey, role_stage.settings(user))
            if row["check"] == "queue a"
        ]  # fmt: skip
        assert "paused by ann" in details
    await resume_queues(operator, NAMES, ["a"])


async def read_letters(role_stage: RoleStage, by_user: str) -> None:
    operator = await role_stage.broker(by_user)
    [letter] = (await find_letters(operator, NAMES, Wanted(queue="a"), 9)).letters
    assert (letter.dispatch_id, letter.size) == ("garbage", len(b"garbage"))
    assert (await letters_at(operator, NAMES, [letter.sequence])).letters == [letter]
    page = await letters_page(operator, NAMES, Wanted(), before=None, most=9)
    assert page.letters == [letter]
    assert "not a msgpack message" in letter.reason
    for user, reason in ((by_user, "not a msgpack"), ("monitor", "")):
        survey = await take_survey(await role_stage.broker(user), role_stage.settings(user))
        [row] = [
            r for r in check_rows(survey, role_stage.settings(user)) if r["check"] == "dead letters"
        ]
        assert row["status"] == "new"
        assert row["details"].startswith("1 kept")
        assert reason in row["details"]


async def remove_letters_of_the_page(role_stage: RoleStage) -> None:
    broker = await role_stage.broker("api_server")
    letters = (await find_letters(broker, NAMES, Wanted(), 9)).letters
    assert await remove_letters(broker, NAMES, letters) == 1
    # Of a worker that it forgets.
    assert await broker.purge(NAMES.workers_stream, NAMES.presence("a", "nobody")) == 0
    lane, buried = NAMES.dead_letter("a", "again"), b"for the operator"
    await role_stage.root.publish(lane, buried)


async def empty(role_stage: RoleStage) -> None:
    """What an operator purges; none of that stops what runs."""
    broker = await role_stage.broker("operator")
    for kind in Store:
        what = purge_of(NAMES, kind, None)
        row = await carry_out(broker, what)
        assert row["removed_messages"] > 0, row


async def retire(role_stage: RoleStage) -> None:
    role_stage.worker.ask_to_stop(signal.SIGTERM)
    await asyncio.wait_for(asyncio.shield(role_stage.working), 20)
    record = await role_stage.root.last(NAMES.workers_stream, NAMES.presence("a", "w"))
    assert record is not None
    assert record.body == b""


async def delete(role_stage: RoleStage) -> None:
    """An administrator deletes a queue that no worker serves any more."""
    outcome = await delete_queue(role_stage.admin, role_stage.settings("admin"), "a")
    assert outcome.is_obeyed, outcome
    names = {info.queue for info in await role_stage.root.consumer_infos(NAMES.tasks_stream)}
    assert "a" not in names

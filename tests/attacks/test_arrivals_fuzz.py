"""No message, report, record or request brings a worker, an executor or a command down."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nats_executor.broker.port import Stored
from nats_executor.fleet.liveness import Holder, Liveness, readable
from nats_executor.fleet.queues import queue_rows
from nats_executor.operations.survey import check_rows, take_survey, worker_rows
from nats_executor.scheduler.dispatcher import Dispatcher
from nats_executor.scheduler.ledger import Dispatch, Ledger
from nats_executor.scheduler.reports import Mailbox
from nats_executor.topology import setup
from nats_executor.wire.messages import Kind, Presence, Report, State, Workload, decode, encode
from nats_executor.wire.names import Verb
from nats_executor.wire.redaction import without_tokens
from nats_worker.control.presence import Announcer
from nats_worker.delivery.errand import Errand
from nats_worker.delivery.shared import Shared
from nats_worker.processes.exit_report import Ending
from nats_worker.state import Plan
from nats_worker.worker import Worker
from tests.support.fake_broker import FakePulls, FakeServer
from tests.support.fake_pool import FakePool
from tests.support.fixtures import settings_for
from tests.support.gated_broker import Loop
from tests.support.strange_messages import EXAMPLES, ME, as_map, bodies, nested, read

if TYPE_CHECKING:
    from collections.abc import Coroutine

SETTINGS = settings_for("nats://127.0.0.1:4222")
NAMES = SETTINGS.names
TASK_SUBJECT = NAMES.task("default", "d1")
RESULT_SUBJECT = NAMES.result("default", "d1")
PLAN = Plan(
    name="me", queues=("default",), concurrency=9, team=None, cleanup_seconds=0.0, version="1"
)


# A worker


class Stage:
    """A worker, its broker and the loop that it runs in."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.server = FakeServer(monotonic=lambda: -1e9)
        self.broker = self.server.broker()
        self.pool = FakePool()
        self.is_other_alive = False
        self.finish(setup.apply(self.broker, SETTINGS, ["default"]))
        self.worker = Worker(SETTINGS, PLAN)
        self.worker.state.id = ME

    async def is_alive(self, *_: str) -> bool:
        return self.is_other_alive

    def finish(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run to the end, however long that takes by the loop's clock."""
        task = self.loop.create_task(coroutine)
        for _ in range(100):
            self.loop.settle()
            if task.done():
                return task.result()
            self.loop.now += 1.0
        raise AssertionError("it never ends")

    def errand(self) -> Errand:
        shared = Shared(
            broker=self.broker, settings=SETTINGS, pool=self.pool, leases=self.worker.leases,
            liveness=cast("Any", self), worker=ME, worker_name="me",
        )  # fmt: skip
        delivery = FakePulls(self.broker, NAMES.tasks_stream, "default").next_offer()
        assert delivery is not None
        return Errand(shared, "default", delivery)

    def carry(self, ending: Ending, *, is_started: bool = False) -> None:
        """Deliver once, and let the process, if there is one, end so."""
        carrying = self.loop.create_task(self.errand().carry(lambda: None))
        self.loop.settle()
        for run in self.pool.living:
            if is_started:
                run.begin()
                self.loop.settle()
            run.finish(ending)
        self.finish(asyncio.wait_for(carrying, 50))

    def put(self, body: bytes) -> None:
        self.server.put(TASK_SUBJECT, body)

    @property
    def is_queued(self) -> bool:
        return bool(self.server.messages(NAMES.tasks_stream))

    @property
    def is_handed_back(self) -> bool:
        """Whether the broker will offer the message again, before its time is up by itself."""
        (flight,) = self.server.consumer(NAMES.tasks_stream, "default").flights.values()
        return flight.due < self.server.now + SETTINGS.ack_wait_seconds

    @property
    def last(self) -> Report | None:
        found = self.server.stream(NAMES.results_stream).last(RESULT_SUBJECT)
        return read(Report, found.body) if found else None

    @property
    def dead_letters(self) -> list[bytes]:
        return [message.body for message in self.server.messages(NAMES.dead_letters_stream)]

    def close(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.settle()
        self.loop.close()


endings = st.sampled_from(Ending)


@settings(max_examples=60)
@given(bodies(Workload), endings, st.booleans())
@example(b"", Ending.FINISHED, False)
def test_no_message_falls_a_worker(body: bytes, ending: Ending, is_started: bool) -> None:
    stage = Stage()
    try:
        stage.put(body)

        stage.carry(ending, is_started=is_started)

        assert stage.last is not None
        if stage.pool.requested:
            assert stage.dead_letters == []
            is_given_back = stage.last.state in {State.RELEASED, State.EXPIRED}
            assert stage.last.state.is_final or is_given_back
            assert not stage.is_queued or (is_given_back and stage.is_handed_back)
        elif stage.last.state is State.FAILED:
            assert stage.dead_letters == [without_tokens(body)]
            assert not stage.is_queued
        else:
            assert stage.last.state is State.EXPIRED
            assert stage.is_handed_back
    finally:
        stage.close()


@settings(max_examples=60)
@given(bodies(Report), bodies(Workload) | st.just(encode(EXAMPLES[Workload])), endings)
def test_no_report_falls_a_worker(report: bytes, body: bytes, ending: Ending) -> None:
    """Whatever is said about a workload, its message goes or comes again."""
    for is_other_alive in (False, True):
        stage = Stage()
        stage.is_other_alive = is_other_alive
        try:
            stage.server.put(RESULT_SUBJECT, report)
            stage.put(body)

            stage.carry(ending)

            assert not stage.is_queued or stage.is_handed_back
            assert not stage.worker.leases._held
        finally:
            stage.close()


@given(st.binary() | st.sampled_from([b"d1", b"d1\x00", b"d1 ", b"\xff", b"x" * 10_000]))
def test_no_control_request_falls_a_worker(body: bytes) -> None:
    stage = Stage()
    try:
        stage.put(encode(EXAMPLES[Workload]))
        errand = stage.errand()
        stage.worker.crew.errands.add(errand)
        announcer = Announcer(stage.broker, SETTINGS, stage.worker.state.presence)
        stage.finish(stage.worker.serve_control(stage.broker, announcer))

        stop = stage.broker.request(NAMES.control(ME, Verb.STOP), body, timeout=1.0)
        ping = stage.broker.request(NAMES.control(ME, Verb.PING), body, timeout=1.0)

        assert stage.finish(stop) == (b"stopping" if body == b"d1" else b"unknown")
        assert errand.is_revoked is (body == b"d1")
        assert decode(Presence, stage.finish(ping)).worker == ME
    finally:
        stage.close()


# An executor, and the commands


@given(bodies(Report))
def test_no_report_falls_an_executor(body: bytes) -> None:
    mailbox = Mailbox(SETTINGS.names)
    ledger = Ledger()
    ledger.track(Dispatch("d1", "key", "default", Kind.TASK, "ti"))

    mailbox.take(Stored(RESULT_SUBJECT, 1, body))

    for report in mailbox.reports:
        assert (report.dispatch_id, report.queue) == ("d1", "default")
        outcome = ledger.apply(report)
        assert (outcome is None) or outcome.dispatch.id == "d1"


def key_of(record: bytes) -> str:
    """Return the key of what a record is about, if that can be read."""
    presence = read(Presence, record)
    queue = presence.queues[0] if presence and presence.queues else "default"
    return NAMES.presence(queue, presence.name if presence else "w")


@settings(max_examples=30)
@given(st.lists(bodies(Presence), min_size=1, max_size=3))
def test_no_presence_record_falls_anybody(records: list[bytes]) -> None:
    stage = Stage()
    try:
        for record in records:
            stage.server.put(key_of(record), record)
        message = stage.server.messages(NAMES.workers_stream)[0]

        presence = readable(message)
        survey = stage.finish(take_survey(stage.broker, SETTINGS))
        liveness = Liveness(stage.broker, SETTINGS)

        last = {key_of(record): read(Presence, record) for record in records}
        about_one_queue = {p.name for p in last.values() if p and len(set(p.queues)) <= 1}
        assert {seen.presence.name for seen in survey.workers} == about_one_queue
        about_queues = queue_rows(survey.consumers, survey.workers, SETTINGS)
        for rows in (worker_rows(survey, SETTINGS), check_rows(survey, SETTINGS), about_queues):
            assert all(isinstance(row, dict) for row in rows)
        if presence is not None:
            holder = Holder(presence.presence.worker, presence.presence.name, "default")
            assert isinstance(stage.finish(liveness.is_alive(holder)), bool)
    finally:
        stage.close()


# Single messages that are too much


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"dispatch_id": "\0" * 900_000}, id="an id that is longer when it is shown"),
        pytest.param({"kind": "\0" * 900_000}, id="a kind that is longer when it is shown"),
        pytest.param({"key": ["x" * (1_048_576 - 140)]}, id="a key that fills a message"),
    ],
)
def test_a_message_about_which_no_report_would_fit_is_set_aside(changes: dict[str, Any]) -> None:
    stage = Stage()
    try:
        stage.put(bytes(msgpack.packb(as_map(Workload, **changes))))

        stage.carry(Ending.FINISHED)

        assert stage.last is not None
        assert not stage.is_queued
    finally:
        stage.close()


@pytest.mark.parametrize("generation", [2**64 - 1])
def test_no_generation_falls_a_dispatcher(generation: int) -> None:
    """One that `renew` cannot write would be tried again for ever."""
    stage = Stage()
    dispatcher = Dispatcher(SETTINGS, "s")
    dispatcher._broker = stage.broker
    for kept in dispatcher._streams._kept.values():
        kept.trouble = None
    values = as_map(Report, state="expired", generation=generation)
    stage.server.put(RESULT_SUBJECT, bytes(msgpack.packb(values)))
    try:
        stage.finish(dispatcher.renew(Dispatch("d1", "key", "default", Kind.TASK, "ti"), "new"))

        assert dispatcher._pending == {}
    finally:
        stage.close()


def test_no_attempt_falls_a_worker() -> None:
    stage = Stage()
    try:
        values = as_map(Report, state="renewed", attempt=-(2**63))
        stage.server.put(RESULT_SUBJECT, bytes(msgpack.packb(values)))
        stage.put(encode(EXAMPLES[Workload]))

        stage.carry(Ending.UNREACHABLE)

        assert stage.is_handed_back
    finally:
        stage.close()


def test_a_record_with_deeply_nested_queues_does_no_harm() -> None:
    stage = Stage()
    try:
        record = bytes(msgpack.packb(as_map(Presence, queues=nested(1000))))
        stage.server.put(NAMES.presence("default", "w"), record)

        rows = worker_rows(stage.finish(take_survey(stage.broker, SETTINGS)), SETTINGS)

        assert len(rows) <= 1
    finally:
        stage.close()


def test_what_a_report_tells_can_be_stored_by_postgresql() -> None:
    """Its text columns take no NUL, and the scheduler does not survive the refusal."""
    values = as_map(Report, state="failed", info="a\0b")
    ledger = Ledger()
    ledger.track(Dispatch("d1", "key", "default", Kind.TASK, "ti"))
    mailbox = Mailbox(SETTINGS.names)

    mailbox.take(Stored(RESULT_SUBJECT, 1, bytes(msgpack.packb(values))))

    told = [ledger.apply(report) for report in mailbox.reports]
    assert all("\0" not in getattr(outcome, "info", "") for outcome in told)

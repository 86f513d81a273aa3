"""A worker from the outside: revoked workloads, drains, names, and the end of its parts."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import replace
from signal import SIGINT, SIGKILL, SIGTERM
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.wire.messages import Presence, State, decode
from nats_executor.wire.names import Verb
from nats_worker import worker as worker_module
from nats_worker.control.presence import NameTaken
from nats_worker.processes.exit_report import Ending
from nats_worker.processes.pool import PoolBroken
from nats_worker.worker import background
from tests.support.waiting import wait_until
from tests.support.worker_stage import WorkerStage, worker_stage_fixture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats_executor.broker.port import Stored
    from nats_worker.worker import Worker
    from tests.support.fake_broker import FakeBroker
    from tests.support.fake_pool import FakeRun

__all__ = ["worker_stage_fixture"]

pytestmark = pytest.mark.anyio


async def running(worker_stage: WorkerStage) -> tuple[Worker, FakeRun]:
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)
    return worker, run


async def revoke(worker_stage: WorkerStage, worker: Worker, dispatch_id: str = "d1") -> bytes:
    subject = worker_stage.names.control(worker.state.id, Verb.STOP)
    return await worker_stage.broker.request(subject, dispatch_id.encode(), timeout=1.0)


async def ping(worker_stage: WorkerStage, worker: Worker, *dispatch_ids: str) -> Presence:
    subject = worker_stage.names.control(worker.state.id, Verb.PING)
    reply = await worker_stage.broker.request(subject, " ".join(dispatch_ids).encode(), timeout=1.0)
    return decode(Presence, reply)


# Telling what is here


async def test_a_worker_denies_what_is_not_in_its_hands(worker_stage: WorkerStage) -> None:
    worker, run = await running(worker_stage)

    assert (await ping(worker_stage, worker, "d1", "d2")).lacks == ["d2"]
    assert (await ping(worker_stage, worker)).lacks == []

    run.finish()
    await worker_stage.done()
    await wait_until(lambda: not worker.crew.errands, 30, "its errand to end")
    assert (await ping(worker_stage, worker, "d1")).lacks == ["d1"]


async def test_a_worker_denies_nothing_whose_end_it_could_not_report_yet(
    worker_stage: WorkerStage,
) -> None:
    """An executor would take it for lost, and fail what has just succeeded."""
    worker, run = await running(worker_stage)
    link = worker_stage.link_of(worker)
    link.fail_next("publish", 2)

    run.finish()
    await wait_until(lambda: not link.failures["publish"], 30, "two reports that do not arrive")

    assert (await ping(worker_stage, worker, "d1")).lacks == []
    await worker_stage.reported(State.SUCCESS)
    await wait_until(lambda: not worker.crew.errands, 30, "its errand to end")
    assert (await ping(worker_stage, worker, "d1")).lacks == ["d1"]


async def test_a_worker_has_what_waits_for_its_start(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()

    assert (await ping(worker_stage, worker, "d1")).lacks == []

    run.begin()
    run.finish()
    await worker_stage.done()


@pytest.mark.parametrize(
    "question", [b"\xff\xfe", b" \n ", b"d " * 2**20], ids=["no text", "no words", "too many"]
)
async def test_any_question_is_answered(worker_stage: WorkerStage, question: bytes) -> None:
    worker = await worker_stage.start()
    subject = worker_stage.names.control(worker.state.id, Verb.PING)

    reply = await worker_stage.broker.request(subject, question, timeout=1.0)

    assert len(reply) < 1000
    assert decode(Presence, reply).worker == worker.state.id


# Revoking


async def test_a_running_workload_is_revoked(worker_stage: WorkerStage) -> None:
    worker, run = await running(worker_stage)
    run.deadly = {SIGTERM}

    assert await revoke(worker_stage, worker) == b"stopping"
    await worker_stage.done()

    assert run.signals == [SIGTERM]
    assert worker_stage.events == ["claimed", "running", "dropped", "ack"]


async def test_a_revoked_workload_that_ignores_sigterm_is_killed(worker_stage: WorkerStage) -> None:
    worker, run = await running(worker_stage)
    run.deadly = {SIGKILL}

    await revoke(worker_stage, worker)
    await worker_stage.done()

    assert run.signals == [SIGTERM, SIGKILL]
    assert worker_stage.events == ["claimed", "running", "dropped", "ack"]


async def test_a_workload_is_revoked_before_it_is_claimed(
    worker_stage: WorkerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await worker_stage.start()
    link = worker_stage.link_of(worker)
    look = link.last

    async def look_and_revoke(stream: str, subject: str) -> Stored | None:
        worker.crew.revoke("d1")
        return await look(stream, subject)

    monkeypatch.setattr(link, "last", look_and_revoke)
    worker_stage.send()
    await worker_stage.done()

    assert worker_stage.events == ["claimed", "dropped", "ack"]
    assert worker_stage.pool.requested == []


async def test_a_workload_is_revoked_while_its_process_is_asked_for(
    worker_stage: WorkerStage,
) -> None:
    worker = await worker_stage.start()
    worker_stage.pool.gate.clear()
    worker_stage.send()
    await worker_stage.reported(State.CLAIMED)
    await revoke(worker_stage, worker)
    worker_stage.pool.gate.set()
    await worker_stage.done()

    assert worker_stage.pool.requested == []
    assert (await worker_stage.reported(State.DROPPED)).info == "the scheduler took it back"


async def test_a_workload_is_revoked_after_its_redelivery(worker_stage: WorkerStage) -> None:
    worker, run = await running(worker_stage)
    worker_stage.server.advance(worker_stage.settings.ack_wait_seconds + 1)
    await wait_until(lambda: worker.leases._held["d1"].delivery.num_delivered == 2, 5, "it")
    run.deadly = {SIGTERM}

    assert await revoke(worker_stage, worker) == b"stopping"
    await worker_stage.done()


async def test_what_is_not_here_cannot_be_revoked(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()

    assert await revoke(worker_stage, worker, "d7") == b"unknown"
    subject = worker_stage.names.control(worker.state.id, Verb.STOP)
    assert await worker_stage.broker.request(subject, b"\xff no text", timeout=1.0) == b"unknown"


# Draining


async def test_a_drain_lets_running_tasks_end_and_takes_no_more(worker_stage: WorkerStage) -> None:
    worker, run = await running(worker_stage)
    life = worker_stage.lives[worker.state.id]
    worker.ask_to_stop(SIGTERM)
    await wait_until(
        lambda: (p := worker_stage.presence()) and p.draining, 5, "the record to say so"
    )
    worker_stage.send(dispatch_id="d2")
    assert not life.done()

    run.finish()
    await asyncio.wait_for(life, 5)

    assert worker_stage.events == ["claimed", "running", "success", "ack"]
    assert worker_stage.is_queued("d2")
    assert run.signals == []
    assert worker_stage.presence() is None
    record = worker_stage.server.headers[worker_stage.names.presence("default", "me")]
    assert record == {"KV-Operation": "DEL"}


async def test_what_no_process_has_goes_to_another_worker_at_once(
    worker_stage: WorkerStage,
) -> None:
    worker = await worker_stage.start("old")
    worker_stage.pool.gate.clear()
    worker_stage.send()
    await worker_stage.reported(State.CLAIMED)
    heir = worker_stage.launch("new", concurrency=1)
    worker.ask_to_stop(SIGTERM)
    await wait_until(lambda: worker.state.is_draining, 5, "the drain")
    worker_stage.pool.gate.set()

    (await worker_stage.pool.run()).finish()
    await worker_stage.done()

    assert worker_stage.events == ["claimed", "released", "nak", "claimed", "success", "ack"]
    report = await worker_stage.reported(State.SUCCESS)
    assert (report.worker, report.attempt) == (heir.state.id, 1)


async def test_what_a_process_has_is_not_taken_from_it(worker_stage: WorkerStage) -> None:
    """It may have asked for its start, so another worker might find it running."""
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    worker.ask_to_stop(SIGTERM)
    await wait_until(lambda: worker.state.is_draining, 5, "the drain")

    assert run.signals == []
    run.begin()
    run.finish()
    await worker_stage.done()

    assert worker_stage.events[-2:] == ["success", "ack"]


async def test_what_was_certainly_not_asked_for_is_handed_back_by_a_drain(
    worker_stage: WorkerStage,
) -> None:
    worker_stage.settings = replace(worker_stage.settings, kill_seconds=60.0, drain_seconds=0.1)
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    worker.ask_to_stop(SIGTERM)
    await wait_until(lambda: run.signals == [SIGTERM], 5, "the drain's second step")

    run.finish(Ending.GIVEN_UP)

    report = await worker_stage.reported(State.RELEASED)
    assert (report.info, report.attempt) == ("this worker takes nothing more", 0)


@pytest.mark.parametrize(
    ("requests", "signals"), [(1, []), (2, [SIGTERM]), (3, [SIGTERM, SIGKILL])]
)
async def test_each_further_request_makes_the_drain_less_patient(
    worker_stage: WorkerStage, requests: int, signals: list[int]
) -> None:
    worker_stage.settings = replace(worker_stage.settings, kill_seconds=60.0, drain_seconds=60.0)
    worker, run = await running(worker_stage)
    for sig in (SIGTERM, SIGINT, SIGTERM)[:requests]:
        worker.ask_to_stop(sig)
    await wait_until(lambda: run.signals == signals, 5, "the signals")

    run.finish(exit_code=-signals[-1] if signals else 0)
    await asyncio.wait_for(worker_stage.lives[worker.state.id], 5)
    assert worker_stage.events == ["claimed", "running", "failed" if signals else "success", "ack"]


async def test_patience_ends_by_itself(worker_stage: WorkerStage) -> None:
    worker_stage.settings = replace(worker_stage.settings, kill_seconds=0.1, drain_seconds=0.1)
    worker, run = await running(worker_stage)
    run.deadly = {SIGKILL}

    await worker_stage.stop(worker)

    assert run.signals == [SIGTERM, SIGKILL]
    assert worker_stage.events == ["claimed", "running", "failed", "ack"]


async def test_a_request_that_comes_while_the_worker_starts(
    worker_stage: WorkerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client swallows the cancellation that meets its subscription."""
    broker = worker_stage.server.broker()
    is_serving = asyncio.Event()

    async def swallow(*_: object) -> None:
        is_serving.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    @contextlib.asynccontextmanager
    async def connect(*_: Any, **__: Any) -> AsyncIterator[FakeBroker]:
        yield broker

    monkeypatch.setattr(broker, "serve", swallow)
    monkeypatch.setattr(worker_module, "connect", connect)
    worker = worker_stage.launch()
    await is_serving.wait()

    await worker_stage.stop(worker)


async def test_what_nothing_ends_is_left_to_other_workers(
    worker_stage: WorkerStage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_module, "LAST_REPORTS_SECONDS", 0.1)
    worker_stage.settings = replace(worker_stage.settings, kill_seconds=0.1, drain_seconds=0.1)
    worker, run = await running(worker_stage)
    worker_stage.server.stop()

    await worker_stage.stop(worker)

    assert "leaving 1 workload to other workers" in caplog.text
    assert run.is_over
    worker_stage.server.start()
    assert worker_stage.is_queued()
    await wait_until(
        lambda: not worker.crew.tasks or cancel(worker.crew.tasks), 5, "its tasks to end"
    )


def cancel(tasks: set[asyncio.Task[None]]) -> bool:
    """Do what `asyncio.run` does at its end."""
    for task in tasks:
        task.cancel()
    return False


async def test_an_errand_ends_when_the_loop_does(
    worker_stage: WorkerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even while it reports the start, or the worker would hang instead of ending."""
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()

    async def hang(*_: object, **__: object) -> int:
        await asyncio.Event().wait()
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(worker_stage.link_of(worker), "publish", hang)
        run.begin()
        run.finish()
        await wait_until(lambda: worker.state.slots.used == 0, 5, "the end of the process")
        cancel(worker.crew.tasks)
        await worker_stage.idle(worker)


# Names and presence


async def test_two_workers_of_one_name(worker_stage: WorkerStage) -> None:
    first = await worker_stage.start()
    second = worker_stage.launch()

    with pytest.raises(ExceptionGroup) as caught:
        await worker_stage.lives[second.state.id]

    assert caught.group_contains(
        NameTaken, match=r"a worker named 'me' runs already .*another name with --hostname"
    )
    assert worker_stage.is_seen(first)
    presence = worker_stage.presence()
    assert presence
    assert not presence.draining


async def test_two_workers_of_one_name_that_start_together(worker_stage: WorkerStage) -> None:
    workers = [worker_stage.launch(), worker_stage.launch()]
    lives = [worker_stage.lives[worker.state.id] for worker in workers]

    done, _ = await asyncio.wait(lives, return_when=asyncio.FIRST_COMPLETED)

    assert len(done) == 1
    assert isinstance(done.pop().exception(), ExceptionGroup)


async def test_the_name_of_a_dead_worker_is_free(worker_stage: WorkerStage) -> None:
    dead = await worker_stage.start()
    worker_stage.lives[dead.state.id].cancel()
    await asyncio.wait([worker_stage.lives[dead.state.id]])

    heir = await worker_stage.start()

    assert worker_stage.is_seen(heir)


async def test_a_worker_answers_with_what_it_does(worker_stage: WorkerStage) -> None:
    worker, run = await running(worker_stage)

    answer = await worker_stage.broker.request(
        worker_stage.names.control(worker.state.id, Verb.PING), b"", timeout=1.0
    )

    presence = decode(Presence, answer)
    assert (presence.worker, presence.running, presence.concurrency) == (worker.state.id, 1, 2)
    assert presence.queues == ["default"]
    run.finish()


async def test_a_worker_waits_for_the_streams_and_says_so_once(
    worker_stage: WorkerStage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "ENTER_RETRY_SECONDS", 0.01)
    worker_stage.settings = replace(worker_stage.settings, connect_timeout_seconds=0.01)
    streams, worker_stage.server.streams = worker_stage.server.streams, {}
    worker = worker_stage.launch()
    link = worker_stage.broker
    await wait_until(lambda: "waiting for NATS" in caplog.text, 5, "the log line")

    worker_stage.server.streams = streams
    await wait_until(lambda: worker_stage.is_seen(worker), 5, "the worker to start")

    lines = re.findall(r"waiting for NATS: .*; next: asking until it answers", caplog.text)
    assert len(lines) == 1
    assert link.is_connected


# Its parts


async def test_a_pool_that_breaks_down_ends_the_worker_after_its_reports(
    worker_stage: WorkerStage,
) -> None:
    worker, _ = await running(worker_stage)

    worker_stage.pool.break_down()
    with pytest.raises(ExceptionGroup) as caught:
        await worker_stage.lives[worker.state.id]

    assert caught.group_contains(PoolBroken)
    assert worker_stage.events == ["claimed", "running", "failed", "ack"]
    assert worker_stage.presence() is None


async def test_a_part_that_fails_ends_the_worker() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        async with background(fail()):
            await asyncio.Event().wait()


async def test_a_part_that_goes_on_for_ever_ends_with_the_body() -> None:
    async def go_on() -> None:
        await asyncio.Event().wait()

    async with asyncio.timeout(1), background(go_on()):
        pass


async def test_bundles_are_cleaned_up_from_time_to_time(worker_stage: WorkerStage) -> None:
    worker = worker_stage.launch()
    worker.state.plan = replace(worker.state.plan, cleanup_seconds=0.01)

    await wait_until(lambda: len(worker_stage.pool.cleanups) > 1, 5, "two cleanups")

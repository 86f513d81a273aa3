"""One delivery: who may run it, with which token, and what becomes of unreadable messages."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import inspect
import logging
import time
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from nats_executor.errors import AccessDenied
from nats_executor.wire.messages import Kind, Presence, State, encode
from nats_executor.wire.redaction import without_tokens
from nats_executor.wire.sizes import CUT_LETTER_BYTES
from nats_worker import crew
from nats_worker.delivery import errand, record
from nats_worker.delivery.errand import RENEWAL_SECONDS, SOON_SECONDS
from nats_worker.processes.exit_report import Ending
from tests.support.emptying import empty
from tests.support.waiting import wait_until
from tests.support.worker_stage import ACK_WAIT, WorkerStage, task, token, worker_stage_fixture

if TYPE_CHECKING:
    from types import ModuleType

    from nats_executor.broker.port import Stored
    from nats_worker.worker import Worker

__all__ = ["worker_stage_fixture"]

pytestmark = pytest.mark.anyio

# Longer than any pause before an errand looks again at what another worker holds.
LATER = ACK_WAIT + 1
LOGGING = {f"log.{level}" for level in ("info", "warning", "error", "exception", "log")}


def redeliveries(worker_stage: WorkerStage) -> int:
    names = worker_stage.names
    return worker_stage.server.consumer(names.tasks_stream, names.consumer("default")).redelivered


async def redelivered(worker_stage: WorkerStage, worker: Worker, times: int = 1) -> None:
    """Let the message come again, and wait until the worker has dealt with that."""
    worker_stage.server.advance(LATER)
    await wait_until(lambda: redeliveries(worker_stage) == times, 5, "a redelivery")
    await wait_until(
        lambda: len(worker.crew.tasks) == len(worker_stage.pool.living), 5, "its errand to end"
    )


async def test_a_dead_letter_too_large_for_its_reason_leaves_the_reason(
    worker_stage: WorkerStage,
) -> None:
    await worker_stage.start()
    worker_stage.server.max_payload = 400
    names = worker_stage.names
    worker_stage.server.put(names.task("default", "d1"), b"x" * 390)
    await worker_stage.done()

    (letter,) = worker_stage.server.messages(names.dead_letters_stream)
    assert letter.body == b""
    assert (await worker_stage.reported(State.FAILED)).info.startswith("dead letter: not a msgpack")


async def test_a_dead_letter_too_large_for_its_stream_keeps_its_beginning(
    worker_stage: WorkerStage,
) -> None:
    await worker_stage.start()
    names = worker_stage.names
    limit = 100_000
    worker_stage.server.stream(names.dead_letters_stream).config["max_msg_size"] = limit
    body = bytes(range(200, 250)) * 3000
    worker_stage.server.put(names.task("default", "d1"), body)
    await worker_stage.done()

    (letter,) = worker_stage.server.messages(names.dead_letters_stream)
    assert letter.body == body[:CUT_LETTER_BYTES]
    assert (await worker_stage.reported(State.FAILED)).info.startswith("dead letter: not a msgpack")


# Claiming


async def test_a_workload_is_claimed_run_reported_and_acked_in_this_order(
    worker_stage: WorkerStage,
) -> None:
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)

    run.finish()
    await worker_stage.done()

    assert worker_stage.events == ["claimed", "running", "success", "ack"]
    report = await worker_stage.reported(State.SUCCESS)
    assert (report.worker, report.worker_name, report.pid) == (worker.state.id, "me", 77)
    assert (report.key, report.sender, report.kind) == (["dag", "d1"], "scheduler", Kind.TASK)
    assert run.body["ti"] == {"id": "d1"}


async def test_a_lost_race_hands_the_message_back(
    worker_stage: WorkerStage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worker = await worker_stage.start()
    link = worker_stage.link_of(worker)
    look = link.last

    async def look_too_early(stream: str, subject: str) -> Stored | None:
        found = await look(stream, subject)
        worker_stage.says(State.CLAIMED)
        return found

    monkeypatch.setattr(link, "last", look_too_early)
    worker_stage.send()

    await worker_stage.happened("nak")

    assert worker_stage.is_queued()
    assert worker_stage.pool.requested == []
    assert "d1: another worker or a scheduler reported first; next: offering it" in caplog.text


async def test_a_claim_whose_answer_was_lost_is_found_and_kept(worker_stage: WorkerStage) -> None:
    """The others leave it to this worker, which may have no slot the next time."""
    worker = await worker_stage.start()
    worker_stage.link_of(worker).lose_next_pubacks()
    worker_stage.send()

    (await worker_stage.pool.run()).finish()
    await worker_stage.done()

    assert len(worker_stage.pool.requested) == 1
    assert worker_stage.events == ["claimed", "success", "ack"]


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_claim_that_was_not_taken_is_asked_for_again(
    worker_stage: WorkerStage, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream without a leader takes nothing; handed back, the workload would wait for long."""
    caplog.set_level(logging.INFO)
    worker = await worker_stage.start()
    worker_stage.link_of(worker).fail_next("publish", times)
    worker_stage.send()

    (await worker_stage.pool.run()).finish()
    await worker_stage.done()

    assert worker_stage.events == ["claimed", "success", "ack"]
    assert (await worker_stage.reported(State.SUCCESS)).attempt == 1
    line = "the claim of d1: made to fail; next: asking again until it is known"
    assert caplog.messages.count(line) == 1


@pytest.mark.parametrize("behind", [0, 1, 2])
async def test_a_claim_whose_answer_never_comes_is_asked_for_again(
    worker_stage: WorkerStage, behind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is behind does not know the last report yet, even when another has taken it."""
    worker = await worker_stage.start()
    link = worker_stage.link_of(worker)
    publish, look, stale = link.publish, link.last, ["none yet"] * behind

    async def withhold(*args: Any, **conditions: Any) -> int:
        monkeypatch.setattr(link, "publish", publish)
        monkeypatch.setattr(link, "last", look_behind)
        await publish(*args, **conditions)
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def look_behind(stream: str, subject: str) -> Stored | None:
        return None if stale and stale.pop() else await look(stream, subject)

    monkeypatch.setattr(link, "publish", withhold)
    worker_stage.send()

    (await worker_stage.pool.run()).finish()
    await worker_stage.done()

    assert worker_stage.events == ["claimed", "success", "ack"]
    assert len(worker_stage.pool.requested) == 1


async def test_a_history_that_is_not_told_is_asked_for_again(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()
    worker_stage.link_of(worker).fail_next("last", 3)
    worker_stage.send()

    (await worker_stage.pool.run()).finish()
    await worker_stage.done()

    assert worker_stage.events == ["claimed", "success", "ack"]


@pytest.mark.parametrize("step", ["last", "publish"])
async def test_a_worker_that_stops_leaves_what_it_could_not_claim_to_others(
    worker_stage: WorkerStage, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await worker_stage.start()
    worker_stage.link_of(worker).fail_next(step, 1000)
    worker_stage.send()
    await wait_until(
        lambda: len(worker_stage.link_of(worker).failures[step]) < 1000, 5, "the first ask"
    )

    await worker_stage.stop(worker)

    assert worker_stage.is_queued()
    assert worker_stage.events == ["nak"]
    assert "d1: made to fail; next: the broker offers it again in 1 s" in caplog.text


async def test_what_met_a_stream_without_a_leader_comes_back_soon(
    worker_stage: WorkerStage,
) -> None:
    worker_stage.says(State.RUNNING)
    worker = await worker_stage.start()
    worker_stage.link_of(worker).fail_next("publish")
    worker_stage.send()
    await worker_stage.happened("nak")

    worker_stage.server.advance(SOON_SECONDS)
    await worker_stage.done()

    assert worker_stage.events == ["nak", "failed", "ack"]


@pytest.mark.parametrize("is_wiped", [False, True])
async def test_a_redelivery_of_what_runs_here_only_renews_its_lease(
    worker_stage: WorkerStage, is_wiped: bool
) -> None:
    """Also when the reports of it are gone, with the disk of the broker."""
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)
    if is_wiped:
        await empty(
            worker_stage.broker, worker_stage.names.results_stream, worker_stage.names.results()
        )

    await redelivered(worker_stage, worker)

    assert len(worker_stage.pool.requested) == 1
    assert worker.leases._held["d1"].delivery.num_delivered == 2
    run.finish()
    await worker_stage.done()
    assert worker_stage.events == ["claimed", "running", "success", "ack"]


async def test_a_redelivery_while_the_end_is_reported_is_the_one_to_ack(
    worker_stage: WorkerStage,
) -> None:
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)
    link = worker_stage.link_of(worker)
    link.fail_next("publish", times=3)
    run.finish()
    await redelivered(worker_stage, worker)

    await worker_stage.done()

    assert len(worker_stage.pool.requested) == 1
    assert worker_stage.events == ["claimed", "running", "success", "ack"]


@pytest.mark.parametrize("state", [State.CLAIMED, State.RUNNING])
async def test_what_a_living_worker_has_is_left_to_it(
    worker_stage: WorkerStage, state: State
) -> None:
    await worker_stage.living("other.1")
    worker_stage.says(state)
    await worker_stage.start()
    worker_stage.send()
    await worker_stage.happened("nak")

    worker_stage.says(State.SUCCESS)
    worker_stage.server.advance(LATER)
    await worker_stage.done()

    assert worker_stage.events == ["ack"]
    assert worker_stage.pool.requested == []


async def test_a_worker_that_hangs_keeps_its_claim_for_a_while(worker_stage: WorkerStage) -> None:
    """Without a listener it is dead. A listener that says nothing may only hang."""
    other = worker_stage.server.broker()

    async def stall(_: bytes) -> bytes:
        raise TimeoutError

    await other.serve(worker_stage.names.peer("other.1"), stall)
    await announce(worker_stage, "other.1")
    worker_stage.says(State.RUNNING)
    await worker_stage.start()
    worker_stage.server.advance(1.5 * worker_stage.settings.worker_lost_seconds)
    worker_stage.send()
    await worker_stage.happened("nak")

    worker_stage.server.advance(worker_stage.settings.worker_lost_seconds)
    await worker_stage.done()

    assert worker_stage.events == ["nak", "failed", "ack"]


async def announce(worker_stage: WorkerStage, worker: str) -> None:
    """Write the record of another worker."""
    name = worker.partition(".")[0]
    record = Presence(
        worker=worker, name=name, host="h", pid=1, queues=["default"], concurrency=1, running=1,
        draining=False, started_at=0.0, at=0.0, version="1",
    )  # fmt: skip
    worker_stage.server.put(worker_stage.names.presence("default", name), encode(record))


async def test_nobody_is_lost_while_our_own_connection_is_new(worker_stage: WorkerStage) -> None:
    """After an outage of the broker, every worker is silent for a moment."""
    worker_stage.says(State.RUNNING)
    worker = await worker_stage.start()
    link = worker_stage.link_of(worker)
    link.connected_since = time.monotonic()
    worker_stage.send()
    await worker_stage.happened("nak")

    link.connected_since = -1e9
    worker_stage.server.advance(LATER)
    await worker_stage.done()

    assert worker_stage.events == ["nak", "failed", "ack"]


async def test_a_dead_workers_claim_is_taken_over(worker_stage: WorkerStage) -> None:
    worker_stage.says(State.CLAIMED)
    await worker_stage.start()
    worker_stage.send()

    (await worker_stage.pool.run()).finish()
    await worker_stage.done()

    assert worker_stage.events == ["claimed", "success", "ack"]
    assert (await worker_stage.reported(State.SUCCESS)).attempt == 2


async def test_airflow_decides_whether_a_dead_worker_had_started(worker_stage: WorkerStage) -> None:
    """Its claim is all that is known; Airflow refuses the start, so it died in the middle."""
    worker_stage.says(State.CLAIMED)
    await worker_stage.start()
    worker_stage.send()

    (await worker_stage.pool.run()).finish(Ending.ALREADY_RUNNING)
    await worker_stage.done()

    assert (await worker_stage.reported(State.FAILED)).info == "worker other lost"


async def test_a_dead_workers_running_task_is_lost(worker_stage: WorkerStage) -> None:
    worker_stage.says(State.RUNNING, key=["from", "the report"])
    await worker_stage.start()
    worker_stage.send()
    await worker_stage.done()

    assert worker_stage.events == ["failed", "ack"]
    assert worker_stage.pool.requested == []
    report = await worker_stage.reported(State.FAILED)
    assert "worker other lost" in report.info
    assert "55" in report.info


async def test_a_lost_worker_is_reported_by_one_worker_only(
    worker_stage: WorkerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker_stage.says(State.RUNNING)
    worker = await worker_stage.start()
    link = worker_stage.link_of(worker)
    look = link.last

    async def look_too_early(stream: str, subject: str) -> Stored | None:
        found = await look(stream, subject)
        if stream == worker_stage.names.results_stream:
            worker_stage.says(State.FAILED, "third.1")
        return found

    monkeypatch.setattr(link, "last", look_too_early)
    worker_stage.send()
    await worker_stage.happened("nak")
    monkeypatch.undo()

    worker_stage.server.advance(LATER)
    await worker_stage.done()

    assert worker_stage.events == ["nak", "ack"]
    assert (await worker_stage.reported(State.FAILED)).worker == "third.1"


@pytest.mark.parametrize("state", [state for state in State if state.is_final])
async def test_what_is_over_is_only_acked(worker_stage: WorkerStage, state: State) -> None:
    worker_stage.says(state)
    await worker_stage.start()
    worker_stage.send()

    await worker_stage.done()

    assert worker_stage.events == ["ack"]
    assert worker_stage.pool.requested == []


async def test_what_was_released_is_claimed(worker_stage: WorkerStage) -> None:
    worker_stage.says(State.RELEASED, attempt=2)
    await worker_stage.start()
    worker_stage.send()

    (await worker_stage.pool.run()).finish()

    assert (await worker_stage.reported(State.SUCCESS)).attempt == 3


async def test_what_no_worker_could_start_becomes_a_dead_letter(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()
    worker_stage.send()
    attempts = worker_stage.settings.max_attempts
    for number in range(attempts):
        (await worker_stage.pool.run(number)).finish(Ending.DIED, info="no memory")
    await worker_stage.done()
    await worker_stage.idle(worker)

    assert len(worker_stage.pool.requested) == attempts
    assert worker_stage.events[-3:] == ["dead letter", "failed", "term"]
    assert b"secret" not in worker_stage.dead_letters()[0]
    info = (await worker_stage.reported(State.FAILED)).info
    assert info == (
        "dead letter: it was claimed 5 times and never started, last by me: "
        "its process died before it started: no memory"
    )


# Tokens


async def test_an_expired_token_is_renewed_and_costs_no_attempt(worker_stage: WorkerStage) -> None:
    await worker_stage.start()
    worker_stage.send(body={"token": token(-1)})
    await worker_stage.happened("claimed", "expired", "nak")
    report = await worker_stage.reported(State.EXPIRED)

    worker_stage.says(State.RENEWED, report.worker, token="new.secret", generation=1)
    worker_stage.server.advance(RENEWAL_SECONDS)
    run = await worker_stage.pool.run()
    run.finish()
    await worker_stage.done()

    assert run.body["token"] == "new.secret"
    report = await worker_stage.reported(State.SUCCESS)
    assert (report.attempt, report.generation) == (1, 1)
    assert len(worker_stage.pool.requested) == 1


async def test_an_expired_token_waits_for_its_renewal(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()
    worker_stage.send(body={"token": token(-1)})
    await worker_stage.happened("claimed", "expired", "nak")

    worker_stage.server.advance(RENEWAL_SECONDS)
    await worker_stage.happened("claimed", "expired", "nak", "nak")

    await worker_stage.idle(worker)
    assert worker_stage.pool.requested == []
    assert worker_stage.is_queued()


async def test_a_token_that_the_api_server_refuses_is_renewed(
    worker_stage: WorkerStage, caplog: pytest.LogCaptureFixture
) -> None:
    """Its clock decides, not the worker's."""
    await worker_stage.start()
    worker_stage.send()
    (await worker_stage.pool.run()).finish(Ending.TOKEN_REFUSED, info="403 expired")
    report = await worker_stage.reported(State.EXPIRED)

    [line] = [text for text in caplog.messages if "refuses its token" in text]
    assert "[api_auth] jwt_secret must be the same there and at the schedulers" in line
    assert line.endswith("next: asking for a new token (403 expired)")
    # By our clock this one has expired as well.
    worker_stage.says(State.RENEWED, report.worker, token=token(-1, "newer"), generation=1)
    worker_stage.server.advance(RENEWAL_SECONDS)
    run = await worker_stage.pool.run(1)
    run.finish()

    await worker_stage.reported(State.SUCCESS)
    assert run.body["token"].startswith("newer")


async def test_a_renewal_is_not_undone_by_a_report_whose_answer_was_lost(
    worker_stage: WorkerStage,
) -> None:
    worker = await worker_stage.start()
    link = worker_stage.link_of(worker)
    worker_stage.send()
    run = await worker_stage.pool.run()
    link.lose_next_pubacks()
    run.finish(Ending.TOKEN_REFUSED)
    report = await worker_stage.reported(State.EXPIRED)
    worker_stage.says(State.RENEWED, report.worker, token="new.secret", generation=1)
    await worker_stage.happened("nak")

    worker_stage.server.advance(RENEWAL_SECONDS)
    second = await worker_stage.pool.run(1)
    second.finish()

    assert second.body["token"] == "new.secret"


async def test_a_token_that_nobody_can_read_is_tried(worker_stage: WorkerStage) -> None:
    await worker_stage.start()
    worker_stage.send(body={"token": "opaque"})

    (await worker_stage.pool.run()).finish()

    await worker_stage.reported(State.SUCCESS)


# Messages that no worker can handle


def changed(**changes: Any) -> bytes:
    fields = msgpack.unpackb(encode(task())) | changes
    return bytes(msgpack.packb({k: v for k, v in fields.items() if v is not None}))


BAD = {
    "no msgpack": (b"\xc1 what is this?", "not a msgpack message"),
    "no map": (bytes(msgpack.packb([1])), "expected a map"),
    "a new version": (changed(v=99), "format version 99; this release reads 1"),
    "a field missing": (changed(body=None), "incomplete"),
    "an unknown type": (changed(kind="ExecuteMiracle"), "unknown workload type 'ExecuteMiracle'"),
    "a long id": (changed(dispatch_id="x" * 5000), "the message says it is 'xxx"),
    "another id": (changed(dispatch_id="d2\nX-Forged: 1"), "the message says it is 'd2"),
}


@pytest.mark.parametrize(("body", "reason"), BAD.values(), ids=BAD)
async def test_a_bad_message_is_set_aside_and_reported(
    worker_stage: WorkerStage, body: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await worker_stage.start()
    worker_stage.put(body)
    await worker_stage.done()
    await worker_stage.idle(worker)
    worker_stage.server.advance(LATER)

    assert worker_stage.events == ["dead letter", "failed", "term"]
    assert worker_stage.dead_letters() == [without_tokens(body)]
    assert b"secret" not in worker_stage.dead_letters()[0]
    header = worker_stage.server.headers[worker_stage.names.dead_letter("default", "d1")][
        "Airflow-Reason"
    ]
    assert reason in header
    assert "\n" not in header
    assert len(header) <= 500
    assert reason in (await worker_stage.reported(State.FAILED)).info
    assert reason in worker_stage.server.terminated[worker_stage.names.task("default", "d1")]
    assert [r.levelname for r in caplog.records if "dead letter" in r.getMessage()] == ["ERROR"]
    assert redeliveries(worker_stage) == 0


async def test_a_bad_message_is_set_aside_once_the_broker_takes_it(
    worker_stage: WorkerStage,
) -> None:
    worker = await worker_stage.start()
    worker_stage.link_of(worker).fail_next("publish", times=2)
    worker_stage.put(b"what?")

    await worker_stage.done()

    assert worker_stage.events == ["dead letter", "failed", "term"]


async def test_a_dead_letter_is_not_written_twice(worker_stage: WorkerStage) -> None:
    """Its worker died after the report and before the end of the message."""
    worker_stage.says(State.FAILED)
    await worker_stage.start()
    worker_stage.put(b"what?")

    await worker_stage.done()

    assert worker_stage.events == ["ack"]


async def test_what_a_newer_worker_runs_is_left_to_it(worker_stage: WorkerStage) -> None:
    """A redelivery to a worker that cannot read it must not fail a running task."""
    await worker_stage.living("other.1")
    worker_stage.says(State.RUNNING)
    await worker_stage.start()
    worker_stage.put(changed(v=99))

    await worker_stage.happened("nak")

    assert worker_stage.dead_letters() == []


async def test_what_a_dead_newer_worker_ran_is_lost(worker_stage: WorkerStage) -> None:
    """The report has the workload's facts, where this worker cannot read them."""
    worker_stage.says(State.RUNNING, key=["from", "the report"], sender="scheduler 2")
    await worker_stage.start()
    worker_stage.put(changed(v=99))

    await worker_stage.done()

    report = await worker_stage.reported(State.FAILED)
    assert (report.key, report.sender) == (["from", "the report"], "scheduler 2")
    assert worker_stage.dead_letters() == []


# Trouble of our own


async def test_a_denied_report_does_not_loop(
    worker_stage: WorkerStage, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await worker_stage.start()
    caplog.set_level(logging.DEBUG)  # the connection has told already
    worker_stage.link_of(worker).fail_next("publish", error=AccessDenied("may not publish"))
    worker_stage.send()
    await worker_stage.happened("nak")
    await worker_stage.idle(worker)

    assert "d1: may not publish; next: the broker offers it again" in caplog.text
    assert redeliveries(worker_stage) == 0
    worker_stage.server.advance(LATER)
    (await worker_stage.pool.run()).finish()
    await worker_stage.done()


async def test_a_failure_of_ours_costs_neither_the_slot_nor_the_message(
    worker_stage: WorkerStage, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await worker_stage.start(concurrency=1)
    worker_stage.pool.failures.append(ZeroDivisionError())
    worker_stage.send()
    await wait_until(lambda: "d1 failed here" in caplog.text, 5, "a log line")
    await worker_stage.idle(worker)

    worker_stage.server.advance(LATER)
    (await worker_stage.pool.run()).finish()
    await worker_stage.done()

    assert "ZeroDivisionError" in caplog.text


async def test_lines_about_a_task_name_it_as_airflow_does(
    worker_stage: WorkerStage, caplog: pytest.LogCaptureFixture
) -> None:
    await worker_stage.start()
    instance = {"dag_id": "etl", "run_id": "r1", "task_id": "load", "map_index": 3}
    worker_stage.pool.failures.append(ZeroDivisionError())
    worker_stage.send(body={"token": token(), "ti": instance})

    name = "d1 (dag etl, run r1, task load, map index 3)"
    await wait_until(lambda: f"{name} failed here; next: " in caplog.text, 5, "the line")

    worker_stage.server.advance(LATER)
    (await worker_stage.pool.run()).finish()
    await worker_stage.done()


@pytest.mark.parametrize("module", [errand, record, crew])
def test_no_line_names_the_dispatch_alone(module: ModuleType) -> None:
    calls = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"persist", *LOGGING}
    ]

    assert len(calls) > 1
    assert [call for call in calls if "dispatch_id" in call] == []


async def test_no_token_in_logs_or_reprs(
    worker_stage: WorkerStage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    worker = await worker_stage.start()
    worker_stage.send(body={"token": token(-1)})
    report = await worker_stage.reported(State.EXPIRED)
    worker_stage.says(State.RENEWED, report.worker, token="very.secret", generation=1)
    worker_stage.server.advance(RENEWAL_SECONDS)
    run = await worker_stage.pool.run()
    shown = [repr(worker.crew.errands), repr(worker_stage.report()), str(asyncio.all_tasks())]
    worker_stage.link_of(worker).fail_next("publish")
    run.finish(Ending.UNREADABLE, info="what the supervisor says")
    await worker_stage.done()
    worker_stage.put(changed(kind="Unknown"), "d9")
    await worker_stage.done("d9")

    assert "secret" not in caplog.text + "".join(shown)
    assert "d9 of queue default is a dead letter" in caplog.text


# Staying known


async def test_a_run_that_outlasts_its_report_says_again_that_it_runs(
    worker_stage: WorkerStage,
) -> None:
    """The result stream keeps reports for `result_retention_seconds`; a task may run for days."""
    worker_stage.settings = dataclasses.replace(
        worker_stage.settings, result_retention_seconds=1, ack_wait_seconds=0.3
    )
    await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()

    await wait_until(
        lambda: worker_stage.events.count("running") >= 3, 10, "the report, again and again"
    )
    run.finish()
    await worker_stage.done()

    assert worker_stage.events[-2:] == ["success", "ack"]


async def test_a_run_says_again_what_it_is_when_the_broker_has_lost_it(
    worker_stage: WorkerStage,
) -> None:
    """Otherwise it would not be known whose task it is when this worker dies."""
    worker_stage.settings = dataclasses.replace(worker_stage.settings, ack_wait_seconds=0.3)
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)
    await empty(
        worker_stage.broker, worker_stage.names.results_stream, worker_stage.names.results()
    )

    worker_stage.link_of(worker).connected_since = time.monotonic()

    await worker_stage.reported(State.RUNNING)
    run.finish()
    await worker_stage.done()
    assert worker_stage.events == ["claimed", "running", "running", "success", "ack"]


async def test_a_run_whose_claim_the_broker_lost_before_its_start_says_that_it_runs(
    worker_stage: WorkerStage,
) -> None:
    """The report of its start expects the claim, and there is none any more."""
    worker_stage.settings = dataclasses.replace(worker_stage.settings, ack_wait_seconds=0.3)
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    await worker_stage.reported(State.CLAIMED)
    await empty(
        worker_stage.broker, worker_stage.names.results_stream, worker_stage.names.results()
    )
    worker_stage.link_of(worker).connected_since = time.monotonic()

    run.begin()

    await worker_stage.reported(State.RUNNING)
    run.finish()
    await worker_stage.done()
    assert worker_stage.events == ["claimed", "running", "success", "ack"]

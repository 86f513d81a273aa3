"""One delivery: who may run it, with which token, and what becomes of unreadable messages."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from nats_executor.errors import AccessDenied
from nats_executor.wire.messages import Kind, Presence, State, encode
from nats_executor.wire.redaction import without_tokens
from nats_executor.wire.sizes import CUT_LETTER_BYTES
from nats_worker.delivery.errand import RENEWAL_SECONDS, SOON_SECONDS
from nats_worker.processes.exit_report import Ending
from tests.support.emptying import empty
from tests.support.waiting import wait_until
from tests.support.worker_scene import ACK_WAIT, Scene, scene_fixture, task, token

if TYPE_CHECKING:
    from nats_executor.broker.port import Stored
    from nats_worker.worker import Worker

__all__ = ["scene_fixture"]

pytestmark = pytest.mark.anyio

# Longer than any pause before an errand looks again at what another worker holds.
LATER = ACK_WAIT + 1


def redeliveries(scene: Scene) -> int:
    names = scene.names
    return scene.server.consumer(names.tasks_stream, names.consumer("default")).redelivered


async def redelivered(scene: Scene, worker: Worker, times: int = 1) -> None:
    """Let the message come again, and wait until the worker has dealt with that."""
    scene.server.advance(LATER)
    await wait_until(lambda: redeliveries(scene) == times, 5, "a redelivery")
    await wait_until(
        lambda: len(worker.crew.tasks) == len(scene.pool.living), 5, "its errand to end"
    )


async def test_a_dead_letter_too_large_for_its_reason_leaves_the_reason(scene: Scene) -> None:
    await scene.start()
    scene.server.max_payload = 400
    names = scene.names
    scene.server.put(names.task("default", "d1"), b"x" * 390)
    await scene.done()

    (letter,) = scene.server.messages(names.dead_letters_stream)
    assert letter.body == b""
    assert (await scene.reported(State.FAILED)).info.startswith("dead letter: not a msgpack")


async def test_a_dead_letter_too_large_for_its_stream_keeps_its_beginning(scene: Scene) -> None:
    await scene.start()
    names = scene.names
    limit = 100_000
    scene.server.stream(names.dead_letters_stream).config["max_msg_size"] = limit
    body = bytes(range(200, 250)) * 3000
    scene.server.put(names.task("default", "d1"), body)
    await scene.done()

    (letter,) = scene.server.messages(names.dead_letters_stream)
    assert letter.body == body[:CUT_LETTER_BYTES]
    assert (await scene.reported(State.FAILED)).info.startswith("dead letter: not a msgpack")


# Claiming


async def test_a_workload_is_claimed_run_reported_and_acked_in_this_order(scene: Scene) -> None:
    worker = await scene.start()
    scene.send()
    run = await scene.pool.run()
    run.begin()
    await scene.reported(State.RUNNING)

    run.finish()
    await scene.done()

    assert scene.events == ["claimed", "running", "success", "ack"]
    report = await scene.reported(State.SUCCESS)
    assert (report.worker, report.worker_name, report.pid) == (worker.state.id, "me", 77)
    assert (report.key, report.sender, report.kind) == (["dag", "d1"], "scheduler", Kind.TASK)
    assert run.body["ti"] == {"id": "d1"}


async def test_a_lost_race_hands_the_message_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worker = await scene.start()
    link = scene.link_of(worker)
    look = link.last

    async def look_too_early(stream: str, subject: str) -> Stored | None:
        found = await look(stream, subject)
        scene.says(State.CLAIMED)
        return found

    monkeypatch.setattr(link, "last", look_too_early)
    scene.send()

    await scene.happened("nak")

    assert scene.is_queued()
    assert scene.pool.requested == []
    assert "d1: another worker or a scheduler reported first; next: offering it" in caplog.text


async def test_a_claim_whose_answer_was_lost_is_found_and_kept(scene: Scene) -> None:
    """Everybody else leaves it to this worker, which may have no slot the next time."""
    worker = await scene.start()
    scene.link_of(worker).lose_next_pubacks()
    scene.send()

    (await scene.pool.run()).finish()
    await scene.done()

    assert len(scene.pool.requested) == 1
    assert scene.events == ["claimed", "success", "ack"]


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_claim_that_was_not_taken_is_asked_for_again(
    scene: Scene, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream without a leader takes nothing; handed back, the workload would wait for long."""
    caplog.set_level(logging.INFO)
    worker = await scene.start()
    scene.link_of(worker).fail_next("publish", times)
    scene.send()

    (await scene.pool.run()).finish()
    await scene.done()

    assert scene.events == ["claimed", "success", "ack"]
    assert (await scene.reported(State.SUCCESS)).attempt == 1
    line = "the claim of d1: made to fail; next: asking again until it is known"
    assert caplog.messages.count(line) == 1


@pytest.mark.parametrize("behind", [0, 1, 2])
async def test_a_claim_whose_answer_never_comes_is_asked_for_again(
    scene: Scene, behind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is behind does not know the last report yet, even when another has taken it."""
    worker = await scene.start()
    link = scene.link_of(worker)
    publish, look, stale = link.publish, link.last, ["none yet"] * behind

    async def withhold(*args: Any, **conditions: Any) -> int:
        monkeypatch.setattr(link, "publish", publish)
        monkeypatch.setattr(link, "last", look_behind)
        await publish(*args, **conditions)
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def look_behind(stream: str, subject: str) -> Stored | None:
        return None if stale and stale.pop() else await look(stream, subject)

    monkeypatch.setattr(link, "publish", withhold)
    scene.send()

    (await scene.pool.run()).finish()
    await scene.done()

    assert scene.events == ["claimed", "success", "ack"]
    assert len(scene.pool.requested) == 1


async def test_a_history_that_is_not_told_is_asked_for_again(scene: Scene) -> None:
    worker = await scene.start()
    scene.link_of(worker).fail_next("last", 3)
    scene.send()

    (await scene.pool.run()).finish()
    await scene.done()

    assert scene.events == ["claimed", "success", "ack"]


@pytest.mark.parametrize("step", ["last", "publish"])
async def test_a_worker_that_stops_leaves_what_it_could_not_claim_to_others(
    scene: Scene, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await scene.start()
    scene.link_of(worker).fail_next(step, 1000)
    scene.send()
    await wait_until(lambda: len(scene.link_of(worker).failures[step]) < 1000, 5, "the first ask")

    await scene.stop(worker)

    assert scene.is_queued()
    assert scene.events == ["nak"]
    assert "d1: made to fail; next: the broker offers it again in 1 s" in caplog.text


async def test_what_met_a_stream_without_a_leader_comes_back_soon(scene: Scene) -> None:
    scene.says(State.RUNNING)
    worker = await scene.start()
    scene.link_of(worker).fail_next("publish")
    scene.send()
    await scene.happened("nak")

    scene.server.advance(SOON_SECONDS)
    await scene.done()

    assert scene.events == ["nak", "failed", "ack"]


@pytest.mark.parametrize("is_wiped", [False, True])
async def test_a_redelivery_of_what_runs_here_only_renews_its_lease(
    scene: Scene, is_wiped: bool
) -> None:
    """Also when the reports of it are gone, with the disk of the broker."""
    worker = await scene.start()
    scene.send()
    run = await scene.pool.run()
    run.begin()
    await scene.reported(State.RUNNING)
    if is_wiped:
        await empty(scene.broker, scene.names.results_stream, scene.names.results())

    await redelivered(scene, worker)

    assert len(scene.pool.requested) == 1
    assert worker.leases._held["d1"].delivery.num_delivered == 2
    run.finish()
    await scene.done()
    assert scene.events == ["claimed", "running", "success", "ack"]


async def test_a_redelivery_while_the_end_is_reported_is_the_one_to_ack(scene: Scene) -> None:
    worker = await scene.start()
    scene.send()
    run = await scene.pool.run()
    run.begin()
    await scene.reported(State.RUNNING)
    link = scene.link_of(worker)
    link.fail_next("publish", times=3)
    run.finish()
    await redelivered(scene, worker)

    await scene.done()

    assert len(scene.pool.requested) == 1
    assert scene.events == ["claimed", "running", "success", "ack"]


@pytest.mark.parametrize("state", [State.CLAIMED, State.RUNNING])
async def test_what_a_living_worker_has_is_left_to_it(scene: Scene, state: State) -> None:
    await scene.living("other.1")
    scene.says(state)
    await scene.start()
    scene.send()
    await scene.happened("nak")

    scene.says(State.SUCCESS)
    scene.server.advance(LATER)
    await scene.done()

    assert scene.events == ["ack"]
    assert scene.pool.requested == []


async def test_a_worker_that_hangs_keeps_its_claim_for_a_while(scene: Scene) -> None:
    """Without a listener it is dead. A listener that says nothing may only hang."""
    other = scene.server.broker()

    async def stall(_: bytes) -> bytes:
        raise TimeoutError

    await other.serve(scene.names.peer("other.1"), stall)
    await announce(scene, "other.1")
    scene.says(State.RUNNING)
    await scene.start()
    scene.server.advance(1.5 * scene.settings.worker_lost_seconds)
    scene.send()
    await scene.happened("nak")

    scene.server.advance(scene.settings.worker_lost_seconds)
    await scene.done()

    assert scene.events == ["nak", "failed", "ack"]


async def announce(scene: Scene, worker: str) -> None:
    """Write the record of another worker."""
    name = worker.partition(".")[0]
    record = Presence(
        worker=worker, name=name, host="h", pid=1, queues=["default"], concurrency=1, running=1,
        draining=False, started_at=0.0, at=0.0, version="1",
    )  # fmt: skip
    scene.server.put(scene.names.presence("default", name), encode(record))


async def test_nobody_is_lost_while_our_own_connection_is_new(scene: Scene) -> None:
    """After an outage of the broker, every worker is silent for a moment."""
    scene.says(State.RUNNING)
    worker = await scene.start()
    link = scene.link_of(worker)
    link.connected_since = time.monotonic()
    scene.send()
    await scene.happened("nak")

    link.connected_since = -1e9
    scene.server.advance(LATER)
    await scene.done()

    assert scene.events == ["nak", "failed", "ack"]


async def test_a_dead_workers_claim_is_taken_over(scene: Scene) -> None:
    scene.says(State.CLAIMED)
    await scene.start()
    scene.send()

    (await scene.pool.run()).finish()
    await scene.done()

    assert scene.events == ["claimed", "success", "ack"]
    assert (await scene.reported(State.SUCCESS)).attempt == 2


async def test_airflow_decides_whether_a_dead_worker_had_started(scene: Scene) -> None:
    """Its claim is all that is known; Airflow refuses the start, so it died in the middle."""
    scene.says(State.CLAIMED)
    await scene.start()
    scene.send()

    (await scene.pool.run()).finish(Ending.ALREADY_RUNNING)
    await scene.done()

    assert (await scene.reported(State.FAILED)).info == "worker other lost"


async def test_a_dead_workers_running_task_is_lost(scene: Scene) -> None:
    scene.says(State.RUNNING, key=["from", "the report"])
    await scene.start()
    scene.send()
    await scene.done()

    assert scene.events == ["failed", "ack"]
    assert scene.pool.requested == []
    report = await scene.reported(State.FAILED)
    assert "worker other lost" in report.info
    assert "55" in report.info


async def test_a_lost_worker_is_reported_by_one_worker_only(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.says(State.RUNNING)
    worker = await scene.start()
    link = scene.link_of(worker)
    look = link.last

    async def look_too_early(stream: str, subject: str) -> Stored | None:
        found = await look(stream, subject)
        if stream == scene.names.results_stream:
            scene.says(State.FAILED, "third.1")
        return found

    monkeypatch.setattr(link, "last", look_too_early)
    scene.send()
    await scene.happened("nak")
    monkeypatch.undo()

    scene.server.advance(LATER)
    await scene.done()

    assert scene.events == ["nak", "ack"]
    assert (await scene.reported(State.FAILED)).worker == "third.1"


@pytest.mark.parametrize("state", [state for state in State if state.is_final])
async def test_what_is_over_is_only_acked(scene: Scene, state: State) -> None:
    scene.says(state)
    await scene.start()
    scene.send()

    await scene.done()

    assert scene.events == ["ack"]
    assert scene.pool.requested == []


async def test_what_was_released_is_claimed(scene: Scene) -> None:
    scene.says(State.RELEASED, attempt=2)
    await scene.start()
    scene.send()

    (await scene.pool.run()).finish()

    assert (await scene.reported(State.SUCCESS)).attempt == 3


async def test_what_no_worker_could_start_becomes_a_dead_letter(scene: Scene) -> None:
    worker = await scene.start()
    scene.send()
    attempts = scene.settings.max_attempts
    for number in range(attempts):
        (await scene.pool.run(number)).finish(Ending.DIED, info="no memory")
    await scene.done()
    await scene.idle(worker)

    assert len(scene.pool.requested) == attempts
    assert scene.events[-3:] == ["dead letter", "failed", "term"]
    assert b"secret" not in scene.dead_letters()[0]
    info = (await scene.reported(State.FAILED)).info
    assert info == (
        "dead letter: it was claimed 5 times and never started, last by me: "
        "its process died before it started: no memory"
    )


# Tokens


async def test_an_expired_token_is_renewed_and_costs_no_attempt(scene: Scene) -> None:
    await scene.start()
    scene.send(body={"token": token(-1)})
    await scene.happened("claimed", "expired", "nak")
    report = await scene.reported(State.EXPIRED)

    scene.says(State.RENEWED, report.worker, token="new.secret", generation=1)
    scene.server.advance(RENEWAL_SECONDS)
    run = await scene.pool.run()
    run.finish()
    await scene.done()

    assert run.body["token"] == "new.secret"
    report = await scene.reported(State.SUCCESS)
    assert (report.attempt, report.generation) == (1, 1)
    assert len(scene.pool.requested) == 1


async def test_an_expired_token_waits_for_its_renewal(scene: Scene) -> None:
    worker = await scene.start()
    scene.send(body={"token": token(-1)})
    await scene.happened("claimed", "expired", "nak")

    scene.server.advance(RENEWAL_SECONDS)
    await scene.happened("claimed", "expired", "nak", "nak")

    await scene.idle(worker)
    assert scene.pool.requested == []
    assert scene.is_queued()


async def test_a_token_that_the_api_server_refuses_is_renewed(scene: Scene) -> None:
    """Its clock decides, not the worker's."""
    await scene.start()
    scene.send()
    (await scene.pool.run()).finish(Ending.TOKEN_REFUSED, info="403 expired")
    report = await scene.reported(State.EXPIRED)

    # By our clock this one has expired as well.
    scene.says(State.RENEWED, report.worker, token=token(-1, "newer"), generation=1)
    scene.server.advance(RENEWAL_SECONDS)
    run = await scene.pool.run(1)
    run.finish()

    await scene.reported(State.SUCCESS)
    assert run.body["token"].startswith("newer")


async def test_a_renewal_is_not_undone_by_a_report_whose_answer_was_lost(scene: Scene) -> None:
    worker = await scene.start()
    link = scene.link_of(worker)
    scene.send()
    run = await scene.pool.run()
    link.lose_next_pubacks()
    run.finish(Ending.TOKEN_REFUSED)
    report = await scene.reported(State.EXPIRED)
    scene.says(State.RENEWED, report.worker, token="new.secret", generation=1)
    await scene.happened("nak")

    scene.server.advance(RENEWAL_SECONDS)
    second = await scene.pool.run(1)
    second.finish()

    assert second.body["token"] == "new.secret"


async def test_a_token_that_nobody_can_read_is_tried(scene: Scene) -> None:
    await scene.start()
    scene.send(body={"token": "opaque"})

    (await scene.pool.run()).finish()

    await scene.reported(State.SUCCESS)


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
    scene: Scene, body: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await scene.start()
    scene.put(body)
    await scene.done()
    await scene.idle(worker)
    scene.server.advance(LATER)

    assert scene.events == ["dead letter", "failed", "term"]
    assert scene.dead_letters() == [without_tokens(body)]
    assert b"secret" not in scene.dead_letters()[0]
    header = scene.server.headers[scene.names.dead_letter("default", "d1")]["Airflow-Reason"]
    assert reason in header
    assert "\n" not in header
    assert len(header) <= 500
    assert reason in (await scene.reported(State.FAILED)).info
    assert reason in scene.server.terminated[scene.names.task("default", "d1")]
    assert [r.levelname for r in caplog.records if "dead letter" in r.getMessage()] == ["ERROR"]
    assert redeliveries(scene) == 0


async def test_a_bad_message_is_set_aside_once_the_broker_takes_it(scene: Scene) -> None:
    worker = await scene.start()
    scene.link_of(worker).fail_next("publish", times=2)
    scene.put(b"what?")

    await scene.done()

    assert scene.events == ["dead letter", "failed", "term"]


async def test_a_dead_letter_is_not_written_twice(scene: Scene) -> None:
    """Its worker died after the report and before the end of the message."""
    scene.says(State.FAILED)
    await scene.start()
    scene.put(b"what?")

    await scene.done()

    assert scene.events == ["ack"]


async def test_what_a_newer_worker_runs_is_left_to_it(scene: Scene) -> None:
    """A redelivery to a worker that cannot read it must not fail a running task."""
    await scene.living("other.1")
    scene.says(State.RUNNING)
    await scene.start()
    scene.put(changed(v=99))

    await scene.happened("nak")

    assert scene.dead_letters() == []


async def test_what_a_dead_newer_worker_ran_is_lost(scene: Scene) -> None:
    """The report has the workload's facts, where this worker cannot read them."""
    scene.says(State.RUNNING, key=["from", "the report"], sender="scheduler 2")
    await scene.start()
    scene.put(changed(v=99))

    await scene.done()

    report = await scene.reported(State.FAILED)
    assert (report.key, report.sender) == (["from", "the report"], "scheduler 2")
    assert scene.dead_letters() == []


# Trouble of our own


async def test_a_denied_report_does_not_loop(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await scene.start()
    caplog.set_level(logging.DEBUG)  # the connection has told already
    scene.link_of(worker).fail_next("publish", error=AccessDenied("may not publish"))
    scene.send()
    await scene.happened("nak")
    await scene.idle(worker)

    assert "d1: may not publish; next: the broker offers it again" in caplog.text
    assert redeliveries(scene) == 0
    scene.server.advance(LATER)
    (await scene.pool.run()).finish()
    await scene.done()


async def test_a_failure_of_ours_costs_neither_the_slot_nor_the_message(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await scene.start(concurrency=1)
    scene.pool.failures.append(ZeroDivisionError())
    scene.send()
    await wait_until(lambda: "d1 failed here" in caplog.text, 5, "a log line")
    await scene.idle(worker)

    scene.server.advance(LATER)
    (await scene.pool.run()).finish()
    await scene.done()

    assert "ZeroDivisionError" in caplog.text


async def test_no_token_in_logs_or_reprs(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    worker = await scene.start()
    scene.send(body={"token": token(-1)})
    report = await scene.reported(State.EXPIRED)
    scene.says(State.RENEWED, report.worker, token="very.secret", generation=1)
    scene.server.advance(RENEWAL_SECONDS)
    run = await scene.pool.run()
    shown = [repr(worker.crew.errands), repr(scene.report()), str(asyncio.all_tasks())]
    scene.link_of(worker).fail_next("publish")
    run.finish(Ending.UNREADABLE, info="what the supervisor says")
    await scene.done()
    scene.put(changed(kind="Unknown"), "d9")
    await scene.done("d9")

    assert "secret" not in caplog.text + "".join(shown)
    assert "d9 of queue default is a dead letter" in caplog.text


# Staying known


async def test_a_run_that_outlasts_its_report_says_again_that_it_runs(scene: Scene) -> None:
    """The result stream keeps reports for `result_retention_seconds`; a task may run for days."""
    scene.settings = dataclasses.replace(
        scene.settings, result_retention_seconds=1, ack_wait_seconds=0.3
    )
    await scene.start()
    scene.send()
    run = await scene.pool.run()
    run.begin()

    await wait_until(lambda: scene.events.count("running") >= 3, 10, "the report, again and again")
    run.finish()
    await scene.done()

    assert scene.events[-2:] == ["success", "ack"]


async def test_a_run_says_again_what_it_is_when_the_broker_has_lost_it(scene: Scene) -> None:
    """Otherwise it would not be known whose task it is when this worker dies."""
    scene.settings = dataclasses.replace(scene.settings, ack_wait_seconds=0.3)
    worker = await scene.start()
    scene.send()
    run = await scene.pool.run()
    run.begin()
    await scene.reported(State.RUNNING)
    await empty(scene.broker, scene.names.results_stream, scene.names.results())

    scene.link_of(worker).connected_since = time.monotonic()

    await scene.reported(State.RUNNING)
    run.finish()
    await scene.done()
    assert scene.events == ["claimed", "running", "running", "success", "ack"]


async def test_a_run_whose_claim_the_broker_lost_before_its_start_says_that_it_runs(
    scene: Scene,
) -> None:
    """The report of its start expects the claim, and there is none any more."""
    scene.settings = dataclasses.replace(scene.settings, ack_wait_seconds=0.3)
    worker = await scene.start()
    scene.send()
    run = await scene.pool.run()
    await scene.reported(State.CLAIMED)
    await empty(scene.broker, scene.names.results_stream, scene.names.results())
    scene.link_of(worker).connected_since = time.monotonic()

    run.begin()

    await scene.reported(State.RUNNING)
    run.finish()
    await scene.done()
    assert scene.events == ["claimed", "running", "success", "ack"]

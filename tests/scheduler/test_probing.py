"""A probe as an executor sends it: what it measures, what it says without an answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.access.permissions import RESPONSE_SECONDS
from nats_executor.errors import NatsExecutorError
from nats_executor.operations.probing import Probed, ping_queue
from nats_executor.scheduler.probing import LONGEST_PROBE_SECONDS
from nats_executor.wire.messages import Kind, Presence, Report, State, Workload, decode, encode
from nats_executor.wire.names import SchedulerVerb
from nats_executor.wire.scheduler_answers import ProbeOrder, ProbeResult
from tests.scheduler.stage import task_workload
from tests.support.presences import records_of
from tests.support.waiting import block_until, wait_until

if TYPE_CHECKING:
    from concurrent.futures import Future

    from nats_executor import NatsExecutor
    from tests.scheduler.stage import FakeStage, Stage

QUEUE = "default"


def begun(stage: Stage) -> NatsExecutor:
    """Start an executor that hears questions, with a queue that has had a task."""
    executor = stage.executor()
    stage.sent_by(executor, task_workload("usual"))
    return executor


def pinging(stage: Stage, queue: str = QUEUE, seconds: float = 30.0) -> Future[Probed]:
    order = ProbeOrder(queue=queue, seconds=seconds)

    async def ping() -> Probed:
        async def answered() -> Probed | None:
            pinged = await ping_queue(stage.broker, stage.names, ["7"], order)
            return None if "hears it" in pinged.failure else pinged

        found: Probed = await wait_until(answered, 60, "an answer")
        return found

    return stage.portal.start_task_soon(ping)


def probe_in(stage: Stage) -> Workload:
    def look() -> Workload | None:
        return next((w for w in stage.sent() if w.kind == Kind.PROBE), None)

    found: Workload = block_until(look, 20, "a probe in the queue")
    return found


def announce(stage: Stage, **changes: Any) -> None:
    facts: dict[str, Any] = {
        "worker": "w1.1", "name": "w1", "host": "h", "pid": 7, "queues": [QUEUE],
        "concurrency": 4, "running": 1, "draining": False, "started_at": 0.0, "at": time.time(),
        "version": "0.0.9", "bands": 3,
    }  # fmt: skip
    for subject, body in records_of(stage.names, Presence(**(facts | changes))):
        stage.ask("publish", subject, body)


def take_away(stage: Stage, workload: Workload) -> None:
    """Ack it as a worker does."""
    [subject] = [s for s in stage.subjects() if s.endswith(workload.dispatch_id)]
    stage.ask("remove", stage.names.tasks_stream, subject)


def test_a_probe_is_timed_and_leaves_nothing_behind(stage: Stage) -> None:
    executor = begun(stage)
    before = len(executor._events.ledger), len(executor.running)
    future = pinging(stage)
    probe = probe_in(stage)

    assert (probe.body, probe.token, probe.key) == ({}, "", [])
    opening = stage.last_report(probe)
    assert (opening.state, opening.worker) == (State.DROPPED, executor._sender)
    stage.report(probe, State.CLAIMED)
    stage.report(probe, State.SUCCESS, hops=[500, 2000, 1000])
    take_away(stage, probe)
    pinged = future.result(60)

    assert pinged.failure == ""
    assert pinged.job == "7"
    result = pinged.result
    assert result
    assert (result.worker, result.start, result.run) == ("worker-1", 2.0, 1.0)
    assert result.publish >= 0
    assert result.whole >= result.publish
    assert pinged.milliseconds >= result.whole
    executor.sync()
    assert (len(executor._events.ledger), len(executor.running)) == before
    assert executor._connected.dispatcher.mailbox.listeners == {}
    assert not executor._connected.reports


def test_hops_that_no_worker_of_this_project_sends_count_for_nothing(
    fake_stage: FakeStage,
) -> None:
    begun(fake_stage)
    for hops in ([], ["x", 1, 2], [1, -5, 3], [1, 2, 2**60], [True, 1, 2], list(range(900))):
        future = pinging(fake_stage)
        probe = probe_in(fake_stage)
        fake_stage.report(probe, State.SUCCESS, hops=hops)
        take_away(fake_stage, probe)
        result = future.result(60).result
        assert result
        assert (result.start, result.run, result.report) == (-1.0, -1.0, -1.0), hops


def test_a_worker_that_cannot_run_it_says_why(fake_stage: FakeStage) -> None:
    begun(fake_stage)
    future = pinging(fake_stage)
    probe = probe_in(fake_stage)
    fake_stage.report(probe, State.FAILED, info="no memory")
    take_away(fake_stage, probe)

    assert future.result(60).failure == "worker worker-1 could not run it: no memory"


def test_without_a_worker_it_is_taken_back_with_the_remedy(stage: Stage) -> None:
    begun(stage)

    pinged = pinging(stage, seconds=0.2).result(60)

    assert pinged.failure.endswith("run: airflow nats worker -q default")
    assert pinged.failure.startswith("no worker takes workloads of ")
    assert [w.kind for w in stage.sent()] == [Kind.TASK]


def test_a_worker_that_takes_it_without_a_claim_is_of_an_earlier_release(stage: Stage) -> None:
    begun(stage)
    announce(stage)
    future = pinging(stage, seconds=1.0)
    take_away(stage, probe_in(stage))

    assert future.result(60).failure == (
        "worker w1 took it and knows no probes (release 0.0.9); update the workers"
    )


def test_a_claim_without_an_end_names_the_worker(stage: Stage) -> None:
    begun(stage)
    future = pinging(stage, seconds=1.0)
    stage.report(probe_in(stage), State.CLAIMED)

    assert future.result(60).failure.startswith("worker worker-1 has claimed it, and not ended it")


def test_a_queue_that_nobody_knows_is_not_made(stage: Stage) -> None:
    begun(stage)

    pinged = pinging(stage, "typo").result(60)

    assert pinged.failure.startswith("queue 'typo' never had a task, and no worker serves it")
    infos = stage.ask("consumer_infos", stage.names.tasks_stream)
    assert {info.queue for info in infos} == {QUEUE}


def test_a_queue_that_a_worker_serves_gets_its_consumer_as_for_a_task(stage: Stage) -> None:
    begun(stage)
    announce(stage, queues=["fresh"])
    future = pinging(stage, "fresh")
    probe = probe_in(stage)
    stage.report(probe, State.SUCCESS, hops=[1, 2, 3])

    assert future.result(60).failure == ""
    infos = stage.ask("consumer_infos", stage.names.tasks_stream)
    assert {info.queue for info in infos} == {QUEUE, "fresh"}


@pytest.mark.parametrize("question", [b"garbage", b"\x91" * 300_000])
def test_an_order_that_cannot_be_read_is_refused(fake_stage: FakeStage, question: bytes) -> None:
    begun(fake_stage)
    subject = fake_stage.names.scheduler("7", SchedulerVerb.PROBE)

    def ask() -> ProbeResult | None:
        try:
            answer = fake_stage.ask("request", subject, question, timeout=10.0)
        except NatsExecutorError:  # not heard yet
            return None
        return decode(ProbeResult, answer)

    result = block_until(ask, 20, "an answer")
    assert result.refusal


def test_reports_about_probes_of_others_are_nobodys(fake_stage: FakeStage) -> None:
    executor = begun(fake_stage)
    stranger = Report(
        dispatch_id="probe-x", queue=QUEUE, state=State.SUCCESS, kind=Kind.PROBE, key=[],
        worker="w", worker_name="w",
    )  # fmt: skip
    fake_stage.ask("publish", fake_stage.names.result(QUEUE, "probe-x"), encode(stranger))
    fake_stage.seen(executor)

    assert not executor._connected.reports


def test_the_time_is_bounded_by_what_the_server_allows_for_an_answer() -> None:
    assert LONGEST_PROBE_SECONDS < RESPONSE_SECONDS - 10

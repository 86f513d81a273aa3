"""The end of a workload: its slot, its report and its ack, whatever the broker does meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.errors import BrokerUnavailable
from nats_executor.retrying import persist
from nats_executor.wire.messages import Report, State
from nats_worker.delivery.verdict import API_PAUSE_SECONDS
from nats_worker.processes.exit_report import Ending
from tests.support.emptying import empty
from tests.support.waiting import wait_until
from tests.support.worker_stage import WorkerStage, worker_stage_fixture

if TYPE_CHECKING:
    from nats_worker.worker import Worker
    from tests.support.fake_pool import FakeRun

__all__ = ["worker_stage_fixture"]

pytestmark = pytest.mark.anyio


async def running(worker_stage: WorkerStage, concurrency: int = 2) -> tuple[Worker, FakeRun]:
    """Start a worker and have it run `d1`."""
    worker = await worker_stage.start(concurrency=concurrency)
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)
    return worker, run


@pytest.mark.parametrize(
    ("ending", "facts", "state"),
    [
        (Ending.FINISHED, {}, State.SUCCESS),
        (Ending.FINISHED, {"exit_code": -9}, State.FAILED),
        (Ending.STOPPED_BY_SERVER, {"exit_code": -15}, State.SUCCESS),
        (Ending.UNDELIVERED, {}, State.FAILED),
        (Ending.RAISED, {}, State.FAILED),
        (Ending.DIED, {}, State.FAILED),
    ],
)
async def test_every_end_is_reported_and_then_acked(
    worker_stage: WorkerStage, ending: Ending, facts: dict[str, Any], state: State
) -> None:
    _, run = await running(worker_stage)

    run.finish(ending, **facts)
    await worker_stage.done()

    assert worker_stage.events == ["claimed", "running", state, "ack"]


async def test_what_airflow_no_longer_wants_is_dropped(worker_stage: WorkerStage) -> None:
    await worker_stage.start()
    worker_stage.send()

    (await worker_stage.pool.run()).finish(Ending.STALE, previous_state="success")
    await worker_stage.done()

    assert worker_stage.events == ["claimed", "dropped", "ack"]


async def test_what_runs_elsewhere_is_left(worker_stage: WorkerStage) -> None:
    await worker_stage.start()
    worker_stage.send()

    (await worker_stage.pool.run()).finish(Ending.ALREADY_RUNNING)
    await worker_stage.done()

    assert worker_stage.events == ["claimed", "released", "ack"]


async def test_an_api_server_that_is_away_is_asked_again_later(worker_stage: WorkerStage) -> None:
    """However often that takes; it costs no attempt, and another worker may do it."""
    await worker_stage.start()
    worker_stage.send()
    rounds = worker_stage.settings.max_attempts + 2
    for number in range(rounds):
        (await worker_stage.pool.run(number)).finish(Ending.UNREACHABLE, info="connection refused")
        await worker_stage.counted("nak", number + 1)
        worker_stage.server.advance(API_PAUSE_SECONDS)
    (await worker_stage.pool.run(rounds)).finish()
    await worker_stage.done()

    assert (await worker_stage.reported(State.SUCCESS)).attempt == 1


async def test_an_api_server_that_is_away_is_not_asked_at_once(worker_stage: WorkerStage) -> None:
    worker = await worker_stage.start()
    worker_stage.send()
    (await worker_stage.pool.run()).finish(Ending.UNREACHABLE)
    await worker_stage.happened("claimed", "released", "nak")

    worker_stage.server.advance(API_PAUSE_SECONDS - 1)
    await worker_stage.idle(worker)

    assert len(worker_stage.pool.requested) == 1


async def test_a_process_that_died_before_the_start_is_started_again_at_once(
    worker_stage: WorkerStage,
) -> None:
    await worker_stage.start()
    worker_stage.send()
    (await worker_stage.pool.run()).finish(Ending.DIED)

    (await worker_stage.pool.run(1)).finish()
    await worker_stage.done()

    assert worker_stage.events == ["claimed", "released", "nak", "claimed", "success", "ack"]
    assert (await worker_stage.reported(State.SUCCESS)).attempt == 2


# A broker that is away


async def test_an_end_is_reported_when_the_broker_is_back_and_the_slot_is_free_before(
    worker_stage: WorkerStage,
) -> None:
    worker, run = await running(worker_stage)
    worker_stage.server.stop()

    run.finish()
    await wait_until(lambda: worker.state.slots.used == 0, 1, "the slot")
    assert "d1" in worker.leases
    worker_stage.server.start()
    await worker_stage.done()

    assert worker_stage.events == ["claimed", "running", "success", "ack"]


async def test_a_full_worker_takes_the_next_workload_before_the_report_is_through(
    worker_stage: WorkerStage,
) -> None:
    worker, run = await running(worker_stage, concurrency=1)
    worker_stage.send(dispatch_id="d2")
    # Only reports fail; the broker goes on delivering.
    worker_stage.link_of(worker).fail_next("publish", times=1)

    run.finish()
    second = await worker_stage.pool.run(1)

    assert second.dispatch_id == "d2"
    second.finish()
    await worker_stage.done("d1")
    await worker_stage.done("d2")


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_report_whose_answer_is_lost_is_made_once(
    worker_stage: WorkerStage, lost: int
) -> None:
    worker, run = await running(worker_stage)
    worker_stage.link_of(worker).lose_next_pubacks(lost)

    run.finish()
    await worker_stage.done()

    assert worker_stage.events == ["claimed", "running", "success", "ack"]


async def test_a_start_whose_report_is_lost_does_not_spoil_the_end(
    worker_stage: WorkerStage,
) -> None:
    worker = await worker_stage.start()
    link = worker_stage.link_of(worker)
    worker_stage.send()
    run = await worker_stage.pool.run()
    link.lose_next_pubacks()
    run.begin()
    await worker_stage.reported(State.RUNNING)

    run.finish()
    await worker_stage.done()

    assert worker_stage.events == ["claimed", "running", "success", "ack"]


async def test_a_start_that_cannot_be_reported_does_not_spoil_the_end(
    worker_stage: WorkerStage,
) -> None:
    worker = await worker_stage.start()
    link = worker_stage.link_of(worker)
    worker_stage.send()
    run = await worker_stage.pool.run()
    link.fail_next("publish")
    run.begin()
    await wait_until(lambda: not link.failures["publish"], 5, "the failure")

    run.finish()
    await worker_stage.done()

    assert worker_stage.events == ["claimed", "success", "ack"]


async def test_an_ack_is_repeated_until_it_is_confirmed(worker_stage: WorkerStage) -> None:
    worker, run = await running(worker_stage)
    worker_stage.link_of(worker).fail_next("ack", times=2)

    run.finish()
    await worker_stage.done()

    assert worker_stage.events == ["claimed", "running", "success", "ack"]


@pytest.mark.parametrize("ending", [Ending.FINISHED, Ending.UNREACHABLE])
async def test_a_wiped_result_stream_gets_the_end_all_the_same(
    worker_stage: WorkerStage, ending: Ending
) -> None:
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    await empty(
        worker_stage.broker, worker_stage.names.results_stream, worker_stage.names.results()
    )

    run.finish(ending)

    await worker_stage.reported(State.SUCCESS if ending is Ending.FINISHED else State.RELEASED)
    await worker_stage.idle(worker)


async def test_nothing_but_an_absent_broker_is_waited_out() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await persist(fail)


async def test_a_step_is_repeated_until_the_broker_takes_it() -> None:
    answers = [BrokerUnavailable("away"), None]

    async def step() -> None:
        if answer := answers.pop(0):
            raise answer

    await persist(step)

    assert answers == []


# Another worker in between: it took this one for dead


@pytest.mark.parametrize(
    ("theirs", "ending", "remains"),
    [
        # It only asked; the end is ours to tell.
        (State.CLAIMED, Ending.FINISHED, ("me", State.SUCCESS)),
        (State.RELEASED, Ending.FINISHED, ("me", State.SUCCESS)),
        # "Airflow no longer wants it" was an answer to the start, and we know the end.
        (State.DROPPED, Ending.FINISHED, ("me", State.SUCCESS)),
        # Airflow has acted on it already.
        (State.FAILED, Ending.FINISHED, ("other", State.FAILED)),
        (State.SUCCESS, Ending.FINISHED, ("other", State.SUCCESS)),
        # Giving up ours must not give up theirs.
        (State.CLAIMED, Ending.UNREACHABLE, ("other", State.CLAIMED)),
        (State.RUNNING, Ending.UNREACHABLE, ("other", State.RUNNING)),
        (State.DROPPED, Ending.UNREACHABLE, ("other", State.DROPPED)),
    ],
)
async def test_a_report_after_anothers(
    worker_stage: WorkerStage, theirs: State, ending: Ending, remains: tuple[str, State]
) -> None:
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    worker_stage.says(theirs)

    run.finish(ending)
    await worker_stage.idle(worker)

    report = worker_stage.report()
    assert isinstance(report, Report)
    assert (report.worker_name, report.state) == remains
    assert worker_stage.events[-1] == ("ack" if ending is Ending.FINISHED else "nak")

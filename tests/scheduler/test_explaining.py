"""What the executor writes into Airflow's audit log about tasks that wait for long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.errors import BrokerUnavailable
from nats_executor.operations.pausing import Wish, pause_queues
from nats_executor.operations.reasons import Cause, Reason
from nats_executor.scheduler.explaining import MOST_TOLD, MOST_TURNS, Judged, first_of_all
from nats_executor.scheduler.ledger import Dispatch
from nats_executor.wire.messages import Presence, State, encode
from tests.scheduler.stage import callback_workload, queue_up, task_workload
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from nats_executor import NatsExecutor
    from tests.scheduler.stage import Stage

WAITS = "nats executor waits"


def written(executor: NatsExecutor) -> list[str]:
    """Return what the scheduler will find to write, without the seconds."""
    lines = [line for line in executor._task_event_logs if line.event == WAITS]
    return [str(line.extra).partition(": ")[2] for line in lines]


def writes(executor: NatsExecutor, count: int) -> list[str]:
    """Heartbeat until so many lines were written."""

    def beat() -> list[str]:
        executor.heartbeat()
        found = written(executor)
        return found if len(found) >= count else []

    found: list[str] = block_until(beat, 60, f"{count} lines, not {written(executor)}")
    assert len(found) == count
    return found


def settled(executor: NatsExecutor) -> None:
    """Return after some more looks."""
    looks = 0

    def beat() -> bool:
        nonlocal looks
        explainer: Any = executor._connected.explainer
        before: float = explainer._next_look
        executor.sync()
        looks += before != explainer._next_look
        return bool(looks > 5)

    block_until(beat, 60, "looks")


def announce(stage: Stage, **facts: Any) -> None:
    presence = Presence(
        worker="w1", name="worker-1", host="h", pid=1, queues=["default"], draining=False,
        started_at=0.0, at=0.0, version="1", **({"concurrency": 1, "running": 0} | facts),
    )  # fmt: skip
    stage.ask("publish", stage.names.presence("default", "worker-1"), encode(presence))


@pytest.fixture
def patient(stage: Stage) -> Stage:
    stage.configure(explain_after_seconds=0.1, worker_lost_seconds=600)
    return stage


def test_each_reason_is_written_once(patient: Stage) -> None:
    executor = patient.executor()
    patient.sent_by(executor, task_workload())

    [line] = writes(executor, 1)
    assert line == (
        "No worker serves queue 'default', in which 1 wait. Next: start one: airflow nats worker "
        "-q default."
    )
    settled(executor)
    assert len(written(executor)) == 1

    announce(patient, paused="no memory")
    assert writes(executor, 2)[1].startswith(
        "No worker of queue 'default' takes anything: 1 paused"
    )


def test_nothing_is_written_before_its_time(stage: Stage) -> None:
    stage.configure(explain_after_seconds=3600)
    executor = stage.executor()
    stage.sent_by(executor, task_workload())
    executor._connected.explainer._after = 3600.0
    executor._connected.explainer._next_look = 0.0
    executor.sync()

    assert written(executor) == []
    assert executor._connected.explainer._due(0.0) == []


def test_zero_switches_it_off(stage: Stage) -> None:
    stage.configure(explain_after_seconds=0)
    executor = stage.executor()
    stage.sent_by(executor, task_workload())
    executor.sync()

    assert executor._connected.explainer._next_look == 0.0


def test_a_paused_queue_is_written(patient: Stage) -> None:
    executor = patient.executor()
    patient.sent_by(executor, task_workload())
    announce(patient)
    writes(executor, 1)  # it is next
    names = patient.names
    patient.ask("pause_consumer", names.tasks_stream, names.consumer("default"), 7258118400.0)

    assert writes(executor, 2)[1].startswith("Queue 'default' is paused until it is resumed;")


def test_a_pause_is_written_with_who_said_so_and_why(patient: Stage) -> None:
    executor = patient.executor()
    patient.sent_by(executor, task_workload())
    wish = Wish(by="ann", reason="new driver", seconds=None)
    patient.portal.call(pause_queues, patient.broker, patient.names, ["default"], wish)

    [text] = writes(executor, 1)

    assert "Queue 'default' is paused by ann until it is resumed (new driver);" in text


def test_a_claim_without_a_start_is_written_and_one_that_runs_is_not(patient: Stage) -> None:
    executor = patient.executor()
    first, second = patient.sent_by(executor, task_workload("a"), task_workload("b"))
    announce(patient)
    patient.report(first, State.CLAIMED)
    patient.report(second, State.RUNNING)

    def is_read() -> bool:
        executor.sync()
        return any(
            "Worker worker-1 has it and has claimed it" in line for line in written(executor)
        )

    block_until(is_read, 60, "the claim to be explained")
    settled(executor)
    names = [line.task_id for line in executor._task_event_logs if "Worker" in str(line.extra)]
    assert names == ["a"]


def test_what_cannot_be_sent_is_written(patient: Stage) -> None:
    executor = patient.executor()
    executor._outage.note(BrokerUnavailable("the stream is full"), "waiting", recoveries=-1)
    queue_up(executor, task_workload(), callback_workload())

    def beat() -> list[str]:
        executor.sync()
        return written(executor)

    [line] = block_until(beat, 60, "a line")
    assert line.startswith("It is still in the scheduler, which cannot send it to NATS for ")
    assert "the stream is full" in line
    settled(executor)
    assert len(written(executor)) == 1


def test_what_has_no_slot_is_written(patient: Stage) -> None:
    executor = patient.executor(parallelism=1)
    announce(patient, running=1)
    patient.sent_by(executor, task_workload("sent"))
    queue_up(executor, task_workload("waits"))

    def beat() -> bool:
        executor.sync()
        return any("1 of the executor's 1 slot are taken" in line for line in written(executor))

    block_until(beat, 60, "a line")


def judged(count: int, cause: Cause, queue: str) -> Judged:
    dispatches = [Dispatch(f"d{n}", n, queue, "ExecuteTask", "") for n in range(count)]
    return Judged(Reason(cause, "x"), dispatches)


def test_a_backlog_is_not_written_and_what_needs_a_person_comes_first() -> None:
    few = judged(MOST_TURNS, Cause.TURN, "few")
    many = judged(MOST_TURNS + 1, Cause.WORKERS_FULL, "many")
    bad = judged(MOST_TOLD - 5, Cause.NO_WORKER, "bad")

    chosen = first_of_all([few, many, bad])

    expected = [*bad.dispatches, *few.dispatches[:5]]
    assert [dispatch for dispatch, _ in chosen] == expected
    assert {reason.cause for _, reason in chosen} == {Cause.NO_WORKER, Cause.TURN}


def test_two_states_of_a_lane_are_one_backlog() -> None:
    some = [judged(MOST_TURNS, cause, "q") for cause in (Cause.TURN, Cause.WORKERS_FULL)]

    assert first_of_all(some) == []


def test_what_was_written_is_not_written_again() -> None:
    bad = judged(3, Cause.NO_WORKER, "bad")
    bad.dispatches[0].explained = Cause.NO_WORKER
    bad.dispatches[1].explained = Cause.QUEUE_PAUSED

    assert [dispatch.id for dispatch, _ in first_of_all([bad])] == ["d1", "d2"]


def test_the_broker_may_be_away(patient: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = patient.executor()
    patient.sent_by(executor, task_workload())

    def away() -> Any:
        raise BrokerUnavailable("away")

    explainer = executor._connected.explainer
    with monkeypatch.context() as patch:
        patch.setattr(explainer, "_require", away)
        settled(executor)
        before = written(executor)
    assert len(before) <= 1  # a look may have been under way

    assert len(writes(executor, 1)) == 1

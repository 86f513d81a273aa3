from __future__ import annotations

import dataclasses

import pytest

from nats_executor.scheduler.ledger import Dispatch
from nats_executor.scheduler.whereabouts import (
    Statement,
    can_conclude,
    denied,
    loss_of,
    run_nowhere,
)
from nats_executor.wire.messages import Kind, Presence, State, encode

PRESENCE = Presence(
    worker="w1.a", name="w1", host="h", pid=1, queues=["default"], concurrency=1, running=1,
    draining=False, started_at=0.0, at=0.0, version="1",
)  # fmt: skip


def dispatch(state: State | None = None, worker: str = "") -> Dispatch:
    return Dispatch(
        "d1", "key", "default", Kind.TASK, "t1", state=state, worker=worker, worker_name=worker
    )


LACKS = Statement("w1", is_lost=False, lacks=frozenset({"d1", "d2"}))
HAS = Statement("w2", is_lost=False, lacks=frozenset({"d2"}))
MUTE = Statement("w3", is_lost=False)  # or of an older release, which does not know the question
LOST = Statement("w4", is_lost=True)


@pytest.mark.parametrize(
    ("statements", "is_nowhere"),
    [
        ([], True),  # every worker had the time to be there, and none is
        ([LACKS], True),
        ([LOST], True),
        ([LACKS, LOST], True),
        ([HAS], False),
        ([MUTE], False),
        ([LACKS, HAS], False),
        ([LACKS, LOST, MUTE], False),
    ],
)
def test_a_dispatch_runs_nowhere_when_every_worker_denies_it_or_is_lost(
    statements: list[Statement], is_nowhere: bool
) -> None:
    assert bool(run_nowhere([dispatch()], statements)) is is_nowhere


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize(
    ("worker", "is_nowhere"), [("w1", True), ("w4", True), ("unlisted", False)]
)
def test_what_a_worker_without_a_record_held_is_left_to_the_look_at_that_worker(
    state: State, worker: str, is_nowhere: bool
) -> None:
    """That look asks the worker itself, and waits twice as long for one that hangs."""
    found = run_nowhere([dispatch(state, worker)], [LACKS, LOST])

    assert bool(found) is (is_nowhere or not state.is_held)


@pytest.mark.parametrize(
    ("bucket_age", "connected_for", "is_time"),
    [(21.0, 21.0, True), (20.0, 21.0, False), (21.0, 20.0, False), (3600.0, float("-inf"), False)],
)
def test_every_worker_had_the_time_to_be_lost_and_one_beat_more(
    bucket_age: float, connected_for: float, is_time: bool
) -> None:
    assert is_time is can_conclude(
        bucket_age=bucket_age,
        connected_for=connected_for,
        lost_after_seconds=15.0,
        heartbeat_seconds=5.0,
    )


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (encode(dataclasses.replace(PRESENCE, lacks=["d1"])), {"d1"}),
        (encode(PRESENCE), set()),
        (encode(dataclasses.replace(PRESENCE, worker="w1.b", lacks=["d1"])), set()),
        (b"", set()),
        (b"pong", set()),
    ],
    ids=["it denies one", "it denies none", "another worker's", "no answer", "unreadable"],
)
def test_a_worker_denies_what_its_own_answer_names(reply: bytes, expected: set[str]) -> None:
    assert denied(reply, "w1.a") == expected


def test_a_loss_names_the_worker_where_one_was_known() -> None:
    known = dispatch(State.RUNNING, "w1")

    assert loss_of(known) == "worker w1 runs it no more, and NATS has lost how it ended"
    assert loss_of(dispatch()) == "no worker runs it, and NATS has lost which one did"
    assert loss_of(dispatch(State.RELEASED, "w1")) == loss_of(dispatch())


@pytest.mark.parametrize(("keys", "is_nowhere"), [({"default"}, False), ({"other"}, True)])
def test_only_workers_of_its_queue_can_keep_a_dispatch_from_being_over(
    keys: set[str], is_nowhere: bool
) -> None:
    """A worker has a record in each queue that it took anything from."""
    mute = Statement("w5", is_lost=False, keys=frozenset(keys))

    assert bool(run_nowhere([dispatch()], [LACKS, mute])) is is_nowhere


@pytest.mark.parametrize("worker", ["w0.a", "w1", "w1.b", "w2.a"])
def test_another_workers_answer_denies_nothing(worker: str) -> None:
    reply = encode(dataclasses.replace(PRESENCE, lacks=["d1"]))

    assert denied(reply, "w1.a") == {"d1"}
    assert denied(reply, worker) == frozenset()

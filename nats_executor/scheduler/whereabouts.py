"""Concludes from the answers of all workers that a workload runs nowhere. No I/O, no clock.

When a broker loses its data, no report tells any more which worker has a workload. Then all
workers are asked: a workload that none of them has runs nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats_executor.errors import DecodeError
from nats_executor.fleet.presences import NO_QUEUE, may_hold
from nats_executor.wire.messages import Presence, decode
from nats_executor.wire.sizes import ANSWER_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.scheduler.ledger import Dispatch

__all__ = ["Statement", "can_conclude", "denied", "loss_of", "run_nowhere"]


@dataclass(frozen=True, slots=True)
class Statement:
    """The answer of one worker about some dispatches, or that it gave none.

    Attributes:
        worker: its id.
        is_lost: it counts as dead.
        lacks: the dispatches that it says it does not have; none, if it does not answer or is
            of a release that does not know the question.
        keys: tokens of the queues that it serves or has served.
    """

    worker: str
    is_lost: bool
    lacks: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset({NO_QUEUE})


def denied(reply: bytes, worker: str) -> frozenset[str]:
    """Return the dispatches that a worker's answer says it does not have."""
    try:
        presence = decode(Presence, reply, most_bytes=ANSWER_BYTES)
    except DecodeError:  # also b"", where there was no answer
        return frozenset()
    return frozenset(presence.lacks) if presence.worker == worker else frozenset()


def can_conclude(
    *,
    bucket_age: float,
    connected_for: float,
    lost_after_seconds: float,
    heartbeat_seconds: float,
) -> bool:
    """Whether every worker that lives has had the time to be in the workers bucket.

    A bucket that was made a moment ago has no record yet of the workers that lived before.

    Args:
        bucket_age: seconds since the bucket was made, by the broker's clock.
        connected_for: seconds since our own last connect.
    """
    return min(bucket_age, connected_for) > lost_after_seconds + heartbeat_seconds


def run_nowhere(dispatches: Sequence[Dispatch], statements: Sequence[Statement]) -> list[Dispatch]:
    """Return those of the dispatches that no worker can have.

    A worker of its queue that may live and does not deny a dispatch may have it. What an unlisted
    worker was known to hold is left to the ordinary look at that worker, which is more patient with
    one that hangs.

    Args:
        statements: one of each worker in the bucket.
    """
    listed = {statement.worker for statement in statements}
    return [
        dispatch
        for dispatch in dispatches
        if (not dispatch.is_held or dispatch.worker in listed)
        and all(
            s.is_lost or dispatch.id in s.lacks or not may_hold(s.keys, dispatch.queue)
            for s in statements
        )
    ]


def loss_of(dispatch: Dispatch) -> str:
    """Say what became of it, for the person who reads the task's history."""
    if dispatch.is_held:
        return f"worker {dispatch.worker_name} runs it no more, and NATS has lost how it ended"
    return "no worker runs it, and NATS has lost which one did"

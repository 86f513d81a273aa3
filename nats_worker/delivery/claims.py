"""Decides whether a worker may run what it was delivered: one claim for each dispatch wins.

A claim is a report, published on the expectation that no report has come since. So a workload
that is delivered twice, after an outage or a worker's death, never runs twice at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nats_executor.wire.messages import State

if TYPE_CHECKING:
    from nats_executor.wire.messages import Report

__all__ = [
    "Claim",
    "Decision",
    "Done",
    "Exhausted",
    "Held",
    "Lost",
    "Unanswered",
    "decide",
    "is_claimed",
    "is_void",
]


# Without Airflow's API no worker can start a dispatch, and it is claimed any number of times.
KEPT = 10


@dataclass(frozen=True, slots=True)
class Claim:
    """Claim it, if the subject's last sequence is still the expected one.

    Attributes:
        attempt: the number of this claim.
        predecessors: the workers that claimed it before; any of them may have started it.
        token: the renewed token, '' for the one in the message.
        generation: how often it was renewed.
    """

    expected_last: int
    attempt: int
    predecessors: tuple[str, ...] = ()
    token: str = field(default="", repr=False)
    generation: int = 0

    @property
    def predecessor(self) -> str:
        """The worker that may have started it; '' for none. Then the API server decides."""
        return self.predecessors[-1] if self.predecessors else ""


@dataclass(frozen=True, slots=True)
class Done:
    """It is over: nothing to do but ack."""


@dataclass(frozen=True, slots=True)
class Held:
    """Another worker, which lives, has it."""

    worker: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """It waits for an executor to renew its token."""

    report: Report


@dataclass(frozen=True, slots=True)
class Lost:
    """Its worker died while it ran: report the failure in its place, so that Airflow retries."""

    expected_last: int
    report: Report


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Every worker that took it died or gave it back: it becomes a dead letter.

    Attributes:
        info: why the last one gave it back, '' if it died.
    """

    expected_last: int
    attempt: int
    predecessors: tuple[str, ...]
    info: str = ""


Decision = Claim | Done | Held | Unanswered | Lost | Exhausted


def decide(
    last: Report | None,
    sequence: int,
    *,
    worker: str,
    is_alive: bool,
    max_attempts: int,
) -> Decision:
    """Return what a delivery's history allows.

    Args:
        last: the last report of the dispatch, None if there is none.
        sequence: that report's sequence in the result stream, 0 if there is none.
        worker: this worker's id.
        is_alive: whether the worker that made the last report lives; asked only where it matters.
    """
    if last is None:
        return Claim(sequence, attempt=1)
    match last.state:
        case state if state.is_final:
            return Done()
        case State.CLAIMED | State.RUNNING if last.worker != worker and is_alive:
            return Held(last.worker_name)
        case State.EXPIRED:
            return Unanswered(last)
        case State.RENEWED:
            return Claim(
                sequence, last.attempt, tuple(last.predecessors), last.token, last.generation
            )
        case State.RUNNING:
            return Lost(sequence, last)
    predecessors = known(last)
    if last.attempt >= max_attempts:
        return Exhausted(sequence, last.attempt, predecessors, last.info)
    return Claim(sequence, last.attempt + 1, predecessors, last.token, last.generation)


def known(last: Report) -> tuple[str, ...]:
    """Return the latest workers that claimed a dispatch, the last one at the end."""
    names = list(last.predecessors)
    if not names or names[-1] != last.worker_name:  # else it has taken it again
        names.append(last.worker_name)
    return tuple(str(name) for name in names[-KEPT:])


def is_claimed(last: Report | None, *, worker: str, attempt: int) -> bool:
    """Whether the last report there is a worker's own claim, whose answer it has not got.

    Args:
        worker: the id of the worker that asked for the claim.
        attempt: the number of that claim.
    """
    claimed = (worker, State.CLAIMED, attempt)
    return last is not None and (last.worker, last.state, last.attempt) == claimed


def is_void(state: State, last: Report, *, worker: str) -> bool:
    """Whether a claimant's report has nothing to add to the last one there.

    Args:
        worker: the id of the claimant.
    """
    is_ours = last.worker == worker
    if last.state.is_final:
        return is_ours or not state.is_final or last.state is not State.DROPPED
    if is_ours and last.state is not State.RENEWED:
        return last.state is state
    # Another one's claim, or a new token: an end counts, giving it up does not.
    return not state.is_final

"""Workers that run short tasks and are replaced, one after the other, cost no try."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nats_executor.wire.messages import Report, State
from tests.faults.drains import Course, lost_tries, run_drains

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.nats_server import NatsServer


def told(state: State, worker: str = "w1", *predecessors: str, info: str = "") -> Report:
    return Report(
        dispatch_id="d1", queue="default", state=state, kind="task", key=["d1"],
        worker=f"{worker}.1", worker_name=worker, predecessors=list(predecessors), info=info,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reports", "lost"),
    [
        ([], False),
        ([told(State.CLAIMED), told(State.RELEASED)], False),
        ([told(State.CLAIMED), told(State.DROPPED)], False),
        ([told(State.CLAIMED), told(State.FAILED, "w2")], False),
        ([told(State.CLAIMED), told(State.CLAIMED, "w2", "w1"), told(State.FAILED, "w2")], False),
        ([told(State.CLAIMED, "dead"), told(State.RUNNING, "dead"), told(State.FAILED)], True),
        ([told(State.CLAIMED, "w1", "dead"), told(State.DROPPED)], True),
        ([told(State.CLAIMED, "w1", "dead"), told(State.RELEASED)], False),
        (
            [told(State.CLAIMED, "dead"), told(State.CLAIMED, "w1", "dead"), told(State.FAILED)],
            True,
        ),
        (
            [
                told(State.CLAIMED, "dead"),
                told(State.CLAIMED, "w1", "dead"),
                told(State.CLAIMED, "w2", "dead", "w1"),
                told(State.FAILED, "w2"),
            ],
            False,
        ),
    ],
)
def test_a_lost_try_is_excused_where_its_worker_was_killed(
    reports: list[Report], *, lost: bool
) -> None:
    assert list(lost_tries({"d1": reports}, {"dead"})) == [("d1", lost)]


def test_a_success_is_no_lost_try() -> None:
    assert not list(lost_tries({"d1": [told(State.CLAIMED), told(State.SUCCESS)]}, {"w1"}))


@pytest.mark.anyio
@pytest.mark.integration
@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_many_drains_of_busy_workers_spend_no_try(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    """A hundred tasks over ten drains at random moments, and two kills beside them."""
    outcome = await run_drains(Course(seed=1, drains=10), nats_server.url, tmp_path, print)

    assert outcome.violations == []
    assert (outcome.tasks, outcome.drains, outcome.kills) == (100, 10, 2)

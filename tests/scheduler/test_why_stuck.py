from __future__ import annotations

from dataclasses import replace

import pytest

from nats_executor.scheduler.ledger import Dispatch, Ledger
from nats_executor.scheduler.stuck import why_stuck
from nats_executor.wire.messages import Kind, Report, State
from nats_executor.wire.names import Lane

SENT = Dispatch("d1", "key", "gpu", Kind.TASK, "ti-1", worker_name="w1")
CLAIMED = replace(SENT, state=State.CLAIMED, held_since=100.0)
RUNNING = replace(SENT, state=State.RUNNING, held_since=100.0)
RELEASED = replace(SENT, state=State.RELEASED, held_since=100.0)
UNSERVED = "no worker serves queue 'gpu'; `airflow nats check` has the remedy"
HELD = (
    "worker w1 has held it for 61 s without starting it, longer than [scheduler] "
    "task_queued_timeout (60 s); its log says why"
)


@pytest.mark.parametrize("dispatch", [None, SENT, RELEASED])
def test_what_no_worker_has_is_stuck_only_where_none_serves_it(dispatch: Dispatch | None) -> None:
    def ask(*, is_served: bool) -> str:
        return why_stuck(dispatch, Lane("gpu"), is_served=is_served, now=161.0, patience=60.0)

    assert ask(is_served=True) == ""
    assert ask(is_served=False) == UNSERVED


@pytest.mark.parametrize("is_served", [True, False])
@pytest.mark.parametrize(
    ("dispatch", "now", "reason"),
    [
        (CLAIMED, 160.0, ""),
        (CLAIMED, 161.0, HELD),
        (RUNNING, 999.0, ""),
    ],
)
def test_what_a_worker_has_is_stuck_once_it_has_not_started_it_for_long(
    dispatch: Dispatch, now: float, reason: str, *, is_served: bool
) -> None:
    found = why_stuck(dispatch, Lane("gpu"), is_served=is_served, now=now, patience=60.0)

    assert found == reason


@pytest.mark.parametrize(
    ("second", "since"),
    [
        ({}, 1.0),
        ({"state": State.RUNNING}, 1.0),
        ({"worker": "w2"}, 2.0),
        ({"attempt": 2}, 2.0),
    ],
)
def test_a_claim_counts_from_when_it_was_first_heard_of(
    second: dict[str, object], since: float
) -> None:
    ledger = Ledger()
    ledger.track(dispatch := replace(SENT))
    claim = Report(
        dispatch_id="d1", queue="gpu", state=State.CLAIMED, kind=Kind.TASK, key=[], worker="w1",
        worker_name="w1",
    )  # fmt: skip

    ledger.apply(claim, 1.0)
    ledger.apply(replace(claim, **second), 2.0)  # type: ignore[arg-type]

    assert dispatch.held_since == since


def test_a_claim_that_was_given_up_counts_again_from_its_next_one() -> None:
    ledger = Ledger()
    ledger.track(dispatch := replace(SENT))
    claim = Report(
        dispatch_id="d1", queue="gpu", state=State.CLAIMED, kind=Kind.TASK, key=[], worker="w1",
        worker_name="w1",
    )  # fmt: skip

    for now, state in enumerate((State.CLAIMED, State.RELEASED, State.CLAIMED)):
        ledger.apply(replace(claim, state=state), float(now))

    assert dispatch.held_since == 2.0

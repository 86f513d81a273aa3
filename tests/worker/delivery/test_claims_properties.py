"""Three workers and one dispatch, in every order in which their steps can fall."""

from __future__ import annotations

import logging

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nats_executor.retrying import STEP_PAUSES
from nats_executor.wire.messages import Kind, Report, State
from nats_worker import worker as worker_module
from nats_worker.delivery.claims import is_void
from tests.support.claim_stage import (
    ACK_WAIT,
    DETAILS,
    EXPIRED_TOKEN,
    ROUNDS,
    ClaimStage,
    claim_stage,
)


class Defects(logging.Handler):
    """Collects what a worker logs as a failure of its own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


# What leads on comes more often than what breaks.
USUAL = ("deliver", "go on", "go far", "ask", "end")


class Workers(RuleBasedStateMachine):
    """Three workers at a time, and one dispatch."""

    claim_stage: ClaimStage

    @initialize(kind=st.sampled_from([Kind.TASK, Kind.CALLBACK]), is_old=st.booleans())
    def begin(self, kind: Kind, is_old: bool) -> None:
        self.claim_stage = ClaimStage(kind, EXPIRED_TOKEN if is_old else "token-0")
        self.defects = Defects()
        worker_module.log.addHandler(self.defects)

    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        possible = self.claim_stage.moves()
        weighted = [move for move in possible for _ in range(3 if move in USUAL else 1)]
        what = data.draw(st.sampled_from(weighted))
        worker = data.draw(st.sampled_from(possible[what]))
        detail = data.draw(st.sampled_from(DETAILS[what])) if what in DETAILS else None
        self.claim_stage.move(what, worker, detail)

    @invariant()
    def holds(self) -> None:
        self.claim_stage.check()

    def teardown(self) -> None:
        if not hasattr(self, "claim_stage"):
            return
        try:
            self.claim_stage.calm_down()
            self.claim_stage.check()
            self.claim_stage.check_end()
            assert not self.defects.records
        finally:
            worker_module.log.removeHandler(self.defects)
            self.claim_stage.close()


TestWorkers = Workers.TestCase
# Shrinking takes longer than a test may; to look into a failure, leave `phases` out.
TestWorkers.settings = settings(max_examples=100, stateful_step_count=40, phases=[Phase.generate])


# Single paths that the simulation found


def test_one_worker_does_it_all() -> None:
    with claim_stage() as made:
        worker = made.sites[0]
        made.deliver(worker)
        made.go_far(worker)
        made.ask(worker)
        made.go_far(worker)
        made.end(worker)
        made.go_far(worker)

        assert [r.state for r in made.server.said] == [State.CLAIMED, State.RUNNING, State.SUCCESS]
        assert not made.is_queued
        made.check_end()


def test_who_may_have_started_it_is_remembered_when_its_token_is_renewed() -> None:
    """The first worker started it and died, and the token died before the second one asked."""
    with claim_stage() as made:
        first, second, third = made.sites
        made.deliver(first)
        made.go_far(first)
        made.ask(first)
        made.crash(first)
        made.given_up.add(first.worker.state.id)
        made.api.oldest_token = 1
        for worker in (second, third):
            made.wait()
            made.deliver(worker)
            made.go_far(worker)
            made.ask(worker)
            made.go_far(worker)
            made.renew()

        assert made.api.state == "running"
        assert [report.state for report in made.finals] == [State.FAILED]


def test_a_redelivery_to_the_worker_that_is_claiming_it_is_no_second_claim() -> None:
    with claim_stage() as made:
        worker = made.sites[0]
        made.deliver(worker)
        made.go_on(worker)  # there is no report yet
        made.go_on(worker)  # the claim is stored, and its answer on the way
        made.wait(ACK_WAIT)
        made.deliver(worker)
        made.wait(STEP_PAUSES[1])  # so it is asked for again
        made.go_far(worker)

        assert [report.state for report in made.server.said] == [State.CLAIMED]
        assert len(worker.worker.leases) == 1


def test_a_claim_whose_answer_was_lost_does_not_wait_for_a_worker_that_is_full() -> None:
    with claim_stage() as made:
        full, idle, _ = made.sites
        made.deliver(full)
        made.go_on(full)
        made.go_on(full)
        made.go_on(full, lose=True)
        made.go_far(full)
        full.is_draining = True  # or every slot is taken meanwhile: it gets no more deliveries
        for _ in range(ROUNDS):
            made.wait()
            made.deliver(idle)
            made.go_far(full)
            made.go_far(idle)
            made.ask(idle)

        assert len(made.pool.requested) == 1


def test_a_worker_that_was_cut_off_leaves_the_message_to_the_one_that_gave_it_back() -> None:
    """The API server started it for the second worker, which never heard of it."""
    with claim_stage() as made:
        cut, second, _ = made.sites
        made.deliver(cut)
        made.go_far(cut)
        made.cut(cut)
        made.give_up(cut)
        made.wait(ACK_WAIT)
        made.deliver(second)
        made.go_far(second)
        made.ask(second, "accepted in silence")
        made.go_far(second)
        made.heal(cut)
        made.ask(cut)
        made.go_far(cut)

        assert made.last is not None
        assert (made.last.worker_name, made.last.state) == ("w1", State.RELEASED)
        assert made.is_queued
        made.calm_down()
        made.check_end()
        assert made.finals[-1].state is State.FAILED


@pytest.mark.parametrize("is_ours", [True, False])
@pytest.mark.parametrize("there", list(State))
@pytest.mark.parametrize("state", [s for s in State if s is not State.RENEWED])
def test_a_report_is_void_only_where_it_would_undo_something(
    state: State, there: State, is_ours: bool
) -> None:
    """Every report of ours against every last one there."""
    last = Report(
        dispatch_id="d1", queue="default", state=there, kind=Kind.TASK, key=[],
        worker="me.1" if is_ours else "other.1", worker_name="",
    )  # fmt: skip

    if is_void(state, last, worker="me.1"):
        # Nothing is lost: it is over, it is said already, or another one goes on with it.
        assert there.is_final or not state.is_final or (is_ours and there is state)
    else:
        # An end is not told twice, and what another one holds is not given up in its name.
        assert not there.is_final or (there is State.DROPPED and not is_ours and state.is_final)
        assert state.is_final or (is_ours and there is not State.RENEWED)

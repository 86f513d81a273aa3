"""The life of one dispatch, and a scheduler that looks at it between any two steps.

The broker loses nothing here, except where it is wiped. What the scheduler reads is what
`Inspector.look_up` reads and in its order: whether the message is there, then the last report.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nats_executor.scheduler.evidence import Evidence, can_adopt
from nats_executor.wire.messages import Kind, Report, State


@dataclass
class Life:
    """What is true of a dispatch, and what the broker's streams hold of it."""

    is_row_waiting: bool = True  # Airflow's row is QUEUED
    is_in_stream: bool = False
    last: State | None = None
    is_with_worker: bool = False  # a living worker has it in its hands
    is_running: bool = False
    is_revoked: bool = False
    was_wiped: bool = False

    @property
    def report(self) -> Report | None:
        if self.last is None:
            return None
        return Report(
            dispatch_id="d1", queue="default", state=self.last, kind=Kind.TASK, key=[],
            worker="w1.a", worker_name="w1",
        )  # fmt: skip

    @property
    def is_over(self) -> bool:
        return self.last is not None and self.last.is_final

    @property
    def has_future(self) -> bool:
        """Whether somebody runs it, will get it from the broker, or has told how it ended."""
        told = self.last in {State.SUCCESS, State.FAILED}
        return self.is_running or self.is_with_worker or self.is_in_stream or told


class Adoption(RuleBasedStateMachine):
    """Steps of the broker and the workers; each of them may be the one before an adoption."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Life()
        self.was_sent = False
        self.was_in_stream: bool | None = None  # what a look has seen so far

    @property
    def is_looking(self) -> bool:
        return self.was_in_stream is not None

    # A scheduler, and Airflow

    @initialize(stage=st.sampled_from(["new", "sent", "claimed", "claimed"]))
    def begin(self, stage: str) -> None:
        if stage != "new":
            self.send()
        if stage == "claimed":
            self.deliver(is_first=True)

    # Who sends is dead by the time that another one looks.
    @precondition(lambda self: not self.was_sent and not self.is_looking)
    @rule()
    def send(self) -> None:
        self.was_sent = True
        self.life.is_in_stream = True

    @precondition(lambda self: self.life.is_row_waiting and not self.is_looking)
    @rule()
    def revoke(self) -> None:
        """Airflow gives the row another dispatch later; this one is looked up no more."""
        self.life.is_in_stream = False
        self.life.is_revoked = True

    @precondition(lambda self: self.life.last is State.EXPIRED)
    @rule()
    def renew(self) -> None:
        self.life.last = State.RENEWED

    # A worker

    @precondition(lambda self: self.life.is_in_stream and not self.life.is_with_worker)
    @precondition(lambda self: not self.life.is_over)
    @rule(is_first=st.booleans())
    def deliver(self, is_first: bool) -> None:
        life = self.life
        match life.last:
            case State.RUNNING:  # its worker is dead
                life.last, life.is_running = State.FAILED, False
            case None | State.RELEASED | State.RENEWED | State.CLAIMED if is_first or life.last:
                life.last, life.is_with_worker = State.CLAIMED, True

    @precondition(lambda self: self.life.is_with_worker and not self.life.is_running)
    @rule(state=st.sampled_from([State.RELEASED, State.EXPIRED]))
    def give_back(self, state: State) -> None:
        """The message stays: a nak comes after the report, an ack never."""
        self.life.last, self.life.is_with_worker = state, False

    @precondition(lambda self: self.life.is_with_worker)
    @rule()
    def start(self) -> None:
        self.life.is_running, self.life.is_row_waiting = True, False

    @precondition(lambda self: self.life.is_running and self.life.is_with_worker)
    @rule()
    def report_start(self) -> None:
        self.life.last = State.RUNNING

    @precondition(lambda self: self.life.is_with_worker)
    @rule(state=st.sampled_from([State.SUCCESS, State.FAILED]))
    def end(self, state: State) -> None:
        """A dead letter is a failure as well, of what never ran."""
        life = self.life
        life.last = state if life.is_running else State.FAILED
        life.is_running = life.is_with_worker = False

    @precondition(lambda self: self.life.is_with_worker and not self.life.is_running)
    @rule()
    def drop(self) -> None:
        """Airflow no longer wanted it, and said so when it was to start."""
        self.life.last, self.life.is_with_worker = State.DROPPED, False

    @precondition(lambda self: self.life.is_over)
    @rule()
    def ack(self) -> None:
        """Only ever after the report of the end."""
        self.life.is_in_stream = False

    @precondition(lambda self: self.life.is_with_worker and self.life.is_in_stream)
    @rule()
    def kill_worker(self) -> None:
        self.life.is_with_worker = self.life.is_running = False

    @precondition(lambda self: not self.is_looking)
    @rule()
    def purge(self) -> None:
        """An operator empties the queue; what workers have in their hands, they still have."""
        self.life.is_in_stream = False

    @precondition(lambda self: not self.is_looking)
    @rule()
    def wipe(self) -> None:
        self.life.is_in_stream, self.life.last, self.life.was_wiped = False, None, True

    # Another scheduler

    @precondition(lambda self: not self.is_looking and not self.life.is_revoked)
    @rule()
    def begin_to_look(self) -> None:
        self.was_in_stream = self.life.is_in_stream

    @precondition(lambda self: self.is_looking)
    @rule()
    def look_further(self) -> None:
        evidence = Evidence(self.life.report, bool(self.was_in_stream))
        self.was_in_stream = None
        self.check(evidence, is_exact=False)

    def check(self, evidence: Evidence, *, is_exact: bool) -> None:
        life = self.life
        is_kept = can_adopt(is_waiting=life.is_row_waiting, evidence=evidence)
        event(f"kept: {is_kept}")
        if not life.is_row_waiting:
            assert is_kept, "it started, and un-adopted it would run twice"
        elif life.is_in_stream and not life.is_over:
            assert is_kept, "a worker may still start it"
            assert not evidence.is_lost
        if life.is_with_worker and not life.was_wiped:
            assert not evidence.is_lost, "sent again, it would be claimed beside its worker"
        if life.was_wiped:
            # What the broker has forgotten, nobody may be let wait for.
            is_known = evidence.is_in_stream or evidence.last_report is not None
            assert is_known or evidence.is_lost or not is_kept or not life.is_row_waiting
        elif is_exact and life.is_row_waiting:
            # Exactly what has a future: the rest would wait for a time-out.
            is_due = life.has_future and life.last is not State.DROPPED
            # What is kept and lost is sent (again) at once.
            assert (is_kept and not evidence.is_lost) is (is_due or life.last is State.CLAIMED)
            assert is_kept is (life.last is not State.DROPPED)

    @invariant()
    def a_look_at_one_moment_is_exact(self) -> None:
        life = self.life
        if not life.is_revoked:
            self.check(Evidence(life.report, life.is_in_stream), is_exact=True)

    @invariant()
    def nobody_is_given_away_unseen(self) -> None:
        assert can_adopt(is_waiting=self.life.is_row_waiting, evidence=None)


TestAdoption = Adoption.TestCase
TestAdoption.settings = settings(max_examples=80, stateful_step_count=25)

"""The ledger against a model that keeps everything that was said and reads it again each time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nats_executor.scheduler.ledger import (
    Dispatch,
    Ended,
    Ledger,
    Renewal,
    Returned,
    Started,
    Unwanted,
)
from nats_executor.wire.messages import Kind, Report, State

if TYPE_CHECKING:
    from nats_executor.scheduler.ledger import Outcome

KEYS = ("k0", "k1", "k2")
QUEUES = ("default", "gpu")
NEVER = "never tracked"
# An end comes once, the others any number of times.
LIKELY = [*State, State.RUNNING, State.RUNNING, State.EXPIRED, State.EXPIRED]

said = st.builds(
    Report,
    dispatch_id=st.just(NEVER),  # chosen by the machine
    queue=st.sampled_from(QUEUES),
    state=st.sampled_from(State),
    kind=st.just(Kind.TASK),
    key=st.just([]),
    worker=st.sampled_from(["w0.a", "w0.b", "w1.a"]),
    worker_name=st.sampled_from(["w0", "w1"]),
    generation=st.sampled_from([0, 0, 0, 1, 2, 2**64 - 1]),
    info=st.sampled_from(["", "why"]),
)


@dataclass
class Entry:
    """One dispatch in the order of its tracking, and all that was said while it was there."""

    id: str
    key: str
    queue: str
    is_forgotten: bool = False
    heard: list[Report] = field(default_factory=list)

    @property
    def believed(self) -> list[Report]:
        """What counts: of this queue, of the current generation, up to the end."""
        counted: list[Report] = []
        generation = 0
        for report in self.heard:
            if any(earlier.state.is_final for earlier in counted):
                break
            # An end counts whenever it comes, and whose token has died needs another.
            is_last_word = report.state.is_final or report.state is State.EXPIRED
            is_late = report.generation < generation and not is_last_word
            if report.queue != self.queue or report.state is State.RENEWED or is_late:
                continue
            counted.append(report)
            if report.state is State.EXPIRED:
                generation = report.generation + 1
        return counted

    @property
    def states(self) -> list[State]:
        return [report.state for report in self.believed]

    @property
    def is_over(self) -> bool:
        return any(state.is_final for state in self.states)


class LedgerMachine(RuleBasedStateMachine):
    """Tracks, forgets and reports in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.entries: list[Entry] = []
        self.ended: list[str] = []

    def entry(self, dispatch_id: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.id == dispatch_id), None)

    @property
    def current(self) -> dict[str, Entry]:
        """By key, what is outstanding: the newest dispatch, unless it was forgotten or is over."""
        newest = {entry.key: entry for entry in self.entries}
        return {k: e for k, e in newest.items() if not e.is_forgotten and not e.is_over}

    @initialize()
    def begin(self) -> None:
        for key in KEYS:
            self.track(key, "default")

    @rule(key=st.sampled_from(KEYS), queue=st.sampled_from(QUEUES))
    def track(self, key: str, queue: str) -> None:
        entry = Entry(f"d{len(self.entries)}", key, queue)
        self.entries.append(entry)
        self.ledger.track(Dispatch(entry.id, key, queue, Kind.TASK, f"ti of {entry.id}"))

    @rule(key=st.sampled_from(KEYS))
    def forget(self, key: str) -> None:
        entry = self.current.get(key)

        forgotten = self.ledger.forget(key)

        assert (forgotten.id if forgotten else None) == (entry.id if entry else None)
        if entry is not None:
            entry.is_forgotten = True

    @rule(report=said, data=st.data())
    def report(self, report: Report, data: st.DataObject) -> None:
        """Report on anything, also twice, late, or on what was never here; most of it is new."""
        known = [entry.id for entry in self.entries]
        now = [entry.id for entry in self.current.values()]
        told = [old for entry in self.entries for old in entry.heard]
        if told and data.draw(st.integers(0, 3), "repeated") == 0:
            report = data.draw(st.sampled_from(told))
        else:
            name = data.draw(st.sampled_from([*(now * 3), *known, NEVER]))
            report = replaced(report, name)
        self.tell(report)

    @rule(data=st.data())
    def work_on(self, data: st.DataObject) -> None:
        """Report what may be believed: of the right queue, of this or the last generation."""
        if self.current:
            entry = data.draw(st.sampled_from(list(self.current.values())))
            renewals = [r.generation + 1 for r in entry.believed if r.state is State.EXPIRED]
            generation = (renewals or [0])[-1] - data.draw(st.sampled_from([0, 0, 1]))
            self.tell(
                Report(
                    dispatch_id=entry.id,
                    queue=entry.queue,
                    state=data.draw(st.sampled_from(LIKELY)),
                    kind=Kind.TASK,
                    key=[],
                    worker="w1.a",
                    worker_name="w1",
                    generation=max(generation, 0),
                )
            )

    def tell(self, report: Report) -> None:
        before = self.snapshot()
        entry = self.entry(report.dispatch_id)
        is_current = entry is not None and self.current.get(entry.key) is entry
        heard = len(entry.believed) if entry else 0
        if entry is not None and is_current:
            entry.heard.append(report)

        outcome = self.ledger.apply(report)

        if entry is None or not is_current or len(entry.believed) == heard:
            assert outcome is None
            assert self.snapshot() == before
        else:
            self.check_outcome(outcome, entry, report)

    def check_outcome(self, outcome: Outcome | None, entry: Entry, report: Report) -> None:
        *earlier, state = entry.states
        was_running = bool(earlier) and earlier[-1] is State.RUNNING
        reasons = [r.info for r in entry.believed[:-1] if r.state is State.RELEASED]
        is_told = report.info == (reasons[-1] if reasons else "")
        expected: type[object] = {
            State.RUNNING: type(None) if was_running else Started,
            State.RELEASED: type(None) if is_told else Returned,
            State.EXPIRED: Renewal,
            State.SUCCESS: Ended,
            State.FAILED: Ended,
            State.DROPPED: Unwanted,
        }.get(state, type(None))
        assert type(outcome) is expected
        if outcome is None:
            return
        assert (outcome.dispatch.id, outcome.dispatch.key) == (entry.id, entry.key)
        assert outcome.dispatch.token_subject == f"ti of {entry.id}"  # never from a report
        if isinstance(outcome, Ended | Unwanted):
            self.ended.append(entry.id)
            assert outcome.info == report.info
        if isinstance(outcome, Ended):
            assert outcome.succeeded is (state is State.SUCCESS)

    def snapshot(self) -> list[str]:
        """Everything that the ledger says of itself."""
        return [repr(self.ledger), *map(repr, self.ledger)]

    @invariant()
    def the_ledger_holds_what_the_model_holds(self) -> None:
        held = {str(d.key): (d.id, d.queue, d.state) for d in self.ledger}
        assert len(list(self.ledger)) == len(self.ledger) == len(held)
        assert held == {
            key: (entry.id, entry.queue, entry.states[-1] if entry.states else None)
            for key, entry in self.current.items()
        }

    @invariant()
    def nothing_ends_twice(self) -> None:
        assert len(self.ended) == len(set(self.ended))

    @invariant()
    def running_is_counted(self) -> None:
        running = sum(e.states[-1:] == [State.RUNNING] for e in self.current.values())
        assert repr(self.ledger) == f"<Ledger [{len(self.current)} outstanding, {running} running]>"


def replaced(report: Report, dispatch_id: str) -> Report:
    return Report(
        dispatch_id=dispatch_id, queue=report.queue, state=report.state, kind=report.kind,
        key=report.key, worker=report.worker, worker_name=report.worker_name,
        generation=report.generation, info=report.info,
    )  # fmt: skip


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=30)

"""Every exit of a process against the promises, which are written here a second time.

The table is that of Airflow's `supervise_task`; docs/explanation/guarantees.md says what may spend
a try.
"""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nats_executor.wire.messages import State
from nats_worker.delivery.verdict import Back, Expired, Final, Left, Verdict, judge
from nats_worker.processes.exit_report import Ending, ExitReport

# What `supervise_task` and its process can end with before the API server has accepted a start.
REFUSALS = {Ending.ALREADY_RUNNING, Ending.EXCHANGED, Ending.STALE, Ending.TOKEN_REFUSED}
# The supervisor itself came to one of these ends.
TOLD = {Ending.FINISHED, Ending.UNDELIVERED, Ending.UNREADABLE}
# Nothing has begun, and what for is this worker's own: another one may have more luck.
OURS = {Ending.UNREACHABLE, Ending.WRONG_ADDRESS, Ending.HUNG, Ending.RAISED}

reports = st.builds(
    ExitReport,
    ending=st.sampled_from(Ending),
    exit_code=st.integers() | st.integers(-70, 256),
    started=st.booleans(),
    pid=st.integers(0, 2**31),
    previous_state=st.sampled_from(["", "success", "up_for_retry", "\x00"]) | st.text(max_size=5),
    info=st.sampled_from(["", "why"]) | st.text(max_size=20),
)
predecessors = st.sampled_from(["", "w1"])
generations = st.integers(0, 2**53) | st.sampled_from([n + d for n in (3, 50) for d in (-1, 0, 1)])


def may_spend_a_try(
    report: ExitReport, predecessor: str, generation: int, *, is_token_fresh: bool
) -> bool:
    """Whether Airflow may be told that this failed, by the table of `supervise_task`."""
    match report.ending:
        case Ending.FINISHED:  # killed, or the process of a callback failed
            return report.exit_code != 0
        case Ending.UNDELIVERED | Ending.UNREADABLE:
            return True
        case Ending.DIED | Ending.RAISED:  # only then has anything run
            return report.started
        case Ending.ALREADY_RUNNING | Ending.EXCHANGED:
            # The worker before this one had started it and is dead; or this one had a callback
            # started, and has not heard so.
            has_lost_it = report.ending is Ending.EXCHANGED and report.started
            return predecessor != "" or has_lost_it
        case Ending.TOKEN_REFUSED:  # of so many new ones, none was taken; old ones tell little
            return generation >= (3 if is_token_fresh else 50)
    return False


@given(reports, predecessors, generations, st.booleans())
@example(ExitReport(ending=Ending.FINISHED, exit_code=-(10**40)), "", 0, False)
@example(ExitReport(ending=Ending.RAISED), "", 0, False)
def test_every_exit_has_a_verdict(
    report: ExitReport, predecessor: str, generation: int, is_revoked: bool
) -> None:
    verdict = judge(report, predecessor=predecessor, generation=generation, is_revoked=is_revoked)

    assert isinstance(verdict, Verdict)
    if is_revoked:
        assert isinstance(verdict, Final)
        assert verdict.state is State.DROPPED
        assert verdict.info


@given(reports, predecessors, generations)
def test_success_is_only_what_ended_well_or_as_the_server_asked(
    report: ExitReport, predecessor: str, generation: int
) -> None:
    verdict = judge(report, predecessor=predecessor, generation=generation)

    is_success = isinstance(verdict, Final) and verdict.state is State.SUCCESS
    ended_well = report.ending is Ending.FINISHED and report.exit_code == 0
    assert is_success is (ended_well or report.ending is Ending.STOPPED_BY_SERVER)


@given(reports, predecessors, generations, st.booleans())
def test_a_try_is_spent_by_the_rows_that_say_so_and_by_no_other(
    report: ExitReport, predecessor: str, generation: int, is_token_fresh: bool
) -> None:
    verdict = judge(
        report, predecessor=predecessor, generation=generation, is_token_fresh=is_token_fresh
    )

    is_failure = isinstance(verdict, Final) and verdict.state is State.FAILED
    assert is_failure is may_spend_a_try(
        report, predecessor, generation, is_token_fresh=is_token_fresh
    )
    if is_failure and not report.started:
        assert report.ending in REFUSALS | TOLD


@given(reports, predecessors, generations)
def test_whoever_reads_the_history_is_told_why(
    report: ExitReport, predecessor: str, generation: int
) -> None:
    verdict = judge(report, predecessor=predecessor, generation=generation)

    if isinstance(verdict, Final) and verdict.state is State.FAILED:
        assert verdict.info
        if report.ending in {Ending.ALREADY_RUNNING, Ending.EXCHANGED}:
            assert predecessor in verdict.info
        elif report.info:
            assert report.info in verdict.info
        elif report.ending is Ending.FINISHED:
            assert str(abs(report.exit_code)) in verdict.info or "SIG" in verdict.info


@given(reports, predecessors, generations)
def test_what_was_refused_or_never_asked_is_given_to_somebody_else_or_dropped(
    report: ExitReport, predecessor: str, generation: int
) -> None:
    """The other side of the table: what is neither an end nor a failure goes on somewhere."""
    verdict = judge(report, predecessor=predecessor, generation=generation)

    match verdict:
        case Back(_, delay_seconds, counts, is_ours):
            assert report.ending in OURS | {Ending.DIED, Ending.GIVEN_UP}
            assert delay_seconds >= 0
            # An API server that is away says nothing of the workload.
            assert counts is (report.ending in {Ending.DIED, Ending.HUNG, Ending.RAISED})
            assert is_ours is (report.ending in OURS)
        case Left():
            assert report.ending in {Ending.ALREADY_RUNNING, Ending.EXCHANGED}
            assert predecessor == ""
        case Expired():
            assert report.ending is Ending.TOKEN_REFUSED
        case Final(State.DROPPED):
            assert report.ending is Ending.STALE
        case Final():
            assert verdict.state in {State.SUCCESS, State.FAILED}


@pytest.mark.parametrize("ending", list(Ending))
@given(reports, predecessors, generations)
def test_the_process_id_decides_nothing(
    ending: Ending, report: ExitReport, predecessor: str, generation: int
) -> None:
    """The same end twice, of another process, has the same verdict."""
    facts = {"exit_code": report.exit_code, "started": report.started, "info": report.info}
    both = [
        judge(
            ExitReport(ending=ending, pid=pid, **facts),  # type: ignore[arg-type]
            predecessor=predecessor,
            generation=generation,
        )
        for pid in (0, report.pid)
    ]

    assert both[0] == both[1]

"""Every row of the outcome table of Airflow's `supervise_task`, as a decision."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_executor.wire.messages import State
from nats_worker.delivery.verdict import (
    API_PAUSE_SECONDS,
    OURS_PAUSE_SECONDS,
    Back,
    Expired,
    Final,
    Left,
    Verdict,
    judge,
)
from nats_worker.processes.exit_report import Ending, ExitReport


def exited(ending: Ending, **details: object) -> ExitReport:
    return ExitReport(ending=ending, **details)  # type: ignore[arg-type]


ROWS: list[tuple[str, ExitReport, dict[str, object], Verdict]] = [
    ("task ok", exited(Ending.FINISHED, started=True), {}, Final(State.SUCCESS)),
    ("task raises: it returns 0 as well", exited(Ending.FINISHED), {}, Final(State.SUCCESS)),
    (
        "task killed",
        exited(Ending.FINISHED, exit_code=-9, started=True, info="out of memory"),
        {},
        Final(State.FAILED, "the task process was ended by SIGKILL; out of memory"),
    ),
    (
        "task exits abnormally",
        exited(Ending.FINISHED, exit_code=3, started=True),
        {},
        Final(State.FAILED, "the task process exited with code 3"),
    ),
    (
        "ended from outside, as its own time-out did not reach it (Airflow 3.4)",
        exited(Ending.FINISHED, exit_code=-9, started=True, info="the kernel counted none"),
        {},
        Final(State.FAILED, "the task process was ended by SIGKILL; the kernel counted none"),
    ),
    (
        "its runtime could not be launched: Airflow has said so already (Airflow 3.4)",
        exited(Ending.FINISHED, exit_code=1, started=True),
        {},
        Final(State.FAILED, "the task process exited with code 1"),
    ),
    (
        "cleared while it runs, and the answer to its start was lost",
        exited(Ending.STOPPED_BY_SERVER, started=True, previous_state="restarting"),
        {},
        Final(State.SUCCESS, "stopped, as the API server asked"),
    ),
    (
        "cleared while it runs, and the worker before us is dead",
        exited(Ending.ALREADY_RUNNING, previous_state="restarting"),
        {"predecessor": "w1"},
        Final(State.FAILED, "worker w1 lost"),
    ),
    (
        "cleared, marked, or run elsewhere",
        exited(Ending.STOPPED_BY_SERVER, exit_code=-15, started=True),
        {},
        Final(State.SUCCESS, "stopped, as the API server asked"),
    ),
    (
        "running already, and no claim before: another process reports",
        exited(Ending.ALREADY_RUNNING),
        {},
        Left("it runs elsewhere already"),
    ),
    (
        "running already, and the worker before us is dead",
        exited(Ending.ALREADY_RUNNING),
        {"predecessor": "w1"},
        Final(State.FAILED, "worker w1 lost"),
    ),
    (
        "a callback that the worker before us has started, and not ended",
        exited(Ending.EXCHANGED, previous_state="running"),
        {"predecessor": "w1"},
        Final(State.FAILED, "worker w1 started it before and has not reported its end"),
    ),
    (
        "a callback that the worker before us, or we without an answer, have started",
        exited(Ending.EXCHANGED, previous_state="running", started=True),
        {"predecessor": "w1"},
        Final(State.FAILED, "worker w1 started it before, or this one, which heard no answer"),
    ),
    (
        "a callback that we were allowed to start, and have not heard so",
        exited(Ending.EXCHANGED, previous_state="running", started=True),
        {},
        Final(
            State.FAILED,
            "it has not run: its start was accepted, but the answer with its token got lost",
        ),
    ),
    (
        "a callback that runs, and no claim before: another process reports",
        exited(Ending.EXCHANGED, previous_state="running"),
        {},
        Left("it runs elsewhere already"),
    ),
    (
        "start refused: another state",
        exited(Ending.STALE, previous_state="success"),
        {},
        Final(State.DROPPED, "Airflow no longer wants it, the task instance is success"),
    ),
    (
        "start refused: no such task instance",
        exited(Ending.STALE),
        {},
        Final(State.DROPPED, "Airflow no longer wants it, the task instance is gone"),
    ),
    ("token expired", exited(Ending.TOKEN_REFUSED, info="403"), {}, Expired("403")),
    (
        "token refused again and again",
        exited(Ending.TOKEN_REFUSED, info="403"),
        {"generation": 3},
        Final(
            State.FAILED,
            "the API server refused 4 tokens (403): compare the machines' clocks and "
            "[api_auth] jwt_secret",
        ),
    ),
    (
        "API server away before the start",
        exited(Ending.UNREACHABLE, info="connection refused"),
        {},
        Back("no API server: connection refused", API_PAUSE_SECONDS, counts=False, is_ours=True),
    ),
    (
        "something else answers at its address",
        exited(Ending.WRONG_ADDRESS, info="404"),
        {},
        Back("this is not the Execution API: 404", OURS_PAUSE_SECONDS, counts=False, is_ours=True),
    ),
    (
        "its start hung before the API server was asked",
        exited(Ending.HUNG, info="it waits for a disk"),
        {},
        Back("its start hung: it waits for a disk", OURS_PAUSE_SECONDS, counts=True, is_ours=True),
    ),
    (
        "stopped before the API server was asked",
        exited(Ending.GIVEN_UP),
        {},
        Back("this worker takes nothing more", 0.0, counts=False),
    ),
    (
        "the log folder cannot be written",
        exited(Ending.RAISED, info="OSError: /logs"),
        {},
        Back(
            "it could not be started: OSError: /logs", OURS_PAUSE_SECONDS, counts=True, is_ours=True
        ),
    ),
    (
        "this Airflow cannot read it",
        exited(Ending.UNREADABLE, info="bundle_info: missing"),
        {},
        Final(State.FAILED, "bundle_info: missing"),
    ),
    (
        "state never reached the API server",
        exited(Ending.UNDELIVERED, started=True, info="not delivered within 600 s"),
        {},
        Final(State.FAILED, "not delivered within 600 s"),
    ),
    (
        "callback fails",
        exited(Ending.RAISED, started=True, info="RuntimeError: exited with code 1"),
        {},
        Final(State.FAILED, "RuntimeError: exited with code 1"),
    ),
    (
        "supervisor killed before the start",
        exited(Ending.DIED, info="SIGKILL"),
        {},
        Back("its process died before it started: SIGKILL", 0.0, counts=True),
    ),
    (
        "supervisor killed while it ran",
        exited(Ending.DIED, started=True, info="supervisor ended by SIGKILL"),
        {},
        Final(State.FAILED, "supervisor ended by SIGKILL"),
    ),
]


@pytest.mark.parametrize(
    ("report", "context", "verdict"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS]
)
def test_row(report: ExitReport, context: dict[str, object], verdict: Verdict) -> None:
    known: dict[str, object] = {"predecessor": "", "generation": 0} | context

    assert judge(report, **known) == verdict  # type: ignore[arg-type]


def test_the_table_has_every_ending() -> None:
    assert {report.ending for _, report, _, _ in ROWS} == set(Ending)


def test_a_signal_without_a_name_is_told_by_number() -> None:
    verdict = judge(exited(Ending.FINISHED, exit_code=-99), predecessor="", generation=0)

    assert verdict == Final(State.FAILED, "the task process was ended by signal 99")


endings = st.builds(
    ExitReport,
    ending=st.sampled_from(Ending),
    exit_code=st.integers(-64, 255),
    started=st.booleans(),
    info=st.text(max_size=5),
)


@given(endings, st.sampled_from(["", "w1"]), st.integers(0, 9))
def test_what_has_started_never_goes_back_to_the_queue(
    report: ExitReport, predecessor: str, generation: int
) -> None:
    """A second run of a callback would repeat its effects; a task's would be refused."""
    verdict = judge(report, predecessor=predecessor, generation=generation)

    if report.ending is Ending.DIED and report.started:
        assert isinstance(verdict, Final)
    if isinstance(verdict, Final) and verdict.state is State.FAILED:
        assert verdict.info.strip() or report.info


@given(endings)
def test_what_the_scheduler_took_back_is_dropped(report: ExitReport) -> None:
    verdict = judge(report, predecessor="", generation=0, is_revoked=True)

    assert isinstance(verdict, Final)
    assert verdict.state is State.DROPPED

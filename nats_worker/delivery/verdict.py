"""Judges what the end of a workload's process means for Airflow and for the broker.

Pure: `errand.py` carries the verdict out. The rows are those of the outcome table of Airflow's
`supervise_task` (read in 3.3.2 and 3.4.0b2); the return code alone is not the task's result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats_executor.wire.messages import State
from nats_worker.processes.exit_report import Ending, signal_name

if TYPE_CHECKING:
    from nats_worker.processes.exit_report import ExitReport

__all__ = [
    "STOPPING",
    "Back",
    "Expired",
    "Final",
    "Left",
    "Verdict",
    "judge",
]

STOPPING = "this worker takes nothing more"
# Pause before another worker tries to reach an API server that did not answer.
API_PAUSE_SECONDS = 10.0
# Time for a worker that is well to come first, where this one can start nothing.
OURS_PAUSE_SECONDS = 1.0
# New tokens that the API server may refuse before the cause must be something else. Far more where
# they are not fresh by this machine's clock: in a long backlog they die while they wait.
RENEWALS = {True: 3, False: 50}


@dataclass(frozen=True, slots=True)
class Final:
    """Report the end, then ack."""

    state: State
    info: str = ""


@dataclass(frozen=True, slots=True)
class Back:
    """Release the claim and nak: nothing has started, any worker may take it.

    Attributes:
        counts: whether it uses up one of `max_attempts`.
        is_ours: whether this worker is to blame, and not the workload.
    """

    info: str
    delay_seconds: float
    counts: bool
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Left:
    """Release the claim and ack: another worker runs it and reports."""

    info: str


@dataclass(frozen=True, slots=True)
class Expired:
    """Report the dead token and nak with a delay: an executor answers with a new one."""

    info: str


Verdict = Final | Back | Left | Expired


def judge(
    report: ExitReport,
    *,
    predecessor: str,
    generation: int,
    is_token_fresh: bool = True,
    is_revoked: bool = False,
) -> Verdict:
    """Return the verdict on one exit.

    Args:
        predecessor: the worker that may have started this dispatch before, '' if none may have.
        generation: how often the workload's token was renewed.
        is_token_fresh: by this machine's clock.
        is_revoked: the scheduler took it back while it was here.
    """
    if is_revoked:
        return Final(State.DROPPED, "the scheduler took it back")
    if verdict := not_started(report) or begun_before(report, predecessor):
        return verdict
    match report.ending:
        case Ending.FINISHED if report.exit_code == 0:
            return Final(State.SUCCESS)
        case Ending.FINISHED:
            # With retries left the supervisor sends no state to Airflow, so this report must.
            return Final(State.FAILED, exit_text(report))
        case Ending.STOPPED_BY_SERVER:
            # A success makes the scheduler run a cleared task again; else it changes nothing.
            return Final(State.SUCCESS, "stopped, as the API server asked")
        case Ending.STALE:
            state = report.previous_state or "gone"
            return Final(State.DROPPED, f"Airflow no longer wants it, the task instance is {state}")
        case Ending.TOKEN_REFUSED if generation < RENEWALS[is_token_fresh]:
            return Expired(report.info)
        case Ending.TOKEN_REFUSED:
            return Final(
                State.FAILED,
                f"the API server refused {generation + 1} tokens ({report.info}): compare the "
                "machines' clocks and [api_auth] jwt_secret",
            )
        case _:
            return Final(State.FAILED, report.info or exit_text(report))


def not_started(report: ExitReport) -> Back | None:
    """Return how a workload goes back that has certainly not started, None for any other one."""
    match report.ending:
        case Ending.GIVEN_UP:
            return Back(STOPPING, 0.0, counts=False)
        case Ending.UNREACHABLE:
            text, pause, counts = "no API server", API_PAUSE_SECONDS, False
        case Ending.WRONG_ADDRESS:
            text, pause, counts = "this is not the Execution API", OURS_PAUSE_SECONDS, False
        case Ending.HUNG:
            text, pause, counts = "its start hung", OURS_PAUSE_SECONDS, True
        case Ending.RAISED if not report.started:
            text, pause, counts = "it could not be started", OURS_PAUSE_SECONDS, True
        case Ending.DIED if not report.started:
            text = f"its process died before it started: {report.info}"
            return Back(text, 0.0, counts=True)
        case _:
            return None
    return Back(f"{text}: {report.info}", pause, counts=counts, is_ours=True)


def begun_before(report: ExitReport, predecessor: str) -> Final | Left | None:
    """Return the verdict on what the API server says was started, None for any other one.

    A callback must not run twice, and its start is granted once, so no worker can go on with it.
    """
    match report.ending:
        case Ending.ALREADY_RUNNING if predecessor:
            return Final(State.FAILED, f"worker {predecessor} lost")
        case Ending.EXCHANGED if predecessor and report.started:
            text = f"worker {predecessor} started it before, or this one, which heard no answer"
            return Final(State.FAILED, text)
        case Ending.EXCHANGED if predecessor:
            text = f"worker {predecessor} started it before and has not reported its end"
            return Final(State.FAILED, text)
        case Ending.EXCHANGED if report.started:
            text = "it has not run: its start was accepted, but the answer with its token got lost"
            return Final(State.FAILED, text)
        case Ending.ALREADY_RUNNING | Ending.EXCHANGED:
            return Left("it runs elsewhere already")
        case _:
            return None


def exit_text(report: ExitReport) -> str:
    """Describe the end of a task process for the person who reads the task's history."""
    if report.exit_code < 0:
        what = f"the task process was ended by {signal_name(-report.exit_code)}"
    else:
        what = f"the task process exited with code {report.exit_code}"
    return f"{what}; {report.info}" if report.info else what

"""Holds how a workload's process ended, as plain data; `verdict.py` decides what that means."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Ending", "ExitReport", "signal_name"]


class Ending(StrEnum):
    """The rows of the outcome table: what `supervise_task` and its process can end with.

    The return code alone says little: a task that raises returns 0, because its state has
    reached the API server already.
    """

    FINISHED = "finished"  # supervised to its end; `exit_code` is the task process's
    STOPPED_BY_SERVER = (
        "stopped_by_server"  # cleared, marked or run elsewhere: heartbeat 404/409/410
    )
    ALREADY_RUNNING = "already_running"  # /run: 409, the task instance is running
    EXCHANGED = "exchanged"  # a callback's /run: 409, its token was exchanged before
    STALE = "stale"  # /run: gone, or 409 with another state (in `previous_state`)
    TOKEN_REFUSED = "token_refused"  # /run: 401 or 403
    UNREACHABLE = "unreachable"  # /run: never sent, as there was no connection
    WRONG_ADDRESS = "wrong_address"  # /run: answered by something other than the Execution API
    GIVEN_UP = "given_up"  # told to stop before /run was asked
    HUNG = "hung"  # /run was not asked in time; where it hung is in `info`
    UNDELIVERED = "undelivered"  # it ended, but its state never reached the API server
    UNREADABLE = "unreadable"  # the Airflow here cannot read the workload
    RAISED = "raised"  # the supervisor raised anything else; the text is in `info`
    DIED = "died"  # the supervisor itself was killed or the fork server died


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitReport:
    """How one workload's process ended.

    Attributes:
        exit_code: of the task process; negative for a signal (`subprocess`'s convention).
        started: whether the API server had accepted the start (for other kinds: the code ran).
        pid: the task process, 0 if there was none.
        previous_state: the state for which the API server refused the start.
        info: for a person.
    """

    ending: Ending
    exit_code: int = 0
    started: bool = False
    pid: int = 0
    previous_state: str = ""
    info: str = ""


def signal_name(number: int) -> str:
    """Return a signal's name; real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

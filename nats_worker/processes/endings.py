"""Decides how a workload ends by an answer of Airflow's API server, as a table. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats_worker.api.answers import DECIDED_ELSEWHERE
from nats_worker.processes.exit_report import Ending

if TYPE_CHECKING:
    from nats_worker.api.answers import Answer

__all__ = ["ending_of"]

# The API server says this of the start of a task that was cleared while it runs, and waits for that
# run's end (read in Airflow 3.3.2 and 3.4.0b2; only the latter says whether another process runs
# it).
RUNNING_ELSEWHERE = "running_elsewhere"
RUNNING, RESTARTING = "running", "restarting"
START_REFUSED = {
    401: Ending.TOKEN_REFUSED,
    403: Ending.TOKEN_REFUSED,
    **dict.fromkeys(DECIDED_ELSEWHERE, Ending.STALE),
}


def ending_of(answer: Answer, *, has_started: bool, has_lost_answer: bool = False) -> Ending | None:
    """Return how a workload ends by an answer, None if nothing is known to follow from it.

    A connection test has no start; its requests count as one, because testing again does no
    harm.

    Args:
        has_started: whether its start was accepted.
        has_lost_answer: whether an earlier request for it got no answer.
    """
    if answer.path.endswith("/state"):
        is_over = answer.is_decided_elsewhere
        return Ending.STOPPED_BY_SERVER if is_over else Ending.UNDELIVERED
    if has_started:
        return None
    if answer.may_pass:
        return Ending.UNREACHABLE
    if answer.is_foreign:
        return Ending.WRONG_ADDRESS
    if answer.path.endswith("/run") and answer.is_decided_elsewhere:
        return whose_run(answer, has_lost_answer=has_lost_answer)
    is_start = answer.path.endswith("/run") or "/connection-tests/" in answer.path
    return START_REFUSED.get(answer.status) if is_start else None


def whose_run(answer: Answer, *, has_lost_answer: bool) -> Ending:
    """Return what the refusal of a start means: whose run it was, if there is or was one.

    Airflow starts a task that was cleared while it runs again as soon as that run's end is
    told. A callback's token can be exchanged once: unlike a task's, its start is not repeated
    to whom it was granted (read in Airflow 3.4.0b2, `execution_api/routes/callbacks.py`; 3.3
    has no start of callbacks).
    """
    state = answer.detail.get("previous_state")
    if "/callbacks/" in answer.path:
        return Ending.EXCHANGED if state == RUNNING else Ending.STALE
    if answer.detail.get("reason") == RUNNING_ELSEWHERE:
        return Ending.ALREADY_RUNNING
    if state == RESTARTING:
        return Ending.STOPPED_BY_SERVER if has_lost_answer else Ending.ALREADY_RUNNING
    return Ending.STALE

"""Reads an answer of Airflow's API server: its meaning, and whether that server gave it. Pure.

An answer that did not come is not a no: the request may have been carried out. And an answer that
came may be another one's: a proxy's, or that of whatever listens at a wrong address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from nats_worker.processes.exit_report import Ending

__all__ = ["NO_ANSWER", "Answer", "without_login"]

NO_ANSWER = 0
METHOD_NOT_ALLOWED = 405
SERVER_ERROR = 500
# The API server's way to say that the task instance is no longer this workload's.
DECIDED_ELSEWHERE = frozenset({404, 409, 410})
# What it says of the start of a task that was cleared while it runs, and waits for that run's end
# (read in Airflow 3.3.2 and 3.4.0b2; only the latter says whether another process runs it).
RUNNING_ELSEWHERE = "running_elsewhere"
RUNNING, RESTARTING = "running", "restarting"
START_REFUSED = {
    401: Ending.TOKEN_REFUSED,
    403: Ending.TOKEN_REFUSED,
    **dict.fromkeys(DECIDED_ELSEWHERE, Ending.STALE),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An error that Airflow's API client raised, as data.

    Attributes:
        path: of the request, '' for one that came to no connection.
        status: of the answer, `NO_ANSWER` if there was none.
        is_error_body: whether its body has the form of the Execution API's errors.
        detail: what that body says.
    """

    path: str
    status: int = NO_ANSWER
    is_error_body: bool = False
    detail: Any = None

    @property
    def may_pass(self) -> bool:
        """Whether the request may succeed later, by the rule of Airflow's own client."""
        return self.status == NO_ANSWER or self.status >= SERVER_ERROR

    @property
    def is_foreign(self) -> bool:
        """Whether it is certain that it is not the Execution API that refuses.

        A route that is not there is answered by FastAPI alike, but with a text for a detail; of a
        task instance the Execution API gives a reason. It has no route that redirects.
        """
        if self.may_pass:
            return False
        if self.status in DECIDED_ELSEWHERE:
            return not (isinstance(self.detail, dict) and "reason" in self.detail)
        return not self.is_error_body or self.status == METHOD_NOT_ALLOWED

    @property
    def is_decided_elsewhere(self) -> bool:
        """Whether the task instance is no longer this workload's to change."""
        return self.status in DECIDED_ELSEWHERE and not self.is_foreign

    def ending(self, *, has_started: bool, has_lost_answer: bool = False) -> Ending | None:
        """Return what it means for a workload, None if nothing is known to follow from it.

        A connection test has no start; its requests count as one, because testing again does no
        harm.

        Args:
            has_started: whether its start was accepted.
            has_lost_answer: whether an earlier request for it got no answer.
        """
        if self.path.endswith("/state"):
            is_over = self.is_decided_elsewhere
            return Ending.STOPPED_BY_SERVER if is_over else Ending.UNDELIVERED
        if has_started:
            return None
        if self.may_pass:
            return Ending.UNREACHABLE
        if self.is_foreign:
            return Ending.WRONG_ADDRESS
        if self.path.endswith("/run") and self.is_decided_elsewhere:
            return self.whose_run(has_lost_answer=has_lost_answer)
        is_start = self.path.endswith("/run") or "/connection-tests/" in self.path
        return START_REFUSED.get(self.status) if is_start else None

    def whose_run(self, *, has_lost_answer: bool) -> Ending:
        """Return what the refusal of a start means: whose run it was, if there is or was one.

        Airflow starts a task that was cleared while it runs again as soon as that run's end is
        told. A callback's token can be exchanged once: unlike a task's, its start is not repeated
        to whom it was granted (read in Airflow 3.4.0b2, `execution_api/routes/callbacks.py`; 3.3
        has no start of callbacks).
        """
        state = self.detail.get("previous_state")
        if "/callbacks/" in self.path:
            return Ending.EXCHANGED if state == RUNNING else Ending.STALE
        if self.detail.get("reason") == RUNNING_ELSEWHERE:
            return Ending.ALREADY_RUNNING
        if state == RESTARTING:
            return Ending.STOPPED_BY_SERVER if has_lost_answer else Ending.ALREADY_RUNNING
        return Ending.STALE


def without_login(text: str) -> str:
    """Cut logins out of the URLs in a text: what HTTP libraries raise quotes the whole URL."""
    return re.sub(r"//[^/@\s]*@", "//", text)

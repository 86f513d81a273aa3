"""Tells whether Airflow's API server gave an answer, and whether asking again may help. Pure.

An answer that did not come is not a no: the request may have been carried out. And an answer that
came may be another one's: a proxy's, or that of whatever listens at a wrong address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

__all__ = ["DECIDED_ELSEWHERE", "Answer", "without_login"]

NO_ANSWER = 0
METHOD_NOT_ALLOWED = 405
SERVER_ERROR = 500
# The API server's way to say that the task instance is no longer this workload's.
DECIDED_ELSEWHERE = frozenset({404, 409, 410})


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


def without_login(text: str) -> str:
    """Cut logins out of the URLs in a text: what HTTP libraries raise quotes the whole URL."""
    return re.sub(r"//[^/@\s]*@", "//", text)

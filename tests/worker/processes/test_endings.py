"""Each answer has a meaning that depends on its sender, as a table."""

from __future__ import annotations

from typing import Any

import pytest

from nats_worker.api.answers import NO_ANSWER, Answer
from nats_worker.processes.endings import ending_of
from nats_worker.processes.exit_report import Ending

RUN, STATE, OTHER = "/execution/task-instances/1/run", "/execution/task-instances/1/state", "/x"
TEST = "/execution/connection-tests/1/connection"
CALLBACK = "/execution/callbacks/1/run"
REASON = {"reason": "not_found", "message": "gone"}
CLEARED = {"reason": "invalid_state", "message": "no", "previous_state": "restarting"}
ELSEWHERE = {"reason": "running_elsewhere", "previous_state": "restarting"}


def api(path: str, status: int, detail: Any = "no") -> Answer:
    """An error in the form of the Execution API's."""
    return Answer(path, status, is_error_body=True, detail=detail)


def state(previous: str) -> dict[str, str]:
    return {"reason": "invalid_state", "message": "no", "previous_state": previous}


ROWS: list[tuple[str, Answer, Ending | None]] = [
    ("no connection", Answer(RUN), Ending.UNREACHABLE),
    ("a server's error", api(RUN, 500), Ending.UNREACHABLE),
    ("a proxy's error", Answer(RUN, 502), Ending.UNREACHABLE),
    ("no such task instance", api(RUN, 404, REASON), Ending.STALE),
    ("a task instance of another try", api(RUN, 410, REASON), Ending.STALE),
    ("a task instance in another state", api(RUN, 409, REASON), Ending.STALE),
    ("cleared while another process runs it", api(RUN, 409, ELSEWHERE), Ending.ALREADY_RUNNING),
    ("cleared while it runs, Airflow 3.3", api(RUN, 409, CLEARED), Ending.ALREADY_RUNNING),
    ("a reason that is new", api(RUN, 409, {"reason": "superseded"}), Ending.STALE),
    ("a token that is not accepted", api(RUN, 403), Ending.TOKEN_REFUSED),
    ("no token", api(RUN, 401), Ending.TOKEN_REFUSED),
    ("a body that it does not understand", api(RUN, 422, [{"loc": ["pid"]}]), None),
    ("FastAPI without this route", api(RUN, 404, None), Ending.WRONG_ADDRESS),
    ("FastAPI without this method", api(RUN, 405, None), Ending.WRONG_ADDRESS),
    ("a proxy that does not know the host", Answer(RUN, 404), Ending.WRONG_ADDRESS),
    ("a proxy that wants a login", Answer(RUN, 401), Ending.WRONG_ADDRESS),
    ("a redirect", Answer(RUN, 302), Ending.WRONG_ADDRESS),
    ("a wrong address before the start", Answer(OTHER, 404), Ending.WRONG_ADDRESS),
    ("a callback that was started before", api(CALLBACK, 409, state("running")), Ending.EXCHANGED),
    ("a callback that has ended", api(CALLBACK, 409, state("success")), Ending.STALE),
    ("a callback that is gone", api(CALLBACK, 404, REASON), Ending.STALE),
    ("a callback's token", api(CALLBACK, 403), Ending.TOKEN_REFUSED),
    ("an API server without callbacks' starts", api(CALLBACK, 404, None), Ending.WRONG_ADDRESS),
    ("a proxy in front of callbacks", Answer(CALLBACK, 409), Ending.WRONG_ADDRESS),
    ("a task that runs", api(RUN, 409, state("running")), Ending.STALE),
    ("a connection test that is gone", api(TEST, 404, REASON), Ending.STALE),
    ("a connection test's token", api(TEST, 403), Ending.TOKEN_REFUSED),
    ("another call's refusal is the caller's business", api(OTHER, 403), None),
]


@pytest.mark.parametrize(("answer", "ending"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_before_the_start(answer: Answer, ending: Ending | None) -> None:
    assert ending_of(answer, has_started=False) is ending


@pytest.mark.parametrize(
    ("detail", "ending"),
    [
        (CLEARED, Ending.STOPPED_BY_SERVER),
        (ELSEWHERE, Ending.ALREADY_RUNNING),
        (REASON, Ending.STALE),
    ],
)
def test_whose_run_it_is_after_an_answer_that_was_lost(detail: Any, ending: Ending) -> None:
    """The request without an answer may have been accepted, and then it is this process's run."""
    assert ending_of(api(RUN, 409, detail), has_started=False, has_lost_answer=True) is ending


@pytest.mark.parametrize("answer", [r[1] for r in ROWS], ids=[r[0] for r in ROWS])
def test_after_the_start_only_the_task_s_state_counts(answer: Answer) -> None:
    assert ending_of(answer, has_started=True) is None


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        (api(STATE, 404, REASON), Ending.STOPPED_BY_SERVER),
        (api(STATE, 409, REASON), Ending.STOPPED_BY_SERVER),
        (api(STATE, 410, REASON), Ending.STOPPED_BY_SERVER),
        (api(STATE, 404, None), Ending.UNDELIVERED),
        (Answer(STATE, 404), Ending.UNDELIVERED),
        (api(STATE, 403), Ending.UNDELIVERED),
        (Answer(STATE, 503), Ending.UNDELIVERED),
        (Answer(STATE, NO_ANSWER), Ending.UNDELIVERED),
    ],
)
def test_of_a_state_that_was_not_taken(answer: Answer, ending: Ending) -> None:
    assert ending_of(answer, has_started=True) is ending

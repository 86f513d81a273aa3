"""Asks Airflow's API server for a task's start until it is known what became of the request.

A request whose answer did not come may have been carried out. Handed to another worker, the task
would be found running there and taken for lost. So the same process asks again: the API server
repeats its yes to the same host name, user and process id (read in Airflow 3.3.2 and 3.4.0b2).
A callback's start it does not repeat (3.4): asked again, it tells that there was one.
Only a request that was never sent, or that the Execution API itself refuses, ends the asking.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import time
from typing import TYPE_CHECKING, Any

from nats_executor.pacing import pauses
from nats_worker.api.answers import without_login

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nats_worker.api.answers import Answer

__all__ = [
    "Asking",
    "TooLate",
    "heartbeat_patience",
    "patient",
    "single_requests",
    "until_known",
]

log = logging.getLogger(__name__)

# Between two requests, in seconds: the first and the longest, of which each process takes a part.
PAUSES = 0.1, 2.0
# Steps of a pause, so that a request to stop is noticed.
STEP_SECONDS = 0.1
# Each answer that does not come in time doubles the time for the next one, up to this.
LONGEST_TIMEOUT_SECONDS = 15.0
LONGEST_START_TIMEOUT_SECONDS = 60.0
# Of a callback, whose start is granted once: an answer that comes later is lost with its token, and
# one that never comes leaves it `running` for so long.
CALLBACK_START_TIMEOUT_SECONDS = 25.0
# Of the time until a task counts as lost; the rest is for the pauses between requests and its end.
HEARTBEATS_SHARE = 0.75
# httpcore's name for the moment before the first byte of a request leaves, in every HTTP version.
SENDING = "send_request_headers.started"


class TooLate(BaseException):
    """The start may not be asked for any more, and was not; none of Airflow's code may catch it."""


class Asking:
    """The progress of a workload's request for its start.

    Attributes:
        is_in_doubt: the answer to a request did not come, so it may have been accepted.
        has_lost_answer: the same, and still true once another request was answered.
        is_stopping: the worker wants this workload stopped.
        is_known: the API server has answered, or nothing is asked any more.

    Args:
        on_ask: called before the first request leaves.
        start_by: when it has to leave, by the clock that all processes of a machine share.
        reach_seconds: how long to try to reach the server; another worker may reach it.
    """

    def __init__(
        self,
        on_ask: Callable[[], None],
        *,
        start_by: float,
        reach_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_in_doubt = False
        self.is_stopping = False
        self.is_known = False
        self.has_lost_answer = False
        self.reach_seconds = reach_seconds
        self._is_under_way = False
        self._on_ask = on_ask
        self._start_by = start_by
        self._clock = clock

    @property
    def may_be_accepted(self) -> bool:
        """Whether only the API server can tell what became of the workload."""
        return self.is_in_doubt or self._is_under_way

    def sending(self) -> None:
        """Note that a request is about to leave.

        Raises:
            TooLate: it may not, because the worker has stopped this or has given it up.
        """
        if not self.may_be_accepted and not self.is_known:
            # Told first: the worker that gives this up after `start_by` has read it by then.
            self._on_ask()
            if self.is_stopping or self._clock() > self._start_by:
                raise TooLate
        self._is_under_way = True

    def failed(self, answer: Answer) -> None:
        """Note what came of a request; a proxy that refuses one has not passed it on."""
        self.is_in_doubt |= self._is_under_way and answer.may_pass
        self.has_lost_answer |= self.is_in_doubt
        self._is_under_way = False

    def settled(self) -> None:
        """Note that the Execution API has answered, or that it is not asked any more."""
        self.is_in_doubt = self._is_under_way = False
        self.is_known = True

    def stop(self, *_: object) -> None:
        """Ask no more, unless a start may have been accepted; for a signal handler.

        Raises:
            TooLate: nothing was sent, wherever this process is at the moment.
        """
        self.is_stopping = True
        if not self.may_be_accepted and not self.is_known:
            raise TooLate


def until_known(
    ask: Callable[[], Any],
    asking: Asking,
    answer_of: Callable[[BaseException], Answer | None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Any:
    """Return the answer to a request, asked again until there is one.

    Raises:
        Exception: the request's own, where the Execution API refuses it, or where it was not sent
            and this process asks no more.
    """
    began = clock()
    for attempt, pause in enumerate(pauses(*PAUSES)):
        try:
            found = ask()
        except Exception as exc:
            answer = answer_of(exc)
            if answer is None:
                raise
            asking.failed(answer)
            if is_last_word(answer, asking, clock() - began):
                asking.settled()
                raise
            if attempt == 0:
                text = "no answer to a workload's start: %s; next: asking again"
                log.warning(text, without_login(str(exc)))
        else:
            asking.settled()
            return found
        part = random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
        wait(part * pause, asking, clock, sleep)
    raise AssertionError("there is always one more pause")


def is_last_word(answer: Answer, asking: Asking, waited: float) -> bool:
    """Whether to ask no more. Pure."""
    if not answer.may_pass and not answer.is_foreign:
        return True
    if asking.is_in_doubt:
        return False  # a proxy's word is none about what the server did with an earlier request
    return answer.is_foreign or asking.is_stopping or waited >= asking.reach_seconds


def wait(
    pause: float, asking: Asking, clock: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    """Sleep, but not on once it is clear that nothing will be asked any more."""
    until = clock() + pause
    while (left := until - clock()) > 0:
        if asking.is_stopping and not asking.may_be_accepted:
            return
        sleep(min(STEP_SECONDS, left))


@contextlib.contextmanager
def single_requests(client: Any) -> Iterator[None]:
    """Have a client of Airflow's send each request once, instead of repeating it by itself."""
    kind = type(client)
    # Airflow 3.4 has a method for it; before, its `request` wraps the plain one.
    once = getattr(kind, "_request_without_retry", None)
    once = once or getattr(kind.request, "__wrapped__", None)
    if once is None:
        yield
        return
    client.request = functools.partial(once, client)
    try:
        yield
    finally:
        del client.request


def patient(
    send: Callable[..., Any],
    asking_of: Callable[[Any], Asking | None],
    slow: type[Exception],
    *,
    heartbeat_seconds: float,
) -> Any:
    """Return httpx's `Client.send` with more patience for a server that is slow.

    A request that is repeated with the same time-out fails likewise, although the server carries
    out each one.

    Args:
        asking_of: returns the start that a request asks for, None for any other one.
        slow: what is raised when an answer does not come in time.
        heartbeat_seconds: the longest time for the answer to a heartbeat.
    """

    @functools.wraps(send)
    def send_patiently(client: Any, request: Any, **options: Any) -> Any:
        is_heartbeat = str(request.url.path).endswith("/heartbeat")
        longest = heartbeat_seconds if is_heartbeat else LONGEST_TIMEOUT_SECONDS
        patience = getattr(client, "patience", 0.0)
        if asking := asking_of(request):
            request.extensions["trace"] = functools.partial(trace, asking)
            longest = LONGEST_START_TIMEOUT_SECONDS
            if "/callbacks/" in str(request.url.path):
                longest = patience = CALLBACK_START_TIMEOUT_SECONDS
        timeouts = request.extensions.get("timeout", {})
        read = timeouts.get("read") or 0.0
        # Never less than Airflow's own setting, whatever that is.
        read = max(read, min(longest, patience))
        if read:
            request.extensions["timeout"] = timeouts | {"read": read}
        try:
            return send(client, request, **options)
        except slow:
            client.patience = 2 * read
            raise

    return send_patiently


def heartbeat_patience(
    lost_seconds: float, failures: int, requests: int, pause_seconds: float
) -> float:
    """Return the longest time for the answer to one heartbeat's request.

    All heartbeats that fail before Airflow ends a task should be over before it takes the task for
    lost, and runs it again. `patient` gives no less than Airflow does, though.

    Args:
        lost_seconds: `[scheduler] task_instance_heartbeat_timeout`.
        failures: `[workers] max_failed_heartbeats`.
        requests: how many of them a failed heartbeat sends.
        pause_seconds: after each failed heartbeat, `[workers] min_heartbeat_interval`.
    """
    each = HEARTBEATS_SHARE * lost_seconds / max(1, failures)
    return min(LONGEST_TIMEOUT_SECONDS, max(0.0, (each - pause_seconds) / requests))


def trace(asking: Asking, event: str, _: Any) -> None:
    if event.endswith(SENDING):
        asking.sending()

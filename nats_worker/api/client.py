"""Makes the API client of Airflow ask again where an answer is lost or may be of another server.

It repeats a request a few times and then raises. But a start whose answer got lost may have been
accepted, a state that was not delivered is lost, and a proxy's "not found" is no word of the API
server's.
"""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING, Any

from airflow.sdk.api import client as api
from airflow.sdk.configuration import conf

from nats_worker.api.answers import Answer, without_login
from nats_worker.api.asking import Asking, heartbeat_patience, patient, single_requests, until_known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "HAS_CALLBACK_START",
    "RELIED_ON_FOR_REQUESTS",
    "answer_of",
    "deliver",
    "error_text",
    "httpx",
    "show_host_as",
    "watch_requests",
]

log = logging.getLogger(__name__)

# Airflow 3.4 renamed its HTTP library.
httpx: Any = getattr(api, "httpx2", None) or vars(api)["httpx"]
RELIED_ON_FOR_REQUESTS: dict[Any, tuple[str, ...]] = {
    api: ("ServerResponseError",),
    httpx: ("HTTPStatusError", "ReadTimeout", "RequestError"),
    api.TaskInstanceOperations: ("heartbeat", "start"),
    api.Client: ("request", "send"),
}
OF_THIS_HOST = vars(api).get("get_hostname")
# From 3.4 on a callback's start is asked for; it is granted once.
HAS_CALLBACK_START = hasattr(api, "CallbackOperations")
if HAS_CALLBACK_START:
    RELIED_ON_FOR_REQUESTS[vars(api)["CallbackOperations"]] = ("run",)


def answer_of(exc: BaseException) -> Answer | None:
    """Return what Airflow's API client raised as data, None for any other error."""
    if not isinstance(exc, httpx.HTTPStatusError | httpx.RequestError):
        return None
    try:
        path = str(exc.request.url.path)
    except RuntimeError:
        # A request error that got no request attached comes from before any connection.
        path = ""
    if not isinstance(exc, httpx.HTTPStatusError):
        return Answer(path)
    is_error_body = isinstance(exc, api.ServerResponseError)
    return Answer(path, exc.response.status_code, is_error_body, getattr(exc, "detail", None))


def error_text(exc: BaseException) -> str:
    detail = getattr(exc, "detail", None)
    text = without_login(f"{type(exc).__name__}: {exc}")
    return f"{text} ({detail})" if detail and str(detail) not in text else text


def watch_requests(asking: Callable[[], Asking]) -> None:
    """Change what Airflow's client does in this process.

    Args:
        asking: returns the start of the workload that this process runs at the moment.
    """
    operations: Any = api.TaskInstanceOperations
    operations.start = insistent(operations.start, asking)
    operations.heartbeat = discerning(operations.heartbeat)
    if callbacks := getattr(api, "CallbackOperations", None):  # Airflow 3.4
        callbacks.run = insistent(callbacks.run, asking)

    def asking_of(request: Any) -> Asking | None:
        path = str(request.url.path)
        is_start = path.endswith("/run") or "/connection-tests/" in path
        return asking() if is_start else None

    client: Any = api.Client
    client.send = patient(
        client.send, asking_of, httpx.ReadTimeout, heartbeat_seconds=heartbeat_seconds()
    )


def show_host_as(name: str) -> None:
    """Have Airflow show a worker's name as the host of what this process runs.

    Starts and heartbeats name the host; an Airflow that takes it from elsewhere shows the host's
    own name, and nothing else depends on it.
    """
    vars(api)["get_hostname"] = (lambda: name) if name else OF_THIS_HOST


def heartbeat_seconds() -> float:
    """Return how long to wait for the answer to a heartbeat at most.

    Airflow 3.4 sends each one once, and ends a task after thirty instead of three.
    """
    return heartbeat_patience(
        conf.getfloat("scheduler", "task_instance_heartbeat_timeout"),
        conf.getint("workers", "max_failed_heartbeats"),
        1 if hasattr(api.Client, "_request_without_retry") else api.API_RETRIES,
        conf.getfloat("workers", "min_heartbeat_interval"),
    )


def insistent(start: Any, asking: Callable[[], Asking]) -> Any:
    """Return Airflow's request for a workload's start, sent again until it is answered."""

    @functools.wraps(start)
    def start_for_certain(operations: Any, *args: Any, **kwargs: Any) -> Any:
        with single_requests(operations.client):
            ask = functools.partial(start, operations, *args, **kwargs)
            return until_known(ask, asking(), answer_of)

    return start_for_certain


def discerning(heartbeat: Any) -> Any:
    """Return Airflow's heartbeat, which no proxy's "not found" takes for the API server's word."""

    @functools.wraps(heartbeat)
    def beat(*args: Any, **kwargs: Any) -> Any:
        try:
            return heartbeat(*args, **kwargs)
        except api.ServerResponseError as exc:
            answer = answer_of(exc)
            if answer and answer.is_foreign:
                raise httpx.HTTPStatusError(
                    str(exc), request=exc.request, response=exc.response
                ) from exc
            raise

    return beat


def deliver(send: Callable[[], None], pauses: Iterator[float]) -> Exception | None:
    """Send a task's state until the API server answers, with these pauses in between.

    Returns:
        Why it was not delivered, None if it was.
    """
    while True:
        try:
            send()
        except (httpx.HTTPStatusError, httpx.RequestError) as exc:
            answer = answer_of(exc)
            may_pass = answer is not None and (answer.may_pass or answer.is_foreign)
            pause = next(pauses, None)
            if pause is None or not may_pass:
                return exc  # type: ignore[no-any-return] # a class of httpx
            text = "cannot deliver a task's state: %s; next try in %.0f s"
            log.warning(text, without_login(str(exc)), pause)
        else:
            return None
        time.sleep(pause)

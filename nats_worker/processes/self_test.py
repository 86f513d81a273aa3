"""Tries without a task what every start of a task needs; runs in a process of its own.

A finding is one line with the setting, its value and the remedy. It is the same line each time that
the same is wrong.
"""

from __future__ import annotations

import errno
import getpass
import logging
import os
import uuid
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nats_worker.api.answers import without_login
from nats_worker.processes.exit_report import Ending, ExitReport
from nats_worker.processes.protocol import pack_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Step = Callable[[str | None], Iterator[str]]

__all__ = ["run_self_test"]

log = logging.getLogger(__name__)

# Less is soon full of logs.
LOG_BYTES = 1024 * 1024
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Longer than a busy API server needs for the simplest of its answers.
API_SECONDS = 20.0
# No token is needed there, and no other server gives this answer.
PING = "health/ping"
PING_KEYS = frozenset({"ok", "failing"})
START_IT = "start it, or set its URL as seen from this worker"


def run_self_test(request: dict[str, Any], send: Callable[[bytes], None]) -> int:
    """Carry a request of the main process out; returns the exit code."""
    findings = [finding for step in STEPS for finding in outcome(step, request["team"])]
    report = ExitReport(ending=Ending.FINISHED, info="\n".join(findings))
    send(pack_report(request["id"], report))
    return 0


def outcome(step: Step, team: str | None) -> list[str]:
    """Return what a step finds wrong; one that cannot be taken has found nothing.

    Airflow may have changed. Then the first starts of workloads tell.
    """
    try:
        return list(step(team))
    except Exception:
        log.warning("%s cannot be tested; next: starting workloads", step.__name__, exc_info=True)
        return []


def user(_team: str | None) -> Iterator[str]:
    """Look up the user, whom Airflow names with each start."""
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        yield (
            f"user id {os.getuid()} has no name, and Airflow starts no task without one: add it to "
            "/etc/passwd, or set USER in the worker's environment"
        )


def log_folder(_team: str | None) -> Iterator[str]:
    """Write where the supervisor of a task writes the task's log."""
    from airflow.configuration import conf

    folder = Path(conf.get_mandatory_value("logging", "base_log_folder")).absolute()
    try:
        write_below(folder)
    except OSError as exc:
        remedy = (
            f"free {LOG_BYTES // 1024} KiB or more there"
            if exc.errno in NO_SPACE
            else f"let user id {os.getuid()} write there"
        )
        # Without the path of this one attempt, which is another one next time.
        reason = exc.strerror or type(exc).__name__
        yield (
            f"no task log can be written below {folder} ([logging] base_log_folder): {reason}; "
            f"{remedy}, or set another folder"
        )


def write_below(folder: Path) -> None:
    """Write a file in a folder of its own, as each task's log has one, and remove both."""
    own = folder / f"self-test-{uuid.uuid4().hex}"
    file = own / "attempt=1.log"
    own.mkdir(parents=True)
    try:
        file.write_bytes(bytes(LOG_BYTES))
    finally:
        file.unlink(missing_ok=True)
        own.rmdir()


def api_server(team: str | None) -> Iterator[str]:
    """Ask the API server for what it tells without a token."""
    from airflow.sdk.api import client as api

    from nats_worker.api.address import api_address
    from nats_worker.api.client import httpx

    address = api_address(team)
    where = f"{without_login(address.url)} ({address.option})"
    try:
        with api.Client(base_url=address.url, token="", timeout=API_SECONDS) as client:
            # Airflow's own hooks raise, and its `request` tries again for long.
            client.event_hooks = {}
            answer = httpx.Client.request(client, "GET", PING)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
        reason = str(exc).rstrip(".")
        yield f"{where} is no URL: {reason}; set one such as http://airflow.example.org/execution/"
    except httpx.RequestError as exc:
        yield f"no API server at {where}: {type_and_text(exc)}; {START_IT}"
    else:
        if not is_of_execution_api(answer):
            yield misdirected(answer, where)


def misdirected(answer: Any, where: str) -> str:
    """Describe an answer of something else than the Execution API."""
    kind = answer.headers.get("content-type", "").partition(";")[0] or "nothing"
    if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return f"no API server at {where}: {answer.status_code}, {kind} from a proxy; {START_IT}"
    return (
        f"what answers at {where} is not Airflow's Execution API: {answer.status_code}, {kind} for "
        f"{PING}; set its URL, which ends in /execution/ unless a proxy changes that"
    )


def is_of_execution_api(answer: Any) -> bool:
    """Return whether an answer can only come from the Execution API, be it healthy or not."""
    try:
        content = answer.json()
    except ValueError:
        return False
    return isinstance(content, dict) and content.keys() >= PING_KEYS


def type_and_text(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


# The cheap and certain ones come first.
STEPS: tuple[Step, ...] = (user, log_folder, api_server)

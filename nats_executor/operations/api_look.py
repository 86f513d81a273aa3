"""Asks Airflow's API server whether it is there, and whether it accepts a token made here.

The token is a workload's, of no task instance that exists, for a minute. It opens a start alone,
and the route that is asked refuses it after it was found valid. So nothing is read or changed, and
whatever answers at a wrong address gets nothing of use.
"""

from __future__ import annotations

import time
import uuid
from email.utils import parsedate_to_datetime
from typing import Any

from airflow.api_fastapi.auth.tokens import JWTGenerator, get_signing_args
from airflow.configuration import conf
from airflow.executors.base_executor import ExecutorConf, get_execution_api_server_url
from airflow.sdk.api import client as sdk_client

from nats_executor.operations.diagnoses import ApiLook
from nats_executor.settings import without_userinfo

__all__ = ["api_leeway", "look_at_api", "token_names"]

# Airflow 3.4 renamed its HTTP library.
http_library: Any = getattr(sdk_client, "httpx2", None) or vars(sdk_client)["httpx"]
# A busy API server takes its time for its first answer.
API_LOOK_SECONDS = 20.0
TOKEN_SECONDS = 60.0
STALE_SECONDS = 1.5
# No token is needed there, and no other server gives this answer.
PING_ROUTE, PING_FIELDS = "health/ping", frozenset({"ok", "failing"})
# Only reads, and takes no token of a workload.
REFUSING_ROUTE = "dags/no-such-dag"


def api_leeway() -> float:
    """Return the seconds that an API server grants to clocks."""
    return conf.getfloat("api_auth", "jwt_leeway")


def token_names() -> dict[str, str]:
    """Return what tokens made here name; none of it is secret."""
    return {
        "[api_auth] jwt_issuer": conf.get("api_auth", "jwt_issuer", fallback="") or "",
        "[execution_api] jwt_audience": conf.get("execution_api", "jwt_audience", fallback="")
        or "",
    }


def look_at_api(team: str | None) -> ApiLook:
    """Ask the API server of the configuration, a team's own if it has one."""
    owner = team if team and has_address(team) else None
    url = get_execution_api_server_url(ExecutorConf(owner))
    shown = without_userinfo(url)
    try:
        return asked(url, shown)
    except http_library.RequestError as exc:
        return ApiLook(shown, error=without_userinfo(f"{type(exc).__name__}: {exc}"))
    except http_library.InvalidURL as exc:
        return ApiLook(shown, error=f"it is no URL: {without_userinfo(str(exc))}")


def has_address(team: str) -> bool:
    section = ExecutorConf(team)
    return any(
        section.get(*option, fallback=None)
        for option in (("core", "execution_api_server_url"), ("api", "base_url"))
    )


def asked(url: str, shown: str) -> ApiLook:
    token, token_error = made_token()
    answer, seconds, clock = timed(url)
    if not is_execution_api(answer):
        return ApiLook(shown, seconds=seconds, clock=clock)
    if clock is not None and abs(clock) > api_leeway():
        # A server writes its time down once in a second, and later where it was busy.
        time.sleep(STALE_SECONDS)
        _, seconds, clock = timed(url)
    status, detail = 0, None
    if token:
        refusal = get(url, REFUSING_ROUTE, token)
        status, detail = refusal.status_code, detail_of(refusal)
    return ApiLook(shown, "", seconds, True, clock, token_error, status, detail)


def timed(url: str) -> tuple[Any, float, float | None]:
    """Ask for what needs no token; returns the answer, its seconds, and how far its clock is."""
    began = time.time()
    answer = get(url, PING_ROUTE, "")
    now = time.time()
    return answer, now - began, ahead(answer.headers.get("date", ""), began, now)


def get(url: str, route: str, token: str) -> Any:
    # Airflow's client knows which certificates to trust. Its hooks raise, and its own `request`
    # tries again for long.
    with sdk_client.Client(base_url=url, token=token, timeout=API_LOOK_SECONDS) as client:
        client.event_hooks = {}
        return http_library.Client.request(client, "GET", route)


def made_token() -> tuple[str, str]:
    """Make a token as schedulers do; returns it, or why that is not possible."""
    try:
        generator = JWTGenerator(
            valid_for=TOKEN_SECONDS,
            audience=conf.get_mandatory_list_value("execution_api", "jwt_audience")[0],
            issuer=conf.get("api_auth", "jwt_issuer", fallback=None),
            **get_signing_args(make_secret_key_if_needed=False),
        )
        return generator.generate({"sub": str(uuid.uuid4()), "scope": "workload"}), ""
    except Exception as exc:  # noqa: BLE001 - a key of the user's may be wrong in any way
        # Without its text, which may quote the key.
        return "", type(exc).__name__


def is_execution_api(answer: Any) -> bool:
    try:
        content = answer.json()
    except ValueError:
        return False
    return isinstance(content, dict) and content.keys() >= PING_FIELDS


def detail_of(answer: Any) -> Any:
    try:
        content = answer.json()
    except ValueError:
        return None
    return content.get("detail") if isinstance(content, dict) else None


def ahead(date: str, began: float, now: float) -> float | None:
    """Return by how many seconds another clock is ahead, from the `Date` of an answer."""
    try:
        there = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return None
    # It is cut to the second.
    return there + 0.5 - (began + now) / 2

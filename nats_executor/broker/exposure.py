"""Logs once in each process that a login goes over the network in clear text.

NKeys and credentials never do: they sign what the server sends, and are not sent.
"""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nats_executor.settings import without_userinfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats_executor.settings import Settings

__all__ = ["exposed_logins", "is_encrypted", "warn"]

log = logging.getLogger(__name__)

TOLD: list[str] = []


def exposure(server: str, settings: Settings, greeting: Mapping[str, Any]) -> str:
    """Return which part of the login can be read on the way, with the remedy; '' for none."""
    scheme, host = urlsplit(server).scheme, urlsplit(server).hostname or ""
    what = secret_in_clear(server, settings)
    if not what or is_encrypted(scheme, greeting) or is_loopback(host):
        return ""
    remedy = "wss://" if scheme == "ws" else "tls://"
    return (
        f"{what} goes to NATS at {without_userinfo(server)} in clear text, for anybody on the way "
        f"to read; enable tls on the server, and write {remedy} in [nats_executor] servers"
    )


def secret_in_clear(server: str, settings: Settings) -> str:
    if settings.password:
        return "[nats_executor] password"
    if settings.token:
        return "[nats_executor] token"
    return "the login in [nats_executor] servers" if "@" in server else ""


def is_encrypted(scheme: str, greeting: Mapping[str, Any]) -> bool:
    """Whether what follows a server's greeting is: nats-py starts TLS where the server asks."""
    return scheme == "wss" or (scheme != "ws" and bool(greeting.get("tls_required")))


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def warn(server: str, settings: Settings, greeting: Mapping[str, Any]) -> None:
    """Log that a login is about to be sent in clear text, unless that was logged."""
    text = exposure(server, settings, greeting)
    if not text:
        return
    if not TOLD:  # of several servers the first one says it all
        log.warning("%s; next: logging in", text)
    if text not in TOLD:
        TOLD.append(text)


def exposed_logins() -> list[str]:
    """Return what this process has sent in clear text."""
    return list(TOLD)

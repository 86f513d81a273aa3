"""Collects what a connection trusts and shows, and explains why a server refused it.

Files are read for each connection, because certificates and credentials are renewed under a running
process.
"""

from __future__ import annotations

import logging
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nats_executor.broker.exposure import is_encrypted, warn
from nats_executor.broker.releases import danger
from nats_executor.broker.servers import ADVERTISED
from nats_executor.errors import AccessDenied, BrokerError, BrokerUnavailable
from nats_executor.retrying import Once
from nats_executor.settings import SEED, without_userinfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats_executor.broker.servers import Servers
    from nats_executor.settings import Settings

__all__ = [
    "ASKERS",
    "SPARING",
    "connect_error",
    "credentials",
    "login_options",
    "not_yet",
    "require_safe",
    "tell_connected",
    "version_in",
    "who_logs_in",
]

log = logging.getLogger(__name__)

# Roles of connections whose users may not ask for any stream's state.
SPARING = frozenset({"api server", "task log"})
# Roles of connections for one question, whose callers report the failure.
ASKERS = frozenset({"task log"})
# Warnings of servers' releases; a process logs each of them once.
WARNED = Once()

TLS_FILES = ("tls_ca_file", "tls_certificate_file", "tls_key_file")
CREDENTIALS = ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED")
# OpenSSL's numbers for what is wrong with a certificate.
OUT_OF_TIME = frozenset({9, 10})  # not yet valid, expired
OTHER_NAME = frozenset({62, 64})  # another host name, another address


# What a connection trusts and shows


def login_options(settings: Settings) -> dict[str, Any]:
    """Return what nats-py is told of the user and of TLS, but for the text of a credentials file.

    Raises:
        AccessDenied, ConfigError: of a file that is named in the settings.
    """
    return {
        "user": settings.user,
        "password": settings.password,
        "token": settings.token,
        "nkeys_seed_str": nkey_seed(settings),
        "tls": tls_context(settings),
        "tls_handshake_first": settings.tls_handshake_first,
    }


def nkey_seed(settings: Settings) -> str | None:
    """Return the seed, from its file if it is in one."""
    seed = settings.nkey_seed
    if seed is None or re.fullmatch(SEED, seed):
        return seed
    text = contents("nkey_seed", seed).strip()
    if not re.fullmatch(SEED, text):
        raise AccessDenied("the file in [nats_executor] nkey_seed holds no seed of a user (SU...)")
    return text


def credentials(settings: Settings) -> str | None:
    """Return the text of the credentials file; nats-py never returns from one without a JWT."""
    path = settings.credentials_file
    if path is None:
        return None
    text = contents("credentials_file", path)
    if not all(part in text for part in CREDENTIALS):
        raise AccessDenied(
            f"[nats_executor] credentials_file = {path!r} holds no JWT and seed of a user; "
            "name a file as `nsc generate creds` writes it"
        )
    return text


def contents(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as exc:
        # The path may be a secret that was taken for one.
        reason = (exc.strerror if isinstance(exc, OSError) else None) or "not text"
        raise AccessDenied(
            f"cannot read the file in [nats_executor] {name}: {reason}; "
            "name a file that this process can read"
        ) from None


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return what to trust and to show; None leaves the system's CAs to servers that want TLS."""
    files = [name for name in TLS_FILES if getattr(settings, name)]
    if not files and not settings.tls_handshake_first:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
        if settings.tls_certificate_file:
            # Without a password OpenSSL would ask a terminal for that of an encrypted key.
            context.load_cert_chain(settings.tls_certificate_file, settings.tls_key_file, "")
    except OSError as exc:
        raise AccessDenied(
            f"cannot use the files in [nats_executor] {', '.join(files)}: {reason_of(exc)}; "
            "name readable PEM files, a key without passphrase that belongs to its certificate"
        ) from exc
    return context


# The server's greeting


def require_safe(server: str, settings: Settings, greeting: Mapping[str, Any]) -> None:
    """Raise where the settings ask for TLS and the server offers none; warn where they do not ask.

    nats-py would send the password.

    Raises:
        AccessDenied: nothing secret may be sent there, or the server wants a certificate.
    """
    scheme = urlsplit(server).scheme
    wants = [f"[nats_executor] {name}" for name in TLS_FILES if getattr(settings, name)]
    if scheme == "tls":
        wants.append("tls://")
    shown = without_userinfo(server)
    if wants and not is_encrypted(scheme, greeting):
        remedy = "write wss://" if scheme == "ws" else "enable tls on the server"
        raise AccessDenied(
            f"NATS at {shown} offers no TLS, so nothing secret was sent: {' and '.join(wants)} "
            f"ask for it; {remedy}, or write nats:// in [nats_executor] servers without TLS files"
        )
    if asks_for_certificate(scheme, greeting) and not settings.tls_certificate_file:
        raise AccessDenied(
            f"NATS at {shown} asks for a client certificate; set [nats_executor] "
            "tls_certificate_file and tls_key_file"
        )
    warn(server, settings, greeting)


def asks_for_certificate(scheme: str, greeting: Mapping[str, Any]) -> bool:
    is_tcp = scheme not in {"ws", "wss"}
    return is_tcp and bool(greeting.get("tls_required") and greeting.get("tls_verify"))


def version_in(greeting: Mapping[str, Any]) -> str:
    return str(greeting.get("version", ""))


def tell_connected(server: str, role: str, greeting: Mapping[str, Any]) -> None:
    """Log a new connection, and once in each process what is wrong with the server's release."""
    log.info("connected to NATS at %s as %s", without_userinfo(server), role)
    text = danger(version_in(greeting))
    if text and role not in ASKERS and WARNED.is_new(text):
        log.warning("%s; next: going on with it", text)


# Why it did not work


def not_yet(settings: Settings) -> BrokerError:
    """Return the reason before the first attempt to connect has ended."""
    servers = settings.shown_servers
    return BrokerUnavailable(f"no answer from NATS at {servers} yet; check [nats_executor] servers")


def connect_error(
    server: str,
    settings: Settings,
    exc: Exception,
    greeting: Mapping[str, Any],
    servers: Servers,
) -> BrokerError:
    """Return a reason for a person why a connection could not be made, with the remedy.

    Args:
        greeting: what the server said first; empty if it said nothing.
    """
    if isinstance(exc, BrokerError):
        return exc
    if text := why_refused(server, settings, exc, greeting):
        return AccessDenied(text)
    shown = without_userinfo(server)
    if isinstance(exc, ImportError):
        return BrokerUnavailable(
            f"nothing speaks WebSocket to {shown}: pip install 'airflow-nats-executor[websocket]', "
            "or write nats:// in [nats_executor] servers"
        )
    if not greeting and is_silent(exc):
        remedy = silence_remedy(server, settings, servers, exc)
        return BrokerUnavailable(f"no greeting of a NATS server from {shown}; {remedy}")
    remedy = ADVERTISED if servers.is_advertised(server) else "check [nats_executor] servers"
    reason = reason_of(exc).replace(server, shown)
    return BrokerUnavailable(f"cannot reach NATS at {shown}: {reason}; {remedy}")


def why_refused(
    server: str, settings: Settings, exc: Exception, greeting: Mapping[str, Any]
) -> str | None:
    """Return why one side does not accept the other, if that is what happened."""
    shown, reason = without_userinfo(server), reason_of(exc)
    if "authorization" in reason.lower() or "authentication" in reason.lower():
        who, remedy = who_logs_in(server, settings)
        return f"NATS at {shown} refuses {who}: {reason}; {remedy}"
    if isinstance(exc, ssl.SSLCertVerificationError):
        remedy = certificate_remedy(exc)
        return f"the certificate of NATS at {shown} is not valid: {reason}; {remedy}"
    if is_certificate_refused(server, settings, exc, greeting):
        # Without the reason: it arrives before the connection is cut, or not at all.
        return (
            f"NATS at {shown} ends the TLS connection; check [nats_executor] servers, and that "
            "the client certificate in tls_certificate_file is valid and trusted there"
        )
    if isinstance(exc, ssl.SSLError):
        return f"no TLS with NATS at {shown}: {reason}; {first_remedy(settings)}"
    return None


def reason_of(exc: Exception) -> str:
    """Return what an exception says, without the marks of the library that raised it."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return str(exc.verify_message).rstrip(".")
    if isinstance(exc, ssl.SSLError) and exc.reason:
        return exc.reason.replace("_", " ").lower()
    return str(exc).removeprefix("nats: ").strip("'") or type(exc).__name__


def who_logs_in(server: str, settings: Settings) -> tuple[str, str]:
    """Return what a login is called in messages, and what to check when a server refuses it."""
    s = settings
    if s.user:
        return f"user {s.user}", "check [nats_executor] user and password"
    if s.token:
        return "the token", "check [nats_executor] token"
    if s.nkey_seed:
        return "the nkey", "check [nats_executor] nkey_seed"
    if s.credentials_file:
        return "the credentials", f"check [nats_executor] credentials_file = {s.credentials_file!r}"
    if "@" in server:
        return "the user in its address", "check [nats_executor] servers"
    ways = "user and password, token, nkey_seed or credentials_file"
    return "a client without a login", f"set [nats_executor] {ways}"


def certificate_remedy(exc: ssl.SSLCertVerificationError) -> str:
    if exc.verify_code in OUT_OF_TIME:
        return "renew it on the server, or set the clock right"
    if exc.verify_code in OTHER_NAME:
        return "write a name or an address that is in it into [nats_executor] servers"
    return "name the CA that signed it in [nats_executor] tls_ca_file"


def is_certificate_refused(
    server: str, settings: Settings, exc: Exception, greeting: Mapping[str, Any]
) -> bool:
    """Whether the client certificate, or its absence, is what the server does not like.

    With TLS 1.3 the server looks at it after the handshake, and its reason may be lost with the
    connection.
    """
    if isinstance(exc, ssl.SSLError):
        return "CERTIFICATE" in (exc.reason or "") or "UNKNOWN_CA" in (exc.reason or "")
    is_checked = asks_for_certificate(urlsplit(server).scheme, greeting)
    is_handshake_done = is_checked or (settings.tls_handshake_first and not greeting)
    return is_handshake_done and is_silent(exc) and not isinstance(exc, TimeoutError)


def is_silent(exc: Exception) -> bool:
    """Whether there was a TCP connection, and nothing of NATS came out of it."""
    is_lost = isinstance(exc, (ConnectionResetError, BrokenPipeError, TimeoutError))
    return is_lost or "INFO message" in str(exc)


def first_remedy(settings: Settings) -> str:
    value = "False if it greets" if settings.tls_handshake_first else "True if it starts TLS"
    return f"check [nats_executor] servers, and set tls_handshake_first = {value} first"


def silence_remedy(server: str, settings: Settings, servers: Servers, exc: Exception) -> str:
    if servers.has_answered(server):
        return "there was one before: check whether it hangs, and what is between it and here"
    if servers.is_advertised(server):
        return ADVERTISED
    # A server that waits for TLS ends the connection soon; one that is busy or hangs does not.
    has_tls = urlsplit(server).scheme == "tls" or any(getattr(settings, n) for n in TLS_FILES)
    if isinstance(exc, TimeoutError) and not (has_tls or settings.tls_handshake_first):
        return "check [nats_executor] servers, and whether that server hangs"
    return first_remedy(settings)

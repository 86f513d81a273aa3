"""Logs what the server says a user may not do, once for each permission that is missing.

The subject of a report or an ack is a new one for each workload, so the log names the permission
that covers it.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections import deque
from typing import TYPE_CHECKING

from nats_executor.access.permissions import Role, permissions
from nats_executor.broker.login import who_logs_in
from nats_executor.errors import AccessDenied
from nats_executor.retrying import Once
from nats_executor.wire.names import SchedulerVerb, Verb, token

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nats_executor.settings import Settings
    from nats_executor.wire.names import Names

__all__ = ["Denials"]

log = logging.getLogger(__name__)

VIOLATION = re.compile(
    r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE
)
# Messages without an answer; the denial of one comes within a round trip.
LAST_SENT = 100
# A denied call is repeated within a third of `ack_wait_seconds`, or with the next heartbeat.
LATELY_SECONDS = 60.0
# Tokens of an ack's subject before the numbers, in its two forms.
OLDER_ACK, NEWER_ACK = 4, 6
OLDER_ACK_TOKENS = 9


class Denials:
    """The permissions that a connection was found to lack."""

    def __init__(self, settings: Settings, role: str) -> None:
        self._settings = settings
        self._role = role
        self._logged = Once()
        self._sent: deque[str] = deque(maxlen=LAST_SENT)
        self._last = ""
        self._last_at = -math.inf
        self._lost_at = -math.inf

    @property
    def lately(self) -> str:
        """The denial of the last minute, as it was logged; '' for none."""
        return self._last if time.monotonic() - self._last_at < LATELY_SECONDS else ""

    def renew(self) -> None:
        """Begin a new connection, which may be allowed more; log no denial a second time."""
        self._last_at = -math.inf

    def send(self, subject: str) -> None:
        """Note the subject of a message that gets no answer, to name it in a denial."""
        self._sent.append(subject)

    def tell(
        self, text: str, concerned: Sequence[tuple[str, Callable[[AccessDenied], None]]]
    ) -> bool:
        """Read an error of the server; whether it is a denial, which is logged once and passed on.

        Args:
            concerned: each subject in use, and the function that gets its denial.
        """
        if "slow consumer" in text:
            self._tell_loss()
        if (found := VIOLATION.search(text)) is None:
            return False
        verb = "subscribe to" if found[1].lower() == "subscription" else "publish to"
        # nats-py writes the server's reason in lower case.
        known = [*(subject for subject, _ in concerned), *self._sent]
        denied = next((s for s in known if s.lower() == found[2].lower()), found[2])
        line = self._line(verb, denied)
        if self._logged.is_new(line):
            log.error("%s; next: trying again until it is allowed", line)
        self._last, self._last_at = line, time.monotonic()
        for subject, fail in concerned:
            if subject == denied:
                fail(AccessDenied(line))
        return True

    def _tell_loss(self) -> None:
        """Log once a minute that messages came faster than they were handled."""
        now = time.monotonic()
        if now - self._lost_at > LATELY_SECONDS:
            self._lost_at = now
            log.warning(
                "more messages came to this %s than it can keep, and some were dropped; next: "
                "what matters is asked for again; remedy: see who sends so much",
                self._role,
            )

    def _line(self, verb: str, subject: str) -> str:
        s, is_subscription = self._settings, verb.startswith("subscribe")
        missing = permission(subject, s.names, s.inbox_prefix, is_subscription=is_subscription)
        who, _ = who_logs_in("", s)
        return (
            f"NATS does not allow {who} to {verb} {missing}: put what "
            f"`{self._command(missing)}` prints into the servers' configuration"
        )

    def _command(self, missing: str) -> str:
        """Return the command that prints what this user has to be allowed."""
        from nats_executor.access.accounts import DOMAIN  # costs a command CPU time, needed or not

        s = self._settings
        user = s.user or ("PUBLIC_KEY" if s.nkey_seed else "NAME")
        role = role_of(self._role, missing, s)
        if s.jetstream_domain == DOMAIN:  # its account has to borrow the subject, too
            return f"airflow nats accounts {user}=QUEUES"
        words = ["airflow nats auth --user", user, "--role", role]
        if role == Role.WORKER:
            words.append("--queues QUEUES")
        if s.inbox_prefix != f"_INBOX_{token(user)}":
            words.append(f"--inbox-prefix {s.inbox_prefix}")
        if s.credentials_file:
            words.append("--format jwt")
        return " ".join(words)


def role_of(connection: str, missing: str, settings: Settings) -> str:
    """Return the role of a connection's user; of a person's command the smallest that allows it."""
    role = connection.partition(" ")[0] if connection.startswith("worker") else connection
    role = role.replace(" ", "-")
    if role == "task-log":  # the process that ran the task stores it
        user = settings.user or ""  # a team's name may be in front
        is_trigger = user == Role.TRIGGERER or user.endswith(f"-{Role.TRIGGERER}")
        return Role.TRIGGERER if is_trigger and "worker-" not in user else Role.WORKER
    if role in set(Role):
        return role
    for enough in (Role.MONITOR, Role.OPERATOR):
        granted = permissions(enough, settings.names, settings.inbox_prefix)
        if missing in {*granted.publish, *granted.subscribe}:
            return enough
    return Role.ADMIN


def permission(subject: str, names: Names, inbox: str, *, is_subscription: bool = False) -> str:
    """Return the subject of the permission that covers a subject of ours."""
    tokens = subject.split(".")
    if subject.startswith(f"{inbox}."):
        return f"{inbox}.>"
    if subject.startswith("$JS.ACK."):
        kept = OLDER_ACK if len(tokens) == OLDER_ACK_TOKENS else NEWER_ACK
        return ".".join([*tokens[:kept], ">"])
    if tokens[0] == names.prefix and tokens[1] in {"ctl", "schedulers"}:
        return questions(tokens, names, is_subscription=is_subscription)
    if subject.startswith(f"$O.{names.logs_bucket}."):
        return names.log_names() if tokens[2] == "M" else ".".join([*tokens[:4], ">"])
    if f".CONSUMER.CREATE.{names.tasks_stream}." in subject:
        return subject.partition(f"{names.tasks_stream}.")[0] + f"{names.tasks_stream}.>"
    numbered = (
        f"{names.prefix}.",
        f"$KV.{names.workers_bucket}.",
        f"$KV.{names.holds_bucket}.history.",
    )
    is_of_one = subject.startswith(numbered) or any(
        part in subject
        for part in (
            f".API.$KV.{names.workers_bucket}.",
            f".DIRECT.GET.{names.tasks_stream}.",
            f".DIRECT.GET.{names.results_stream}.",
            f".DIRECT.GET.{names.workers_stream}.",
            f".CONSUMER.MSG.NEXT.{names.results_stream}.",
            f".CONSUMER.INFO.{names.tasks_stream}.",
        )
    )
    return ".".join([*tokens[:-1], "*"]) if is_of_one else subject


def questions(tokens: Sequence[str], names: Names, *, is_subscription: bool) -> str:
    """Return the permission to ask workers or schedulers one question, or to hear all of them."""
    verb = "" if is_subscription else tokens[-1]
    if tokens[1] == "ctl":
        return names.controls(Verb(verb) if verb in set(Verb) else None)
    return names.schedulers(SchedulerVerb(verb) if verb in set(SchedulerVerb) else None)

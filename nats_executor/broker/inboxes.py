"""Passes on the answers that a connection gets, and keeps the subscriptions that outlive it."""

from __future__ import annotations

import contextlib
import itertools
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nats_executor.broker.link import Listener, Received
    from nats_executor.errors import AccessDenied, BrokerError

__all__ = ["Inbox", "Listeners"]

# A subject in use, and the function that gets its denial.
Concern = tuple[str, "Callable[[AccessDenied], None]"]


class Inbox:
    """One subscription for the answers to all requests, told apart by the last token.

    Attributes:
        subject: of the subscription.
    """

    def __init__(self, prefix: str) -> None:
        self._root = f"{prefix}.{secrets.token_hex(11)}"
        self._tokens = itertools.count()
        self._pending: dict[str, tuple[str, Callable[[Received | BrokerError], None]]] = {}
        self.subject = f"{self._root}.*"

    def another(self) -> str:
        """Return a subject that is no request's: it has one level more."""
        return f"{self._root}.pull.{next(self._tokens)}"

    @contextlib.contextmanager
    def awaiting(
        self, subject: str, resolve: Callable[[Received | BrokerError], None]
    ) -> Iterator[str]:
        """Pass on what answers a request on this subject; yields where the answers are to go."""
        token = str(next(self._tokens))
        self._pending[token] = (subject, resolve)
        try:
            yield f"{self._root}.{token}"
        finally:
            del self._pending[token]

    async def hear(self, msg: Received) -> None:
        entry = self._pending.get(msg.subject.rpartition(".")[2])
        if entry is not None:
            entry[1](msg)

    def fail(self, reason: BrokerError) -> None:
        """Give each request that waits a reason why no answer will come."""
        for _, resolve in list(self._pending.values()):
            resolve(reason)

    def concerned(self) -> Iterator[Concern]:
        yield from self._pending.values()


class Listeners:
    """The subscriptions, by the subject that each has at the moment."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._by_subject: dict[str, Listener] = {}

    def at(self, subject: str) -> Listener | None:
        return self._by_subject.get(subject)

    def add(self, listener: Listener) -> None:
        if listener.is_inbox:
            listener.subject = self._inbox.another()
        self._by_subject[listener.subject] = listener

    def remove(self, listener: Listener) -> None:
        self._by_subject.pop(listener.subject, None)

    def renew(self) -> list[Listener]:
        """Return all, the inboxes on new subjects: nothing waits for what was asked before."""
        listeners = list(self._by_subject.values())
        self._by_subject.clear()
        for listener in listeners:
            self.add(listener)
        return listeners

    def tell_renewed(self) -> None:
        for listener in list(self._by_subject.values()):
            listener.on_renewed()

    def concerned(self) -> Iterator[Concern]:
        for subject, listener in self._by_subject.items():
            yield subject, listener.on_denied
            yield listener.asks, listener.on_denied

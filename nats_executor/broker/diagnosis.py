"""Finds out why JetStream does not answer: one question to a stream for all calls that fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from typing import TYPE_CHECKING, TypeGuard

from nats_executor.broker.quorum import no_quorum, replication
from nats_executor.broker.replies import NO_LEADER
from nats_executor.errors import BrokerError, BrokerUnavailable, NoQuorum, StreamFull

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from nats_executor.broker.link import Link, Received
    from nats_executor.broker.quorum import Replication

__all__ = ["Diagnosis", "is_doubtful"]

# A stream's leader answers within a round trip, a stream without one within half a second.
DIAGNOSIS_SECONDS = 1.0


class Diagnosis:
    """Tells a cluster without a quorum from anything else that keeps it from storing.

    Args:
        api: what the subjects of JetStream's API begin with, in this account or a domain.
        stream: the one that is asked for its state.
        may_ask: whether this user may ask for it. For others nothing is explained, as the question
            itself would be denied.
    """

    def __init__(self, link: Link, api: str, stream: str, *, may_ask: bool) -> None:
        self._link = link
        self._may_ask = may_ask
        self._subject = f"{api}.STREAM.INFO.{stream}"
        self._servers: tuple[str, ...] = ()
        self._lock = asyncio.Lock()
        self._looked_at = -math.inf
        self._found: NoQuorum | None = None
        self._is_led = False

    def note(self, found: Replication) -> None:
        """Remember the cluster's servers: without a leader no server may name them."""
        if len(found.servers) > 1:
            self._servers = found.servers

    @contextlib.asynccontextmanager
    async def explained(self, limit: float = DIAGNOSIS_SECONDS) -> AsyncIterator[None]:
        """Raise the reason for a call that got no usable answer, instead of just that.

        Args:
            limit: how long to look for it, no longer than the call itself may take.
        """
        try:
            yield
        except BrokerUnavailable as exc:
            reason = await self.reason(exc, limit=limit)
            if reason is exc:
                raise
            raise reason from exc

    async def reason(
        self, exc: BrokerUnavailable, *, limit: float = DIAGNOSIS_SECONDS
    ) -> BrokerUnavailable:
        """Return why it is so, or the same error if there is nothing to add."""
        if not is_doubtful(exc) or not self._link.is_connected:
            return exc
        await self._look_at_most_once(limit)
        if self._found is None and isinstance(exc, NoQuorum):
            return no_quorum(self._servers)
        return type(self._found)(str(self._found)) if self._found else exc

    async def is_sound(self) -> bool:
        """Whether a leader answers that is in touch with more than half of its servers."""
        await self._look_at_most_once(DIAGNOSIS_SECONDS)
        return self._is_led

    async def _look_at_most_once(self, limit: float) -> None:
        async with self._lock:  # calls that come meanwhile get the same answer
            if self._may_ask and time.monotonic() - self._looked_at > DIAGNOSIS_SECONDS:
                self._is_led = False
                self._found = await self._look(min(limit, DIAGNOSIS_SECONDS))
                self._looked_at = time.monotonic()

    async def explain_all(
        self, refusals: Sequence[BrokerError | None], *, limit: float
    ) -> list[BrokerError | None]:
        """Put the reason in the place of each failure that it explains."""
        doubtful = [r for r in refusals if is_doubtful(r)]
        if not doubtful:
            return list(refusals)
        reason = await self.reason(doubtful[0], limit=limit)
        if not isinstance(reason, NoQuorum):
            return list(refusals)
        return [reason if is_doubtful(r) else r for r in refusals]

    async def _look(self, limit: float) -> NoQuorum | None:
        try:
            answer: Received = await self._link.ask(self._subject, timeout=limit)
        except BrokerError:  # nothing more is known then
            return None
        response = json.loads(answer.data)
        if error := response.get("error"):
            return no_quorum(self._servers) if error.get("err_code") == NO_LEADER else None
        found = replication(response)
        self.note(found)
        self._is_led = found.has_quorum
        return None if found.has_quorum else no_quorum(found.servers)


def is_doubtful(refusal: BrokerError | None) -> TypeGuard[BrokerUnavailable]:
    """Whether a message may have been refused for want of a quorum."""
    return isinstance(refusal, BrokerUnavailable) and not isinstance(refusal, StreamFull)

"""Holds what an executor has between `start` and `end`: the other side of the bridge."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import deque

    from nats_executor.broker.bridge import Bridge
    from nats_executor.errors import BrokerError
    from nats_executor.scheduler.answers import Answers
    from nats_executor.scheduler.dispatcher import Dispatcher, Envelope
    from nats_executor.scheduler.evidence import Evidence
    from nats_executor.scheduler.explaining import Explainer
    from nats_executor.scheduler.ledger import Dispatch
    from nats_executor.scheduler.leftovers import Leftovers
    from nats_executor.scheduler.revocations import Revocations
    from nats_executor.scheduler.upkeep import Upkeep
    from nats_executor.wire.messages import Report
    from nats_executor.wire.names import Lane

__all__ = ["Connected"]

# Each dispatch adds so many seconds to the time limit of a look at many.
LOOK_UP_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Connected:
    """An executor that was started; the broker may be away all the same.

    All time limits are in seconds; each call blocks the scheduler for so long at most.
    """

    bridge: Bridge
    dispatcher: Dispatcher
    answers: Answers
    upkeep: Upkeep
    revocations: Revocations
    explainer: Explainer
    leftovers: Leftovers

    @property
    def recoveries(self) -> int:
        """How often NATS was seen to come back."""
        return self.dispatcher.recoveries

    @property
    def reports(self) -> deque[Report]:
        """The reports of workers, oldest first; `sync` takes them out."""
        return self.dispatcher.mailbox.reports

    def publish(self, messages: list[Envelope], timeout: float) -> dict[str, BrokerError | None]:
        """Send; returns by dispatch id what keeps the broker from having it, None if it does.

        Raises:
            BrokerError: none of them could be tried.
        """
        began = time.monotonic()
        outcomes = self.bridge.call(self.dispatcher.publish(messages), timeout=timeout)
        self.dispatcher.telemetry.published(outcomes, time.monotonic() - began)
        return outcomes

    def look_up(self, places: list[tuple[Lane, str]], timeout: float) -> dict[str, Evidence]:
        """Return what the broker knows of each lane and dispatch id, by dispatch id.

        Raises:
            BrokerError: it cannot be asked.
        """
        return self.bridge.call(
            self.dispatcher.inspector.look_up(places),
            timeout=timeout + LOOK_UP_SECONDS * len(places),
        )

    def renew(self, dispatch: Dispatch, token: str) -> None:
        """Answer an expired token with a new one, without waiting for it."""
        self.bridge.post(self.dispatcher.renew(dispatch, token))

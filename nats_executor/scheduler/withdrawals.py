"""Takes messages out of their queues that Airflow no longer wants, and looks for forgotten ones.

Everything here runs in the bridge's thread; the scheduler's thread takes what is found and done.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from nats_executor.batches import batches
from nats_executor.errors import BrokerError
from nats_executor.scheduler.evidence import can_withdraw
from nats_executor.scheduler.strays import stray_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nats_executor.broker.port import Broker
    from nats_executor.scheduler.inspector import Inspector
    from nats_executor.scheduler.ledger import Dispatch
    from nats_executor.settings import Settings

__all__ = ["Withdrawals"]

log = logging.getLogger(__name__)

# Removals under way at once; each one takes two questions to NATS.
WITHDRAWN_AT_ONCE = 64
# Messages that one look for forgotten ones reads, with their bodies.
PAGE_MESSAGES = 200
# A younger message is never taken for a forgotten one: another scheduler may have just sent it.
SAFE_SECONDS = 60.0


class Withdrawals:
    """What one executor takes out of queues.

    Attributes:
        done: the dispatches whose messages are gone.
        strays: dispatches of tasks that were found in the stream; some scheduler may know them.
        is_busy: a removal was ordered and is not over; the scheduler's thread sets it.
    """

    def __init__(
        self, settings: Settings, inspector: Inspector, require: Callable[[], Broker]
    ) -> None:
        self._settings = settings
        self._names = settings.names
        self._inspector = inspector
        self._require = require
        self._start = 1  # the sequence at which the next look for strays begins
        self.done: deque[Dispatch] = deque()
        self.strays: deque[Dispatch] = deque()
        self.is_busy = False

    async def withdraw(self, dispatches: Sequence[Dispatch]) -> None:
        """Remove the messages of dispatches that no worker has.

        A worker that claims one at this very moment asks Airflow before it starts it, and drops it.
        """
        try:
            broker = self._require()
            evidence = await self._inspector.look_up([(d.lane, d.id) for d in dispatches])
            waiting = [d for d in dispatches if can_withdraw(evidence[d.id])]
            for batch in batches(waiting, WITHDRAWN_AT_ONCE):
                await asyncio.gather(*(self._remove(broker, dispatch) for dispatch in batch))
                self.done.extend(batch)
        except BrokerError as exc:  # the next look finds them again
            log.debug("withdraw: %s", exc)
        finally:
            self.is_busy = False

    async def _remove(self, broker: Broker, dispatch: Dispatch) -> None:
        subject = self._names.task(dispatch.queue, dispatch.id, dispatch.band)
        await broker.remove(self._names.tasks_stream, subject)

    async def look_for_strays(self, known: int) -> None:
        """Read some more messages, if there are more than this executor has sent.

        The stream is read from its oldest message on, a page at a time, and then again.

        Args:
            known: how many of the messages at most this executor knows.
        """
        try:
            broker = self._require()
            stream = self._names.tasks_stream
            info = await broker.stream_info(stream)
            if info is None or info.messages <= known:
                return
            page = await broker.page(stream, start=self._start, most=PAGE_MESSAGES)
            self._start = page[-1].sequence + 1 if page else 1
            before = info.time - SAFE_SECONDS
            found = (stray_of(message, self._settings, before=before) for message in page)
            self.strays.extend(stray for stray in found if stray)
        except BrokerError as exc:
            log.debug("look for strays: %s", exc)

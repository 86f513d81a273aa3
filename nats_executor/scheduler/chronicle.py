"""Writes down what queues are like, minute by minute, for the charts of the last hour.

The scheduler's thread notes what starts and ends; the bridge's thread writes it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, NamedTuple

from nats_executor.errors import AccessDenied, BrokerError
from nats_executor.fleet.histories import write_down
from nats_executor.scheduler.ledger import Ended, Started
from nats_executor.wire.history import Minute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from nats_executor.broker.port import Broker
    from nats_executor.scheduler.ledger import Ledger, Outcome
    from nats_executor.settings import Settings
    from nats_executor.wire.messages import Report

__all__ = ["Chronicle"]

log = logging.getLogger(__name__)

MINUTE_SECONDS = 60
# Before a minute's end; within it the scheduler's loop comes by.
LOOK_AHEAD_SECONDS = 3.0
# What a minute can bring; of more than this the oldest is not counted.
MOST_STEPS = 100_000
# Queues with records. A thousand of them take less than a megabyte of the bucket.
MOST_HISTORIES = 1000
# Several schedulers write at the turn of a minute.
TRIES = 5


class Step(NamedTuple):
    """The start or the end of one workload.

    Attributes:
        waited: in milliseconds, None for an end.
    """

    queue: str
    waited: int | None


class Chronicle:
    """The last hour of the queues, as far as one executor knows it.

    Attributes:
        is_due: it is time to `look`.
    """

    def __init__(self, settings: Settings) -> None:
        self._names = settings.names
        self._steps: deque[Step] = deque(maxlen=MOST_STEPS)
        self._oldest: dict[str, float] = {}  # since when, by `time.monotonic()`
        self.is_due = False

    # In the scheduler's thread

    def settled(self, report: Report, outcome: Outcome) -> None:
        """Note that a workload has started or ended."""
        match outcome:
            case Started(dispatch) if dispatch.sent_at:
                # Two clocks may differ by more than it took.
                waited = max(0.0, report.at - dispatch.sent_at)
                self._steps.append(Step(dispatch.queue, round(1000 * waited)))
            case Ended(dispatch):
                self._steps.append(Step(dispatch.queue, None))

    def look(self, ledger: Ledger) -> None:
        """Note since when the oldest workload of each queue waits; it goes through all of them."""
        self.is_due = False
        oldest: dict[str, float] = {}
        for dispatch in ledger:
            if not dispatch.is_held:
                since = oldest.get(dispatch.queue, dispatch.since)
                oldest[dispatch.queue] = min(since, dispatch.since)
        self._oldest = oldest

    # In the bridge's thread

    async def write_forever(self, require: Callable[[], Broker]) -> None:
        """Write at the end of each minute, until this user is not allowed to."""
        while True:
            left = MINUTE_SECONDS - time.time() % MINUTE_SECONDS
            await asyncio.sleep(max(0.0, left - LOOK_AHEAD_SECONDS))
            self.is_due = True
            await asyncio.sleep(MINUTE_SECONDS - time.time() % MINUTE_SECONDS)
            try:
                await self.write(require(), int(time.time() / MINUTE_SECONDS - 0.5))
            except AccessDenied:  # the connection tells it; the release before had no such grant
                return
            except BrokerError as exc:
                log.debug("the last hour of queues: %s", exc)
            except Exception:
                # In the connection's task group, where it would end the connection.
                log.exception("the last hour of queues is not kept; next: trying again")

    async def write(self, broker: Broker, minute: int) -> None:
        """Write what came since the last time.

        Raises:
            BrokerError: there was no answer; the charts lack a minute.
        """
        names = self._names
        steps = [self._steps.popleft() for _ in range(len(self._steps))]
        depths: Counter[str] = Counter()
        for info in await broker.consumer_infos(names.tasks_stream):
            depths[info.queue] += info.pending
        now = time.monotonic()
        ages = {queue: round(now - since) for queue, since in self._oldest.items()}
        left: Mapping[str, Minute] = minutes_of(steps, depths, ages)
        for _ in range(TRIES):
            if not left:
                return
            left = await write_down(broker, names, minute, left)


def minutes_of(
    steps: Iterable[Step], depths: Mapping[str, int], ages: Mapping[str, int]
) -> dict[str, Minute]:
    """Sum up the steps of a minute by queue, those with most to tell first; idle ones have none.

    Args:
        ages: of the oldest workload that waits, in seconds; it may have gone since it was seen.
    """
    found: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for queue, waited in steps:
        sums = found[queue]
        if waited is None:
            sums[2] += 1
        else:
            sums[0] += 1
            sums[1] += waited
    queues = found.keys() | {queue for queue, depth in depths.items() if depth}
    minutes = {}
    for queue in sorted(queues):
        started, waited, ended = found[queue]
        depth = depths.get(queue, 0)
        age = ages.get(queue, 0) if depth else 0
        minutes[queue] = Minute(depth, started, waited, ended, age)
    busiest = sorted(minutes, key=lambda queue: sum(minutes[queue]), reverse=True)
    return {queue: minutes[queue] for queue in busiest[:MOST_HISTORIES]}

"""Finds out whether a worker lives and whether it gets workloads."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from nats_executor.fleet.drains import in_drained_words
from nats_executor.wire.queue_names import as_argument, as_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats_executor.broker.port import Broker
    from nats_worker.processes.pool import ProcessPool
    from nats_worker.state import WorkerState

__all__ = ["Health"]

# A loop that has not moved for so long hangs: its longest steps take milliseconds.
STALL_SECONDS = 10.0
# The server speaks at least every five seconds to a pull that waits, so two answers are missing.
QUIET_SECONDS = 10.0
TICK_SECONDS = 1.0
# A start takes tenths of a second until the API server is asked, a few seconds where all is busy.
HUNG_START_SECONDS = 30.0


class Health:
    """Answers the questions of probes about one worker.

    Attributes:
        pool, broker: the worker's own, once it has them; see `watch`.
        reconnects: how often the connection was replaced, as seen once a second.
    """

    def __init__(self, state: WorkerState) -> None:
        self._state = state
        self.pool: ProcessPool | None = None
        self.broker: Broker | None = None
        self.reconnects = 0
        self._connection = math.inf
        self._ticked_at = time.monotonic()
        self._full_at = -math.inf

    def watch(self, pool: ProcessPool, broker: Broker) -> None:
        """Look at these from now on."""
        self.pool, self.broker = pool, broker

    async def tick_forever(self) -> None:
        """Show once a second that the event loop moves, and look at the slots and connection."""
        while True:
            self._tick()
            await asyncio.sleep(TICK_SECONDS)

    def _tick(self) -> None:
        self._ticked_at = now = time.monotonic()
        if not self._state.slots.free:
            self._full_at = now
        since = self.broker.connected_since if self.broker else math.inf
        if since not in {self._connection, math.inf}:
            if self._connection != math.inf:
                self.reconnects += 1
            self._connection = since

    # Asked in a thread of the probe server: only reads, and only what one step reads whole

    @property
    def is_connected(self) -> bool:
        return self.broker is not None and self.broker.is_connected

    def stall(self) -> float:
        """Return the seconds since the event loop last moved."""
        return time.monotonic() - self._ticked_at

    def is_live(self) -> bool:
        return self.stall() < STALL_SECONDS

    def silences(self) -> dict[str, float]:
        """Return the seconds that each queue's quietest lane has waited for an answer.

        A worker without a free slot asks for nothing, and so waits for nothing. Infinity is a lane
        that was never answered.
        """
        state, now = self._state, time.monotonic()
        intake = state.intake
        if intake is None:
            return {}
        pulls, silences = dict(intake.pulls), dict[str, float]()
        for lane in intake.lanes:
            heard_at = pulls[lane].heard_at if lane in pulls else -math.inf
            # Nothing is asked for while there is no free slot, and for a tick after it.
            silence = 0.0 if not state.slots.free else now - max(heard_at, self._full_at)
            silences[lane.queue] = max(silence, silences.get(lane.queue, 0.0))
        return silences

    def missing(self) -> str:
        """Return what keeps this worker from getting workloads, '' if it gets them."""
        return next(self._obstacles(), "")

    def _obstacles(self) -> Iterator[str]:
        """Yield them, what explains others first."""
        state = self._state
        if not self.is_live():
            yield f"its event loop has not moved for {self.stall():.0f} s"
        if state.is_draining or state.stop_requests:
            yield "it drains and stops then"
        if state.drained is not None:
            who = in_drained_words(state.drained.by, state.drained.reason)
            undrain = f"airflow nats workers undrain {as_argument(as_text([state.plan.name]))}"
            yield f"{who}; to let it take workloads again: {undrain}"
        if not self.is_connected:
            yield "no connection to NATS"
        elif self.broker is not None and self.broker.denied:
            yield self.broker.denied
        yield from self._obstacles_to_starts()
        if state.paused:
            yield f"paused: {state.paused}"
        if state.intake is None:
            yield "NATS has not confirmed its name yet, or its first self-test goes on"
        for queue, silence in self.silences().items():
            if silence > QUIET_SECONDS:
                span = f"for {silence:.0f} s" if silence < math.inf else "yet"
                yield f"no answer to pulls of queue {queue!r} {span}"

    def _obstacles_to_starts(self) -> Iterator[str]:
        if self.pool is None or not self.pool.preloaded.is_set():
            yield "its fork server has not imported Airflow yet"
        elif (hangs := self.pool.longest_start()) > HUNG_START_SECONDS:
            yield f"a start hangs: no process has asked the API server for it in {hangs:.0f} s"

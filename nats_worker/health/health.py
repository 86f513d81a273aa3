"""Whether a worker lives, whether it gets workloads, and what it counts, for probes over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from typing import TYPE_CHECKING, Self

from nats_worker.delivery.errand import Errand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from nats_executor.broker.port import Broker, Delivery
    from nats_worker.delivery.record import Surroundings
    from nats_worker.health.probes import ProbeServer
    from nats_worker.processes.pool import ProcessPool
    from nats_worker.worker import Worker

__all__ = ["Health"]

# A loop that has not moved for so long hangs: its longest steps take milliseconds.
STALL_SECONDS = 10.0
# The server speaks every two seconds to a pull that waits, so several answers are missing then.
SILENCE_SECONDS = 10.0
TICK_SECONDS = 1.0
# A start takes tenths of a second until the API server is asked, a few seconds where all is busy.
START_SECONDS = 30.0


class Health:
    """What probes get to know about one worker; without `health_port` it does nothing.

    An async context manager, around all of the worker's life: its drain is seen as well.

    Attributes:
        errand: makes an errand of a delivery, one that is measured if anybody may ask.
        pool, broker: the worker's own, once it has them; see `watch`.
        reconnects: how often the connection was replaced, as seen once a second.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.errand: Callable[[Surroundings, str, Delivery], Errand] = Errand
        self.pool: ProcessPool | None = None
        self.broker: Broker | None = None
        self.reconnects = 0
        self._connection = math.inf
        self._ticked_at = time.monotonic()
        self._full_at = -math.inf
        self._server: ProbeServer | None = None
        self._ticker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            ConfigError: the port or the address cannot be had.
        """
        settings = self.worker.settings
        if settings.health_port:
            # Here, because they are a tenth of this process's memory.
            from nats_worker.health.metrics import Meter
            from nats_worker.health.probes import ProbeServer

            meter = Meter(self)
            self._server = ProbeServer(settings, self, meter.exposition)
            self.errand = meter.errand
            self._ticker = asyncio.create_task(self._tick_forever(), name="health")
            self._server.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)

    def watch(self, pool: ProcessPool, broker: Broker) -> None:
        """Look at these from now on."""
        self.pool, self.broker = pool, broker

    async def _tick_forever(self) -> None:
        while True:
            self._tick()
            await asyncio.sleep(TICK_SECONDS)

    def _tick(self) -> None:
        self._ticked_at = now = time.monotonic()
        if not self.worker.slots.free:
            self._full_at = now
        since = self.broker.connected_since if self.broker else math.inf
        if since not in {self._connection, math.inf}:
            self.reconnects += self._connection != math.inf
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
        worker, now = self.worker, time.monotonic()
        intake = worker.intake
        if intake is None:
            return {}
        pulls, silences = dict(intake.pulls), dict[str, float]()
        for lane in intake.lanes:
            heard_at = pulls[lane].heard_at if lane in pulls else -math.inf
            # Nothing is asked for while there is no free slot, and for a tick after it.
            silence = 0.0 if not worker.slots.free else now - max(heard_at, self._full_at)
            silences[lane.queue] = max(silence, silences.get(lane.queue, 0.0))
        return silences

    def missing(self) -> str:
        """Return what keeps this worker from getting workloads, '' if it gets them."""
        return next(self._obstacles(), "")

    def _obstacles(self) -> Iterator[str]:
        """Yield them, what explains others first."""
        worker = self.worker
        if not self.is_live():
            yield f"its event loop has not moved for {self.stall():.0f} s"
        if worker.is_draining or worker.stop_requests:
            yield "it drains and stops then"
        if not self.is_connected:
            yield "no connection to NATS"
        elif self.broker is not None and self.broker.denied:
            yield self.broker.denied
        yield from self._obstacles_to_starts()
        if worker.paused:
            yield f"paused: {worker.paused}"
        if worker.intake is None:
            yield "NATS has not confirmed its name yet, or its first self-test goes on"
        for queue, silence in self.silences().items():
            if silence > SILENCE_SECONDS:
                span = f"for {silence:.0f} s" if silence < math.inf else "yet"
                yield f"no answer to pulls of queue {queue!r} {span}"

    def _obstacles_to_starts(self) -> Iterator[str]:
        if self.pool is None or not self.pool.preloaded.is_set():
            yield "its fork server has not imported Airflow yet"
        elif (hangs := self.pool.longest_start()) > START_SECONDS:
            yield f"a start hangs: no process has asked the API server for it in {hangs:.0f} s"

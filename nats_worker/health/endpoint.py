"""Serves a worker's probes and metrics over HTTP, where `health_port` is set."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from nats_executor.retrying import ended
from nats_worker.delivery.observer import Observer

if TYPE_CHECKING:
    from types import TracebackType

    from nats_executor.broker.port import Delivery
    from nats_worker.health.health import Health
    from nats_worker.health.metrics import Meter
    from nats_worker.health.probes import ProbeServer
    from nats_worker.state import WorkerState

__all__ = ["Endpoint"]

TICK_SECONDS = 1.0


class Endpoint:
    """The address for probes; without `health_port` it does nothing.

    An async context manager, around all of the worker's life: its drain is seen as well.
    """

    def __init__(self, state: WorkerState, health: Health) -> None:
        self._state = state
        self._health = health
        self._meter: Meter | None = None
        self._server: ProbeServer | None = None
        self._ticker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            ConfigError: the port or the address cannot be had.
        """
        settings = self._state.settings
        if settings.health_port:
            # Here, because they are a tenth of this process's memory.
            from nats_worker.health.metrics import Meter
            from nats_worker.health.probes import ProbeServer

            self._meter = Meter(self._state, self._health)
            self._server = ProbeServer(settings, self._health, self._meter.exposition)
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
            await ended(self._ticker)
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)

    def observer(self, queue: str, delivery: Delivery) -> Observer:
        """Return who hears of a delivery that has just arrived: what counts it, if it is asked."""
        return self._meter.observer(queue, delivery) if self._meter else Observer()

    async def _tick_forever(self) -> None:
        while True:
            self._health.tick()
            await asyncio.sleep(TICK_SECONDS)

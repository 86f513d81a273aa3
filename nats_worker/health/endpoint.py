"""Answers probes over HTTP around the life of a worker, if its options name a port."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from nats_executor.retrying import end_task
from nats_worker.delivery.observer import unobserved

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from nats_executor.broker.port import Delivery
    from nats_worker.delivery.observer import Observer
    from nats_worker.health.health import Health
    from nats_worker.state import WorkerState

__all__ = ["endpoint"]


@contextlib.asynccontextmanager
async def endpoint(
    state: WorkerState, health: Health
) -> AsyncIterator[Callable[[str, Delivery], Observer]]:
    """Listen while the body runs, and yield what makes an observer for each delivery.

    Without `health_port` there is no port, and the observers do nothing.

    Raises:
        ConfigError: the port or the address cannot be had.
    """
    if not state.settings.health_port:
        yield unobserved
        return
    # Here, because they are a tenth of this process's memory.
    from nats_worker.health.metrics import Meter
    from nats_worker.health.probes import ProbeServer

    meter = Meter(state, health)
    server = ProbeServer(state.settings, health, meter.exposition)
    ticking = asyncio.create_task(health.tick_forever(), name="health")
    server.start()
    try:
        yield meter.observer
    finally:
        try:
            await end_task(ticking)
        finally:
            await asyncio.to_thread(server.stop)

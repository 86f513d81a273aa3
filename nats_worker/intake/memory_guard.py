"""Pauses the intake of a worker while the memory is nearly used up."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from nats_worker.processes import memory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats_executor.settings import Settings
    from nats_worker.processes.memory import MemoryReading

__all__ = ["Guard"]

log = logging.getLogger(__name__)

# A worker resumes so much below its limit, or it would pause and resume with every look.
MARGIN_PERCENT = 5.0


class Guard:
    """Looks at the memory with every heartbeat.

    Attributes:
        reason: why the worker is to take nothing, '' if it may.
    """

    def __init__(self, settings: Settings, read: Callable[[], MemoryReading] = memory.read) -> None:
        self._settings = settings
        self._read = read
        self.reason = ""

    async def watch_forever(
        self, pause: Callable[[], Awaitable[None]], resume: Callable[[], Awaitable[None]]
    ) -> None:
        """Call `pause` and `resume` as the memory demands, the first time at once."""
        settings = self._settings
        while settings.memory_high_percent or settings.memory_pressure_percent:
            was_paused = bool(self.reason)
            self.reason = pause_reason(self._read(), settings, is_paused=was_paused)
            if self.reason and not was_paused:
                log.warning("%s; next: taking no workloads until it is lower", self.reason)
                await pause()
            elif was_paused and not self.reason:
                log.info("there is memory again; next: taking workloads")
                await resume()
            await asyncio.sleep(settings.heartbeat_seconds)


def pause_reason(reading: MemoryReading, settings: Settings, *, is_paused: bool) -> str:
    """Return why to take no workloads, '' if nothing speaks against them. Pure."""
    share, limit = reading.used_percent, settings.memory_high_percent
    if share is not None and limit and share > allowed(limit, is_paused=is_paused):
        return f"memory is {share:.1f}% used ({reading.where}), memory_high_percent is {limit:g}"
    share, limit = reading.pressure_percent, settings.memory_pressure_percent
    if share is not None and limit and share > allowed(limit, is_paused=is_paused):
        return f"memory pressure is {share:.1f}%, memory_pressure_percent is {limit:g}"
    return ""


def allowed(limit: float, *, is_paused: bool) -> float:
    """Return the share up to which a worker goes on, or has to come down to."""
    # A limit below the margin can be met as well.
    return limit - min(MARGIN_PERCENT, limit / 2) if is_paused else limit

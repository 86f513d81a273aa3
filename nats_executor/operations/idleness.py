"""Waits until workers that were drained run nothing any more, and says how it goes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from nats_executor.errors import BrokerUnavailable
from nats_executor.fleet.workers import seen_workers, worker_state
from nats_executor.retrying import Once
from nats_executor.text import presentable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nats_executor.broker.port import Broker
    from nats_executor.fleet.presences import Seen
    from nats_executor.settings import Settings

__all__ = ["IdleWatch", "until_idle"]

IDLE_LOOK_SECONDS = 1.0


class IdleWatch:
    """Decides from look to look which workers are still waited for. Pure.

    Attributes:
        left: the workers that are still waited for, by id, with what they run, as last seen.
        failed: whether one of them did not come to its end, or was lost sight of.
    """

    def __init__(self, workers: Sequence[Seen]) -> None:
        self.left = {seen.presence.worker: seen.presence for seen in workers}
        self.failed = False
        self._told: dict[str, int] = {}

    def look(self, workers: Mapping[str, tuple[Seen, str]]) -> list[str]:
        """Take in what the records say, by id, each with its state; returns what is new."""
        lines = (self._line(worker, workers.get(worker)) for worker in list(self.left))
        return [line for line in lines if line]

    def _line(self, worker: str, found: tuple[Seen, str] | None) -> str:
        name = f"worker {presentable(self.left[worker].name)}"
        if found is None:
            del self.left[worker]
            return f"{name} has stopped"
        seen, state = found
        presence = self.left[worker] = seen.presence
        if state == "lost":
            return self._give_up(worker, f"{name} is lost, silent for {seen.age:.0f} s")
        if presence.draining:
            return self._count(worker, presence.running, name)
        if worker in self._told:
            return self._give_up(worker, f"{name} was undrained meanwhile")
        return ""  # its record may be one heartbeat behind

    def _count(self, worker: str, running: int, name: str) -> str:
        if not running:
            del self.left[worker]
            return f"{name} runs nothing any more"
        is_new = self._told.get(worker) != running
        self._told[worker] = running
        return f"{name}: {running} running" if is_new else ""

    def _give_up(self, worker: str, line: str) -> str:
        del self.left[worker]
        self.failed = True
        return line

    @property
    def rest(self) -> str:
        """Say what is still waited for."""
        parts = (f"{presentable(p.name)} ({p.running} running)" for p in self.left.values())
        return ", ".join(parts)


async def until_idle(
    broker: Broker,
    settings: Settings,
    watch: IdleWatch,
    timeout: float | None,
    tell: Callable[[str], None],
) -> bool:
    """Wait until nothing runs on any of these workers; returns whether that is so.

    Args:
        tell: gets a line about each step, and one at once when this is cancelled.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    silence = Once()
    try:
        while True:
            try:
                found = await seen_workers(broker, settings)
            except BrokerUnavailable as exc:
                if silence.is_new(str(exc)):
                    tell(f"{exc}; next: waiting until it answers")
            else:
                by_id = {s.presence.worker: (s, worker_state(s, settings)) for s in found}
                for line in watch.look(by_id):
                    tell(line)
            if not watch.left:
                return not watch.failed
            if deadline is not None and time.monotonic() >= deadline:
                tell(f"the time is over; no longer waiting for {watch.rest}; they stay drained")
                return False
            await asyncio.sleep(IDLE_LOOK_SECONDS)
    except asyncio.CancelledError:
        tell(f"no longer waiting for {watch.rest}; they stay drained, and what runs goes on")
        raise

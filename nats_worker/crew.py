"""Carries the deliveries that a worker has in hand, each in a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING, Any

from nats_executor.errors import AccessDenied, BrokerError, BrokerUnavailable
from nats_executor.text import number_of
from nats_executor.wire.descriptions import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from nats_executor.settings import Settings
    from nats_worker.delivery.errand import Errand
    from nats_worker.delivery.leases import Leases
    from nats_worker.intake.slots import Holding, Slots

__all__ = ["Crew"]

log = logging.getLogger(__name__)


class Crew:
    """Carries deliveries, as many at a time as there are slots for.

    Attributes:
        errands: those that are carried now.
        tasks: what carries them, and those that are about to be.
    """

    def __init__(self, settings: Settings, slots: Slots, leases: Leases) -> None:
        self._settings = settings
        self._slots = slots
        self._leases = leases
        self.errands: set[Errand] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        # The one that waits for slots, as long as they keep one.
        self._kept: Errand | None = None
        self._kills: set[asyncio.Task[None]] = set()

    def accept(self, errand: Errand) -> None:
        """Carry a delivery in the background; its slots are free again once its process is gone."""
        holding = self._slots.take(self.weight(errand))
        if not holding.settled.is_set():
            self._kept = errand
        task = asyncio.create_task(self.carry(errand, holding), name=f"errand {errand.dispatch_id}")
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def weight(self, errand: Errand) -> int:
        """Return how many slots a delivery asks for."""
        # Another delivery of what is here only renews its lease.
        if not self._settings.pool_slots_as_weight or errand.dispatch_id in self._leases:
            return 1
        workload = errand.record.workload
        return workload.pool_slots if workload else 1

    async def carry(self, errand: Errand, holding: Holding) -> None:
        self.errands.add(errand)
        try:
            if holding.settled.is_set() or await self.has_room(errand, holding):
                with self.starting(errand, holding):
                    await errand.carry(lambda: self._slots.give(holding))
            else:
                await errand.delivery.nak()
        except BrokerError as exc:
            # The connection itself logs what is denied.
            level = logging.DEBUG if isinstance(exc, AccessDenied) else logging.WARNING
            pause = errand.soon if isinstance(exc, BrokerUnavailable) else errand.pause
            text = "%s: %s; next: the broker offers it again in %g s"
            log.log(level, text, errand.record.name, exc, pause)
            with contextlib.suppress(BrokerError):  # then after ack_wait
                await errand.delivery.nak(pause)
        except Exception:
            log.exception("%s failed here; next: the broker offers it again", errand.record.name)
        finally:
            self._slots.conclude(holding)
            self.errands.discard(errand)

    @contextlib.contextmanager
    def starting(self, errand: Errand, holding: Holding) -> Iterator[None]:
        """Let the next workload start once this one has started, or takes too long to."""

        def end_start() -> None:
            self._slots.end_start(holding)

        errand.on_begun = end_start
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._settings.start_timeout_seconds, end_start)
        try:
            yield
        finally:
            timer.cancel()

    async def has_room(self, errand: Errand, holding: Holding) -> bool:
        """Keep a delivery until it fits; False if it is handed back instead."""
        log.info("%s waits for %s", errand.record.name, number_of(holding.weight, "slot"))
        errand.record.enter(Phase.WAITING)
        # Not claimed yet: a claim says that it is about to run here.
        lease = self._leases.hold(errand.dispatch_id, errand.delivery)
        try:
            await holding.settled.wait()
        finally:
            self._leases.drop(lease)
            if lease.delivery is not errand.delivery:
                errand.delivery = lease.delivery
                errand.read()
        errand.record.enter(Phase.LOOKING)
        return not errand.is_handed_back

    def release_kept(self) -> Errand | None:
        """End the wait of the workload that does not fit, without slots for it."""
        errand, holding = self._kept, self._slots.kept
        if errand is None or holding is None:
            return None
        self._slots.give(holding)
        return errand

    def hand_back_kept(self, queue: str = "") -> None:
        """Leave the workload that does not fit, if it is of this queue, to other workers."""
        if self._kept and queue in {"", self._kept.queue} and (errand := self.release_kept()):
            errand.is_handed_back = True

    def hand_back(self) -> None:
        """Leave to other workers what no process has here."""
        for errand in self.errands:
            errand.hand_back()
        self.hand_back_kept()

    def revoke(self, dispatch_id: str) -> bool:
        """Stop one workload because the scheduler took it back; False if it is not here."""
        # More than one while a redelivery of what runs here finds that out.
        errands = [errand for errand in self.errands if errand.dispatch_id == dispatch_id]
        for errand in errands:
            errand.revoke()
            self._later(self._settings.kill_seconds, errand.kill)
            if errand is self._kept:
                self.release_kept()
        return bool(errands)

    def signal(self, sig: signal.Signals | None) -> None:
        """Signal the process groups of all tasks; SIGKILL ends starts that hang, too."""
        for errand in self.errands:
            if sig is signal.SIGKILL:
                self._later(0.0, errand.kill)
            elif sig is not None:
                errand.signal(sig)

    def _later(self, seconds: float, kill: Callable[[], Coroutine[Any, Any, None]]) -> None:
        def act() -> None:
            task = asyncio.create_task(kill(), name="kill")
            self._kills.add(task)
            task.add_done_callback(self._kills.discard)

        asyncio.get_running_loop().call_later(seconds, act)

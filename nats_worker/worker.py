"""The worker: announce, consume until asked to stop, drain, retire."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats_executor.broker import connect
from nats_executor.errors import AccessDenied, BrokerError, BrokerUnavailable, DecodeError
from nats_executor.liveness import Liveness
from nats_executor.messages import Presence, encode
from nats_worker.control import serve_changes
from nats_worker.guard import Guard
from nats_worker.health import Health
from nats_worker.intake import Intake
from nats_worker.lease import Leases
from nats_worker.pool import ProcessPool
from nats_worker.presence import Announcer
from nats_worker.record import Surroundings
from nats_worker.slots import Slots, weight_of
from nats_worker.task_logs import serve_log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from typing import Any

    from nats_executor.ports import Broker, Delivery
    from nats_executor.settings import Settings
    from nats_worker.errand import Errand
    from nats_worker.slots import Seat

__all__ = ["Plan", "Worker", "background"]

log = logging.getLogger(__name__)

# Reports of ended tasks get this long to reach the broker after everything has stopped.
FAREWELL_SECONDS = 10.0
RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a worker was started to do.

    Attributes:
        cleanup_seconds: how often to remove stale versions of Dag bundles, 0 for never.
        version: of this distribution, for the presence record.
        serves_logs: whether to serve this host's task logs to the UI.
    """

    name: str
    queues: tuple[str, ...]
    concurrency: int
    team: str | None
    cleanup_seconds: float
    version: str
    serves_logs: bool = False
    log_folder: str = ""  # Airflow's `base_log_folder`


class Worker:
    """One worker process; `run` is its life.

    Attributes:
        id: unique for each start, so that a restarted worker is never taken for its predecessor.
        queues: those that it serves now; `control` changes them and the slots while it runs.
        intake: what pulls from them, once it does.
        stop_requests: signals to stop so far; each one makes the drain less patient.
    """

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.settings = settings
        self.plan = plan
        self.id = f"{plan.name}.{secrets.token_hex(4)}"
        self.queues = list(dict.fromkeys(plan.queues))
        self.slots = Slots(plan.concurrency)
        self.guard = Guard(settings)
        self.leases = Leases(settings.ack_wait_seconds)
        self.stop_requests = 0
        self._stop_requested = asyncio.Event()
        self.intake: Intake | None = None
        self.health = Health(self)
        # The one that waits for slots, as long as they keep one.
        self._kept: Errand | None = None
        self.is_draining = False
        self._announcer: Announcer | None = None
        self._errands: set[Errand] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._started_at = time.time()

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT, then drain.

        Raises:
            ConfigError: the port for probes cannot be had.
            NameTaken: another worker of this name runs.
            PoolBroken: the fork server dies again and again.
        """
        self.listen_to_signals()
        async with (
            self.health,
            ProcessPool(
                team=self.plan.team,
                workloads_per_supervisor=self.settings.workloads_per_supervisor,
                serves_logs=self.plan.serves_logs,
            ) as pool,
            connect(self.settings, role=f"worker {self.plan.name}") as broker,
        ):
            self.health.watch(pool, broker)
            announcer = self._announcer = Announcer(broker, self.settings, self.describe)
            # All go on while the worker drains: its tasks run, and it is seen.
            async with background(
                self.leases.renew_forever(),
                announcer.beat_forever(),
                self.guard.watch_forever(self.pause, self.resume),
            ):
                try:
                    await self.until_asked_to_stop(self.work(broker, pool, announcer))
                finally:
                    await self.drain(announcer)

    def listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self.ask_to_stop, sig)

    def ask_to_stop(self, sig: signal.Signals) -> None:
        self.stop_requests += 1
        log.info("%s: stop request %d", sig.name, self.stop_requests)
        self._stop_requested.set()

    async def until_asked_to_stop(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its failure or to the first stop request."""
        working = asyncio.create_task(work, name="work")
        asked = asyncio.create_task(self._stop_requested.wait(), name="stop request")
        try:
            await asyncio.wait({working, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            # nats-py swallows a cancellation that meets a subscription, so once is not enough.
            while not working.done():
                working.cancel()
                await asyncio.wait([working], timeout=0.1)
            if not working.cancelled():
                working.result()

    # Working

    async def work(self, broker: Broker, pool: ProcessPool, announcer: Announcer) -> None:
        """Announce this worker and consume; ends only by an error or by being cancelled."""
        await self.enter(broker, announcer)
        await pool.ready()
        around = Surroundings(
            broker,
            self.settings,
            pool,
            self.leases,
            Liveness(broker, self.settings, is_peer=True),
            self.id,
            self.plan.name,
        )
        log.info(
            "worker %s is ready: queues %s, %d slots",
            self.plan.name,
            ", ".join(self.queues),
            self.slots.concurrency,
        )

        def accept(queue: str, delivery: Delivery) -> None:
            self.accept(self.health.errand(around, queue, delivery))

        intake = self.intake = Intake(broker, self.settings, self.queues, self.slots, accept)
        async with asyncio.TaskGroup() as group:
            group.create_task(intake.run(), name="intake")
            group.create_task(pool.broken(), name="process pool")
            group.create_task(self.clean_up_bundles(pool), name="bundles")

    async def enter(self, broker: Broker, announcer: Announcer) -> None:
        """Wait for the broker and its streams for as long as it takes, and take the name.

        Why there is no connection, and what is denied on it, the connection itself tells.
        """
        said = ""
        is_served = False
        while True:
            try:
                await broker.ready(self.settings.connect_timeout_seconds)
                if not is_served:
                    await self.serve_control(broker)
                    is_served = True
                await announcer.claim_name()
            except BrokerError as exc:
                if broker.is_connected and not isinstance(exc, AccessDenied) and str(exc) != said:
                    said = str(exc)
                    log.warning("waiting for NATS: %s; next: asking until it answers", said)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    def accept(self, errand: Errand) -> None:
        """Carry a delivery in the background; its slots are free again once its process is gone."""
        seat = self.slots.take(self.weight(errand))
        if not seat.settled.is_set():
            self._kept = errand
        task = asyncio.create_task(self.carry(errand, seat), name=f"errand {errand.dispatch_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def weight(self, errand: Errand) -> int:
        """Return how many slots a delivery asks for."""
        # Another delivery of what is here only renews its lease.
        if not self.settings.pool_slots_as_weight or errand.dispatch_id in self.leases:
            return 1
        try:
            return weight_of(errand.read().body)
        except DecodeError:
            return 1

    async def carry(self, errand: Errand, seat: Seat) -> None:
        def give_slots() -> None:
            self.slots.give(seat)

        self._errands.add(errand)
        try:
            if seat.settled.is_set() or await self.has_room(errand, seat):
                await errand.carry(give_slots)
            else:
                await errand.delivery.nak()
        except BrokerError as exc:
            # Of what is denied, the connection itself tells.
            level = logging.DEBUG if isinstance(exc, AccessDenied) else logging.WARNING
            pause = errand.soon if isinstance(exc, BrokerUnavailable) else errand.pause
            text = "%s: %s; next: the broker offers it again in %g s"
            log.log(level, text, errand.dispatch_id, exc, pause)
            with contextlib.suppress(BrokerError):  # then after ack_wait
                await errand.delivery.nak(pause)
        except Exception:
            log.exception("%s failed here; next: the broker offers it again", errand.dispatch_id)
        finally:
            give_slots()
            self._errands.discard(errand)

    async def has_room(self, errand: Errand, seat: Seat) -> bool:
        """Keep a delivery until it fits; False if it is handed back instead."""
        log.info("%s waits for %d slots", errand.dispatch_id, seat.weight)
        # Not claimed yet: a claim says that it is about to run here.
        lease = self.leases.hold(errand.dispatch_id, errand.delivery)
        try:
            await seat.settled.wait()
        finally:
            self.leases.let_go(lease)
            errand.delivery = lease.delivery
        return not errand.is_handed_back

    def release_kept(self) -> Errand | None:
        """End the wait of the workload that does not fit, without slots for it."""
        errand, seat = self._kept, self.slots.kept
        if errand is None or seat is None:
            return None
        self.slots.give(seat)
        return errand

    def hand_back_kept(self, queue: str = "") -> None:
        """Leave the workload that does not fit, if it is of this queue, to other workers."""
        if self._kept and queue in {"", self._kept.queue} and (errand := self.release_kept()):
            errand.is_handed_back = True

    async def clean_up_bundles(self, pool: ProcessPool) -> None:
        while self.plan.cleanup_seconds:
            await asyncio.sleep(self.plan.cleanup_seconds)
            pool.cleanup_bundles()

    # Control

    async def serve_control(self, broker: Broker) -> None:
        names = self.settings.names

        async def ping(_: bytes) -> bytes:
            return encode(self.describe())

        async def stop(body: bytes) -> bytes:
            return self.revoke(body.decode("utf-8", "replace"))

        await broker.serve(names.control(self.id, "ping"), ping)
        await broker.serve(names.peer(self.id), ping)
        await broker.serve(names.control(self.id, "stop"), stop)
        await serve_changes(broker, names, self)
        await serve_log(broker, names, self.id, self.plan.log_folder, self._errands)

    def revoke(self, dispatch_id: str) -> bytes:
        """Stop one workload because the scheduler took it back."""
        # More than one while a redelivery of what runs here finds that out.
        errands = [errand for errand in self._errands if errand.dispatch_id == dispatch_id]
        for errand in errands:
            errand.is_revoked = True
            errand.signal(signal.SIGTERM)
            kill_after = self.settings.kill_seconds
            asyncio.get_running_loop().call_later(kill_after, errand.signal, signal.SIGKILL)
            if errand is self._kept:
                self.release_kept()
        return b"stopping" if errands else b"unknown"

    async def beat(self) -> None:
        """Renew the record now, so that everybody sees a change."""
        if self._announcer:
            await self._announcer.beat()

    async def pause(self) -> None:
        """Take nothing until `resume`; what runs goes on."""
        self.slots.pause()
        self.hand_back_kept()  # another worker may have the memory
        if self.intake:
            self.intake.recall()
        await self.beat()

    async def resume(self) -> None:
        self.slots.resume()
        await self.beat()

    def describe(self) -> Presence:
        return Presence(
            worker=self.id,
            name=self.plan.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=list(self.queues),
            concurrency=self.slots.concurrency,
            running=self.slots.used,
            draining=self.is_draining,
            started_at=self._started_at,
            at=time.time(),
            version=self.plan.version,
            bands=len(self.settings.priority_bands) + 1,
            paused=self.guard.reason,
        )

    # Draining

    async def drain(self, announcer: Announcer) -> None:
        """Let running tasks end; then SIGTERM, then SIGKILL their process groups; then report.

        Each further stop request moves one step on at once.
        """
        self.is_draining = True
        await announcer.beat()
        for errand in self._errands:
            errand.hand_back()
        self.hand_back_kept()
        steps = (
            (self.settings.drain_seconds, None),
            (self.settings.kill_seconds, signal.SIGTERM),
            (FAREWELL_SECONDS, signal.SIGKILL),
        )
        for step, (seconds, sig) in enumerate(steps, start=1):
            if not self._tasks:
                break
            log.info("draining: %d workloads left, next step in %g s", len(self._tasks), seconds)
            self.signal_all(sig)
            await self.patience(seconds, step)
        if self._tasks:
            log.warning("leaving %d workloads to other workers", len(self._tasks))
        await announcer.retire()

    def signal_all(self, sig: signal.Signals | None) -> None:
        for errand in self._errands:
            if sig is not None:
                errand.signal(sig)

    async def patience(self, seconds: float, step: int) -> None:
        """Wait until nothing runs, the time is over, or a stop request asks for the next step."""
        deadline = time.monotonic() + seconds
        while self._tasks and self.stop_requests <= step and time.monotonic() < deadline:
            self._stop_requested.clear()
            asked = asyncio.create_task(self._stop_requested.wait(), name="stop request")
            left = max(0.0, deadline - time.monotonic())
            await asyncio.wait(
                {asked, *self._tasks}, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            asked.cancel()


@contextlib.asynccontextmanager
async def background(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run endless coroutines beside the body, which ends when one of them fails."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

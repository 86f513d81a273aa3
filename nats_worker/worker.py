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

from nats_executor.broker.connection import connect
from nats_executor.errors import AccessDenied, BrokerError
from nats_executor.fleet.liveness import Liveness
from nats_executor.wire.messages import Presence
from nats_worker.control.logs import serve_log
from nats_worker.control.orders import serve_changes, serve_pings
from nats_worker.control.presence import Announcer
from nats_worker.crew import Crew
from nats_worker.delivery.leases import Leases
from nats_worker.delivery.record import Surroundings
from nats_worker.health.health import Health
from nats_worker.intake.intake import Intake
from nats_worker.intake.memory_guard import Guard
from nats_worker.intake.slots import Slots
from nats_worker.processes.fitness import Takes
from nats_worker.processes.pool import ProcessPool
from nats_worker.processes.proof import Proof
from nats_worker.uploads.process import Uploads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from typing import Any

    from nats_executor.broker.port import Broker, Delivery
    from nats_executor.settings import Settings

__all__ = ["Plan", "Worker", "background"]

log = logging.getLogger(__name__)

# Reports of ended tasks get this long to reach the broker after everything has stopped.
FAREWELL_SECONDS = 10.0
RETRY_SECONDS = 0.5
# What a worker may pause for, at once too.
MEMORY, STARTS = "memory", "starts"


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
        self.proof = Proof(self.follow_proof)
        self.leases = Leases(settings.ack_wait_seconds)
        self.crew = Crew(settings, self.slots, self.leases)
        self.stop_requests = 0
        self._stop_requested = asyncio.Event()
        self.intake: Intake | None = None
        self.health = Health(self)
        self.is_draining = False
        self._announcer: Announcer | None = None
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
            # Around the processes of tasks, because these store their logs last.
            Uploads(self.settings, is_wanted=self.stores_logs) as uploads,
            ProcessPool(
                team=self.plan.team,
                workloads_per_supervisor=self.settings.workloads_per_supervisor,
                serves_logs=self.plan.serves_logs,
                uploads=uploads.door,
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

    @property
    def stores_logs(self) -> bool:
        """Whether this worker keeps task logs in NATS; those of a team's tasks stay here."""
        return self.settings.stores_logs and not self.plan.team

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
            self.proof.fitness,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(pool.broken(), name="process pool")
            group.create_task(self.proof.watch_forever(pool, self.beat), name="self-tests")
            group.create_task(self.clean_up_bundles(pool), name="bundles")
            await self.proof.given()
            await self.take_workloads(around)

    async def take_workloads(self, around: Surroundings) -> None:
        """Pull from the queues, for ever."""
        log.info(
            "worker %s is ready: queues %s, %d slots",
            self.plan.name,
            ", ".join(self.queues),
            self.slots.concurrency,
        )

        def accept(queue: str, delivery: Delivery) -> None:
            self.crew.accept(self.health.errand(around, queue, delivery))

        self.intake = Intake(around.broker, self.settings, self.queues, self.slots, accept)
        await self.intake.run()

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

    async def clean_up_bundles(self, pool: ProcessPool) -> None:
        while self.plan.cleanup_seconds:
            await asyncio.sleep(self.plan.cleanup_seconds)
            pool.cleanup_bundles()

    # Control

    async def serve_control(self, broker: Broker) -> None:
        names = self.settings.names

        async def stop(body: bytes) -> bytes:
            is_here = self.crew.revoke(body.decode(errors="replace"))
            return b"stopping" if is_here else b"unknown"

        await serve_pings(broker, names, self, self.crew.errands)
        await broker.serve(names.control(self.id, "stop"), stop)
        await serve_changes(broker, names, self)
        await serve_log(broker, names, self.id, self.plan.log_folder, self.crew.errands)

    async def beat(self) -> None:
        """Renew the record now, so that everybody sees a change."""
        if self._announcer:
            await self._announcer.beat()

    async def take_name_in(self, queue: str) -> None:
        """Write the record of a queue that it will serve; raises what `Announcer.claim_in` does."""
        if self._announcer:
            await self._announcer.claim_in(queue)

    @property
    def paused(self) -> str:
        """Why it takes nothing at the moment, '' if it does."""
        return "; ".join(filter(None, (self.proof.reason, self.guard.reason)))

    async def pause(self) -> None:
        """Take nothing until `resume`, for want of memory; what runs goes on."""
        self.take_nothing(MEMORY)
        await self.beat()

    async def resume(self) -> None:
        self.slots.resume(MEMORY)
        await self.beat()

    def follow_proof(self) -> None:
        """Take as much as the starts here allow."""
        takes = self.proof.fitness.takes
        self.slots.limit(is_on_trial=takes is Takes.ONE)
        if takes is Takes.NOTHING:
            self.take_nothing(STARTS)
        else:
            self.slots.resume(STARTS)

    def take_nothing(self, why: str) -> None:
        self.slots.pause(why)
        self.crew.hand_back_kept()  # another worker may have what is missing here
        if self.intake:
            self.intake.recall()

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
            paused=self.paused,
        )

    # Draining

    async def drain(self, announcer: Announcer) -> None:
        """Let running tasks end; then SIGTERM, then SIGKILL their process groups; then report.

        Each further stop request moves one step on at once.
        """
        self.is_draining = True
        await announcer.beat()
        self.crew.hand_back()
        steps = (
            (self.settings.drain_seconds, None),
            (self.settings.kill_seconds, signal.SIGTERM),
            (FAREWELL_SECONDS, signal.SIGKILL),
        )
        for step, (seconds, sig) in enumerate(steps, start=1):
            if not self.crew.tasks:
                break
            left = len(self.crew.tasks)
            log.info("draining: %d workloads left, next step in %g s", left, seconds)
            self.crew.signal(sig)
            await self.patience(seconds, step)
        if self.crew.tasks:
            log.warning("leaving %d workloads to other workers", len(self.crew.tasks))
        await announcer.retire()

    async def patience(self, seconds: float, step: int) -> None:
        """Wait until nothing runs, the time is over, or a stop request asks for the next step."""
        deadline = time.monotonic() + seconds
        while self.crew.tasks and self.stop_requests <= step and time.monotonic() < deadline:
            self._stop_requested.clear()
            asked = asyncio.create_task(self._stop_requested.wait(), name="stop request")
            left = max(0.0, deadline - time.monotonic())
            await asyncio.wait(
                {asked, *self.crew.tasks}, timeout=left, return_when=asyncio.FIRST_COMPLETED
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

"""Runs a worker: it announces itself, consumes until it is asked to stop, drains and retires."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import time
from typing import TYPE_CHECKING

from nats_executor.broker.connection import connect
from nats_executor.errors import AccessDenied, BrokerError
from nats_executor.fleet.drains import LONGEST_PERSON, LONGEST_REMARK
from nats_executor.fleet.liveness import Liveness
from nats_executor.retrying import Once, end_task
from nats_executor.text import number_of, presentable
from nats_executor.wire.names import is_probe
from nats_worker.control.descriptions import serve_descriptions
from nats_worker.control.drains import Drains
from nats_worker.control.logs import serve_log
from nats_worker.control.orders import serve_changes, serve_pings, serve_stops
from nats_worker.control.presence import Announcer
from nats_worker.crew import Crew
from nats_worker.delivery.errand import Errand
from nats_worker.delivery.leases import Leases
from nats_worker.delivery.probes import ProbeErrand
from nats_worker.delivery.shared import Shared
from nats_worker.health.endpoint import endpoint
from nats_worker.health.health import Health
from nats_worker.intake.admission import Admission
from nats_worker.intake.intake import Intake
from nats_worker.intake.memory_guard import Guard
from nats_worker.intake.processors import processors
from nats_worker.intake.slots import Slots
from nats_worker.processes.fitness import Takes
from nats_worker.processes.pool import ProcessPool, Warmth
from nats_worker.processes.proof import Proof
from nats_worker.state import WorkerState
from nats_worker.uploads.process import Uploads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from typing import Any

    from nats_executor.broker.port import Broker, Delivery
    from nats_executor.settings import Settings
    from nats_executor.wire.messages import ShutDown
    from nats_worker.delivery.observer import Observer
    from nats_worker.state import Plan

__all__ = ["Worker"]

log = logging.getLogger(__name__)

# Reports of ended tasks get this long to reach the broker after everything has stopped.
LAST_REPORTS_SECONDS = 10.0
ENTER_RETRY_SECONDS = 0.5
# Reasons to pause; there may be both at a time.
MEMORY, STARTS = "memory", "starts"


class Worker:
    """One worker process; `run` is its life.

    Attributes:
        state: what it is now.
        crew: carries what it was delivered.
        drains: whether an operator has drained it.
    """

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.state = WorkerState(
            id=f"{plan.name}.{secrets.token_hex(4)}",
            plan=plan,
            settings=settings,
            queues=list(dict.fromkeys(plan.queues)),
            slots=Slots(plan.concurrency, Admission(settings.starts_at_once, processors())),
            guard=Guard(settings),
            proof=Proof(self.follow_proof),
        )
        self.leases = Leases(settings.ack_wait_seconds, self._have_asked)
        self.crew = Crew(settings, self.state.slots, self.leases)
        self.drains = Drains(self.state, self.crew)
        self.health = Health(self.state)
        self._settings = settings
        self._stop_requested = asyncio.Event()

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT, then drain.

        Raises:
            ConfigError: the port for probes cannot be had.
            NameTaken: another worker of this name runs.
            PoolBroken: the fork server dies again and again.
        """
        self.listen_to_signals()
        async with (
            endpoint(self.state, self.health) as observer,
            # Around the processes of tasks, because these store their logs last.
            Uploads(self._settings, is_wanted=self.stores_logs) as uploads,
            ProcessPool(
                team=self.state.plan.team,
                workloads_per_supervisor=self._settings.workloads_per_supervisor,
                serves_logs=self.state.plan.serves_logs,
                # Airflow finds the port of the logs by the host's own name.
                shown_as="" if self.state.plan.serves_logs else self.state.plan.name,
                uploads=uploads.to_uploader,
                warmth=Warmth(
                    self._settings.dag_zygotes, tuple(self._settings.preload_modules or ())
                ),
            ) as pool,
            connect(self._settings, role=f"worker {self.state.plan.name}") as broker,
        ):
            self.health.watch(pool, broker)
            announcer = Announcer(broker, self._settings, self.state.presence)
            # All go on while the worker drains: its tasks run, and it is seen.
            async with background(
                self.leases.renew_forever(),
                announcer.beat_forever(),
                self.watch_memory(announcer),
            ):
                try:
                    await self.until_asked_to_stop(self.work(broker, pool, announcer, observer))
                finally:
                    pool.retire_zygotes()
                    await self.drain(announcer)

    @property
    def stores_logs(self) -> bool:
        """Whether this worker keeps task logs in NATS; those of a team's tasks stay here."""
        return self._settings.stores_logs and not self.state.plan.team

    def listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self.ask_to_stop, sig)

    def ask_to_stop(self, sig: signal.Signals) -> None:
        self.state.stop_requests += 1
        log.info("%s: stop request %d", sig.name, self.state.stop_requests)
        self._stop_requested.set()

    def obey_shut_down(self, order: ShutDown) -> bool:
        """Stop as by a signal, or by one more to end the tasks; False if nothing is new in that."""
        before = self.state.stop_requests
        wanted = max(before + 1, 2) if order.is_now else max(before, 1)
        who, why = order.by[:LONGEST_PERSON] or "unknown", order.reason[:LONGEST_REMARK]
        log.warning(
            "stop %sordered by %s%s: stop request %d",
            "at once " if order.is_now else "",
            presentable(who),
            f" ({presentable(why)})" if why else "",
            wanted,
        )
        self.state.stop_requests = wanted
        self._stop_requested.set()
        return wanted > before

    async def until_asked_to_stop(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its failure or to the first stop request."""
        working = asyncio.create_task(work, name="work")
        asked = asyncio.create_task(self._stop_requested.wait(), name="stop request")
        try:
            await asyncio.wait({working, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            await end_task(working)

    # Working

    async def work(
        self,
        broker: Broker,
        pool: ProcessPool,
        announcer: Announcer,
        observer: Callable[[str, Delivery], Observer],
    ) -> None:
        """Announce this worker and consume; ends only by an error or by being cancelled."""
        await self.enter(broker, announcer)
        await pool.ready()
        state = self.state
        shared = Shared(
            broker,
            self._settings,
            pool,
            self.leases,
            Liveness(broker, self._settings, is_peer=True),
            state.id,
            state.plan.name,
            state.proof.fitness,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(pool.broken(), name="process pool")
            group.create_task(state.proof.watch_forever(pool, announcer.beat), name="self-tests")
            group.create_task(self.clean_up_bundles(pool), name="bundles")
            await state.proof.given()
            await self.take_workloads(shared, observer)

    async def take_workloads(
        self, shared: Shared, observer: Callable[[str, Delivery], Observer]
    ) -> None:
        """Pull from the queues, for ever."""
        state = self.state
        log.info(
            "worker %s is ready: queues %s, %s",
            state.plan.name,
            ", ".join(state.queues),
            number_of(state.slots.concurrency, "slot"),
        )

        def accept(queue: str, delivery: Delivery) -> None:
            dispatch_id = self._settings.names.place(delivery.subject).dispatch_id
            if is_probe(dispatch_id):  # no workload of Airflow, and no metric counts it
                self.crew.accept(ProbeErrand(shared, queue, delivery))
            else:
                self.crew.accept(Errand(shared, queue, delivery, observer(queue, delivery)))

        state.intake = Intake(shared.broker, self._settings, state.queues, state.slots, accept)
        await state.intake.run()

    async def _have_asked(self) -> None:
        """Return once the slots that are free were asked for."""
        if self.state.intake:
            await self.state.intake.looked()

    async def enter(self, broker: Broker, announcer: Announcer) -> None:
        """Wait for the broker and its streams for as long as it takes, and take the name.

        The connection itself logs why it is not there, and what is denied on it.
        """
        told = Once()
        is_served = False
        while True:
            try:
                await broker.ready(self._settings.connect_timeout_seconds)
                if not is_served:
                    await self.serve_control(broker, announcer)
                    is_served = True
                await announcer.claim_name()
                if await self.drains.look_up(broker):
                    await announcer.beat()
            except BrokerError as exc:
                is_told = not broker.is_connected or isinstance(exc, AccessDenied)
                if not is_told and told.is_new(str(exc)):
                    log.warning("waiting for NATS: %s; next: asking until it answers", exc)
                await asyncio.sleep(ENTER_RETRY_SECONDS)
            else:
                return

    async def serve_control(self, broker: Broker, announcer: Announcer) -> None:
        """Answer what others ask of this worker, for as long as the connection lives."""
        await serve_pings(broker, self.state, self.crew.errands)
        await serve_stops(broker, self.state, self.crew)
        await serve_changes(
            broker, self.state, self.crew, announcer, self.drains, self.obey_shut_down
        )
        await serve_log(broker, self.state, self.crew.errands)
        await serve_descriptions(broker, self.state, self.crew.errands)

    async def clean_up_bundles(self, pool: ProcessPool) -> None:
        while self.state.plan.cleanup_seconds:
            await asyncio.sleep(self.state.plan.cleanup_seconds)
            pool.cleanup_bundles()

    # Pausing

    async def watch_memory(self, announcer: Announcer) -> None:
        """Pause the intake while memory is short, for ever."""

        async def pause() -> None:
            self.take_nothing(MEMORY)
            await announcer.beat()

        async def resume() -> None:
            self.state.slots.resume(MEMORY)
            await announcer.beat()

        await self.state.guard.watch_forever(pause, resume)

    def follow_proof(self) -> None:
        """Take as much as the starts here allow."""
        takes = self.state.proof.fitness.takes
        self.state.slots.limit(is_on_trial=takes is Takes.ONE)
        if takes is Takes.NOTHING:
            self.take_nothing(STARTS)
        else:
            self.state.slots.resume(STARTS)

    def take_nothing(self, why: str) -> None:
        """Take nothing until the slots resume; tasks that run go on."""
        self.state.slots.pause(why)
        self.crew.hand_back_kept()  # another worker may have what is missing here
        self.state.recall()

    # Draining

    async def drain(self, announcer: Announcer) -> None:
        """Let running tasks end; then SIGTERM, then SIGKILL their process groups; then report.

        Each further stop request moves one step on at once.
        """
        self.state.is_draining = True
        await announcer.beat()
        self.crew.hand_back()
        steps = (
            (self._settings.drain_seconds, None),
            (self._settings.kill_seconds, signal.SIGTERM),
            (LAST_REPORTS_SECONDS, signal.SIGKILL),
        )
        for step, (seconds, sig) in enumerate(steps, start=1):
            if not self.crew.tasks:
                break
            left = number_of(len(self.crew.tasks), "workload")
            log.info("draining: %s left, next step in %g s", left, seconds)
            self.crew.signal(sig)
            await self.patience(seconds, step)
        if self.crew.tasks:
            left = number_of(len(self.crew.tasks), "workload")
            log.warning("leaving %s to other workers", left)
        await announcer.retire()

    async def patience(self, seconds: float, step: int) -> None:
        """Wait until nothing runs, the time is over, or a stop request asks for the next step."""
        deadline = time.monotonic() + seconds
        while self.crew.tasks and self.state.stop_requests <= step and time.monotonic() < deadline:
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

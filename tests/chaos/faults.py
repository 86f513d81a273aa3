"""Carries a plan out on the processes, and finds out when what was hurt has recovered."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from nats_worker.processes import children_of
from tests.chaos.database import Behaviour, Database
from tests.chaos.injections import Injection, Span
from tests.chaos.plan import Fault, Kind
from tests.chaos.recovery import left_by, moved_on, starts_again, went_on
from tests.chaos.supervision import without_api
from tests.chaos.victims import Victims

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.chaos.database import Execution
    from tests.chaos.processes import Member
    from tests.chaos.scene import Scene
    from tests.support.nats_server import NatsServer

__all__ = ["Injector"]

# A fault that finds nothing to hurt looks again for this long.
SEARCH_SECONDS = 4.0
POLL_SECONDS = 0.02
# What a fault takes at most to start a server again.
STOP_SECONDS = 25.0

Victim = TypeVar("Victim")


class NoVictim(Exception):
    """There was nothing to hurt."""


@dataclass(slots=True)
class Injector:
    """Every fault in a thread of its own, because some last while others begin."""

    scene: Scene
    injections: list[Injection] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    cut_off: list[Span] = field(default_factory=list)
    api_outages: list[Span] = field(default_factory=list)
    hurt: set[int] = field(default_factory=set)
    wiped_at: float = 0.0
    stopping: threading.Event = field(default_factory=threading.Event)
    broker: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, fault: Fault) -> None:
        injection = Injection(fault)
        self.injections.append(injection)
        thread = threading.Thread(target=self.carry_out, args=(injection,), daemon=True)
        self.threads.append(thread)
        thread.start()

    @property
    def is_busy(self) -> bool:
        return any(thread.is_alive() for thread in self.threads)

    @property
    def waiting(self) -> list[Injection]:
        """Those that have not recovered yet."""
        return [i for i in self.injections if i.has_recovered and i.recovered is None]

    def stop(self) -> None:
        """Have every fault end now, so that none starts a process while all are stopped."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(STOP_SECONDS)

    def watch(self, database: Database) -> None:
        for injection in self.waiting:
            if injection.has_recovered and injection.has_recovered(database):
                injection.recovered = time.monotonic()

    def carry_out(self, injection: Injection) -> None:
        database = Database(self.scene.directory / "database", teller="driver")
        try:
            Blow(self, injection, database).strike()
        except NoVictim:
            injection.problem = "nothing to hurt"
        except Exception as exc:  # noqa: BLE001 - the report shows it, and the run fails
            injection.problem = f"not carried out: {type(exc).__name__}: {exc!s:.150}"
        finally:
            database.close()


class Blow:
    """One fault being carried out."""

    def __init__(self, injector: Injector, injection: Injection, database: Database) -> None:
        self.injector = injector
        self.scene = injector.scene
        self.injection = injection
        self.fault = injection.fault
        self.database = database
        self.victims = Victims(self.scene, database)

    def strike(self) -> None:
        kind = self.fault.kind
        if kind in WORKER_FAULTS:
            candidates, carry_out = WORKER_FAULTS[kind]
            carry_out(self, self.find(partial(candidates, self.victims)))
        elif kind in PROCESS_FAULTS:
            PROCESS_FAULTS[kind](self, self.find(self.victims.running))
        elif kind in BROKER_FAULTS:
            # The one before may still wait for its server.
            with self.injector.broker:
                BROKER_FAULTS[kind](self, self.pick(self.scene.servers))
        else:
            OTHER_FAULTS[kind](self)

    # Finding a victim

    def find(self, candidates: Callable[[], Sequence[Victim]]) -> Victim:
        """Return one of what there is to hurt, as soon as there is any."""
        deadline = time.monotonic() + SEARCH_SECONDS
        while not (found := candidates()):
            if time.monotonic() > deadline or self.injector.stopping.is_set():
                raise NoVictim
            time.sleep(POLL_SECONDS)
        return self.pick(found)

    def pick(self, candidates: Sequence[Victim]) -> Victim:
        return candidates[self.fault.target % len(candidates)]

    def hit(self, victim: str) -> None:
        """Note that it happens now."""
        self.injection.victim = victim
        self.injection.began = self.injection.since = time.monotonic()

    def last(self) -> None:
        """Let the fault last; a run that is stopped waits for none."""
        self.injector.stopping.wait(self.fault.seconds)

    def recovers(self, check: Callable[[Database], bool], *, since: float | None = None) -> None:
        self.injection.since = since or self.injection.since
        self.injection.has_recovered = check

    # Workers and what is below them

    def worker_ended(self, worker: Member, how: signal.Signals) -> None:
        ran = self.database.executions("outcome = 'running' AND worker = ?", worker.pid)
        self.hit(f"{worker.name} (process {worker.pid})")
        self.injector.hurt.add(worker.pid)
        worker.end(how)
        self.recovers(went_on(ran))
        self.last()
        worker.start()

    def worker_killed(self, worker: Member) -> None:
        self.worker_ended(worker, signal.SIGKILL)

    def worker_stopped(self, worker: Member) -> None:
        self.worker_ended(worker, signal.SIGTERM)

    def worker_replaced(self, worker: Member) -> None:
        release = self.scene.change_release(worker)
        self.worker_ended(worker, signal.SIGTERM)
        self.injection.victim += f", now of {release}"

    def worker_frozen(self, worker: Member) -> None:
        pid = worker.pid
        ran = self.database.executions("outcome = 'running' AND worker = ?", pid)
        self.hit(f"{worker.name} (process {pid})")
        self.injector.hurt.add(pid)
        worker.signal(signal.SIGSTOP)
        self.recovers(went_on(ran))
        self.last()
        worker.signal(signal.SIGCONT)
        self.injector.cut_off.append(Span(pid, self.injection.began, time.monotonic()))

    def worker_cut_off(self, worker: Member) -> None:
        """Cut it off for so long that it counts as lost."""
        ran = self.database.executions("outcome = 'running' AND worker = ?", worker.pid)
        self.injector.hurt.add(worker.pid)
        self.cut(worker)
        self.recovers(went_on(ran))

    def worker_cut_short(self, worker: Member) -> None:
        """Cut it off for so long that others are offered what it runs, and still leave it alone.

        So nothing that it runs is an excuse: it is not noted as hurt.
        """
        self.cut(worker)
        now = time.monotonic()
        self.recovers(starts_again(now), since=now)

    def cut(self, worker: Member) -> None:
        pid = worker.pid
        self.hit(f"{worker.name} (process {pid})")
        for cable in self.scene.cables[worker.name]:
            cable.cut()
        self.last()
        for cable in self.scene.cables[worker.name]:
            cable.mend()
        self.injector.cut_off.append(Span(pid, self.injection.began, time.monotonic()))

    def worker_without_api(self, worker: Member) -> None:
        pid = worker.pid
        ran = self.database.executions("outcome = 'running' AND worker = ?", pid)
        self.hit(f"{worker.name} (process {pid})")
        with without_api(self.scene.directory, pid):
            self.last()
        now = time.monotonic()
        self.injector.api_outages.append(Span(pid, self.injection.began, now))
        self.recovers(went_on(ran), since=now)

    def fork_server_killed(self, execution: Execution) -> None:
        ran = self.database.executions("outcome = 'running' AND worker = ?", execution.worker)
        servers = children_of(execution.worker)
        self.hit(f"fork server {servers} of worker process {execution.worker}")
        self.injector.hurt.add(execution.worker)
        for server in servers:
            kill(server)
        self.recovers(went_on(ran))

    def supervisor_killed(self, execution: Execution) -> None:
        self.hit(f"supervisor {execution.supervisor} of w{execution.number}")
        self.injector.hurt.add(execution.supervisor)
        kill(execution.supervisor)
        self.recovers(went_on([execution]))

    def task_killed(self, execution: Execution) -> None:
        self.hit(f"process {execution.pid} of w{execution.number}")
        self.injector.hurt.add(execution.pid)
        kill(execution.pid)
        self.recovers(went_on([execution]))

    # Schedulers

    def scheduler_ended(self) -> None:
        living = [s for s in self.scene.schedulers if s.is_kept and s.is_alive]
        scheduler = self.pick(living)
        jobs = [job.id for job in self.database.jobs() if job.pid == scheduler.pid]
        self.hit(f"{scheduler.name} (job {jobs})")
        if self.fault.kind is Kind.SCHEDULER_REPLACED:
            self.injection.victim += f", now of {self.scene.change_release(scheduler)}"
        is_kill = self.fault.kind is Kind.SCHEDULER_KILLED
        scheduler.end(signal.SIGKILL if is_kill else signal.SIGTERM)
        self.recovers(left_by(jobs))
        self.last()
        scheduler.start()

    # The broker

    def server_ended(self, server: NatsServer, how: signal.Signals) -> None:
        self.hit(server.name)
        server.end(how)
        self.last()
        if self.fault.kind is Kind.BROKER_WIPED:
            server.wipe_storage()
            self.injector.wiped_at = time.monotonic()
        server.start()
        self.recovers(starts_again(time.monotonic()), since=time.monotonic())

    def server_killed(self, server: NatsServer) -> None:
        self.server_ended(server, signal.SIGKILL)

    def server_stopped(self, server: NatsServer) -> None:
        self.server_ended(server, signal.SIGTERM)

    def server_frozen(self, server: NatsServer) -> None:
        self.hit(server.name)
        server.pause()
        self.last()
        server.resume()
        self.recovers(starts_again(time.monotonic()), since=time.monotonic())

    def node_ended(self, node: NatsServer) -> None:
        """End one of three; the others go on, so recovery is counted from this moment."""
        self.hit(node.name)
        node.end(signal.SIGKILL if self.fault.kind is Kind.NODE_KILLED else signal.SIGTERM)
        self.recovers(starts_again(time.monotonic()))
        self.last()
        node.start()

    def node_frozen(self, node: NatsServer) -> None:
        self.hit(node.name)
        node.pause()
        self.recovers(starts_again(time.monotonic()))
        self.last()
        node.resume()

    def quorum_lost(self, spared: NatsServer) -> None:
        nodes = [node for node in self.scene.servers if node is not spared]
        self.hit(", ".join(node.name for node in nodes))
        for node in nodes:
            node.kill()
        self.last()
        for node in nodes:
            node.launch()
        for node in nodes:
            node.require_ready()
        self.recovers(starts_again(time.monotonic()), since=time.monotonic())

    # The API server

    def api_away(self) -> None:
        self.hit("the API server")
        self.scene.api.end(signal.SIGKILL)
        self.last()
        self.scene.api.start()
        self.api_is_back()

    def api_frozen(self) -> None:
        self.hit("the API server")
        self.scene.api.signal(signal.SIGUSR1)
        self.last()
        self.scene.api.signal(signal.SIGUSR2)
        self.api_is_back()

    def api_is_back(self) -> None:
        now = time.monotonic()
        self.injector.api_outages.append(Span(0, self.injection.began, now))
        self.recovers(starts_again(now), since=now)

    # Workloads

    def poison(self) -> None:
        with self.database.transaction():
            number = self.database.submit(Behaviour.POISON, "default", 0.05, max_tries=0)
        self.hit(f"w{number}")
        self.recovers(lambda database: database.row(number).is_over)

    def revoked(self) -> None:
        queued = "state = 'queued' AND NOT revoke AND behaviour = 'plain'"
        row = self.find(lambda: self.database.rows(queued))
        started = self.database.executions("number = ?", row.number)
        self.hit(f"w{row.number}")
        self.database.do("UPDATE workloads SET revoke = 1 WHERE number = ?", row.number)
        self.recovers(moved_on(row.number, after=len(started)))

    def cleared(self) -> None:
        execution = self.find(self.victims.clearable)
        with self.database.transaction():
            row = self.database.row(execution.number)
            if row.state != "running":
                raise NoVictim
            self.hit(f"w{row.number}")
            self.database.note(row, "cleared")
            self.database.do(
                "UPDATE workloads SET state = 'restarting', ti_id = ? WHERE number = ?",
                str(uuid.uuid4()), row.number,
            )  # fmt: skip
        self.recovers(went_on([execution]))


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended by itself
        os.kill(pid, signal.SIGKILL)


WORKER_FAULTS: dict[
    Kind, tuple[Callable[[Victims], Sequence[Member]], Callable[[Blow, Any], None]]
] = {
    Kind.WORKER_KILLED: (Victims.busy_workers, Blow.worker_killed),
    Kind.WORKER_STOPPED: (Victims.busy_workers, Blow.worker_stopped),
    Kind.WORKER_REPLACED: (Victims.living_workers, Blow.worker_replaced),
    Kind.WORKER_FROZEN: (Victims.busy_workers, Blow.worker_frozen),
    Kind.WORKER_CUT_OFF: (Victims.workers_to_lose, Blow.worker_cut_off),
    Kind.WORKER_CUT_SHORT: (Victims.workers_to_offer, Blow.worker_cut_short),
    Kind.WORKER_WITHOUT_API: (Victims.busy_workers, Blow.worker_without_api),
}
PROCESS_FAULTS: dict[Kind, Callable[[Blow, Any], None]] = {
    Kind.FORK_SERVER_KILLED: Blow.fork_server_killed,
    Kind.SUPERVISOR_KILLED: Blow.supervisor_killed,
    Kind.TASK_KILLED: Blow.task_killed,
}
BROKER_FAULTS: dict[Kind, Callable[[Blow, Any], None]] = {
    Kind.BROKER_KILLED: Blow.server_killed,
    Kind.BROKER_STOPPED: Blow.server_stopped,
    Kind.BROKER_AWAY: Blow.server_stopped,
    Kind.BROKER_FROZEN: Blow.server_frozen,
    Kind.BROKER_WIPED: Blow.server_stopped,
    Kind.NODE_KILLED: Blow.node_ended,
    Kind.NODE_STOPPED: Blow.node_ended,
    Kind.NODE_FROZEN: Blow.node_frozen,
    Kind.QUORUM_LOST: Blow.quorum_lost,
}
OTHER_FAULTS: dict[Kind, Callable[[Blow], None]] = {
    Kind.SCHEDULER_KILLED: Blow.scheduler_ended,
    Kind.SCHEDULER_STOPPED: Blow.scheduler_ended,
    Kind.SCHEDULER_REPLACED: Blow.scheduler_ended,
    Kind.API_AWAY: Blow.api_away,
    Kind.API_FROZEN: Blow.api_frozen,
    Kind.POISON: Blow.poison,
    Kind.REVOKED: Blow.revoked,
    Kind.CLEARED: Blow.cleared,
}

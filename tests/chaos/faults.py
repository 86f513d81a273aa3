"""Carries a plan out on the processes, and finds out when what was hurt has recovered."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.chaos import airflow_faults, broker_faults, worker_faults
from tests.chaos.blow import Blow, NoVictim
from tests.chaos.database import Database
from tests.chaos.injections import Injection, Span
from tests.chaos.plan import Fault, Kind
from tests.chaos.victims import Victims

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.chaos.processes import Member
    from tests.chaos.stage import ChaosStage

__all__ = ["Injector"]

# What a fault takes at most to start a server again.
STOP_SECONDS = 25.0


@dataclass(slots=True)
class Injector:
    """Every fault in a thread of its own, because some last while others begin."""

    stage: ChaosStage
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
        database = Database(self.stage.directory / "database", teller="driver")
        try:
            strike(Blow(self, injection, database))
        except NoVictim:
            injection.problem = "nothing to hurt"
        except Exception as exc:  # noqa: BLE001 - the report shows it, and the run fails
            injection.problem = f"not carried out: {type(exc).__name__}: {exc!s:.150}"
        finally:
            database.close()


def strike(blow: Blow) -> None:
    """Carry a fault out on whatever it finds."""
    kind = blow.fault.kind
    if kind in WORKER_FAULTS:
        candidates, carry_out = WORKER_FAULTS[kind]
        carry_out(blow, blow.find(partial(candidates, blow.victims)))
    elif kind in PROCESS_FAULTS:
        PROCESS_FAULTS[kind](blow, blow.find(blow.victims.running))
    elif kind in BROKER_FAULTS:
        # The one before may still wait for its server.
        with blow.injector.broker:
            BROKER_FAULTS[kind](blow, blow.pick(blow.stage.servers))
    else:
        OTHER_FAULTS[kind](blow)


WORKER_FAULTS: dict[
    Kind, tuple[Callable[[Victims], Sequence[Member]], Callable[[Blow, Any], None]]
] = {
    Kind.WORKER_KILLED: (Victims.busy_workers, worker_faults.worker_killed),
    Kind.WORKER_STOPPED: (Victims.busy_workers, worker_faults.worker_stopped),
    Kind.WORKER_REPLACED: (Victims.living_workers, worker_faults.worker_replaced),
    Kind.WORKER_FROZEN: (Victims.busy_workers, worker_faults.worker_frozen),
    Kind.WORKER_CUT_OFF: (Victims.workers_to_lose, worker_faults.worker_cut_off),
    Kind.WORKER_CUT_SHORT: (Victims.workers_to_offer, worker_faults.worker_cut_short),
    Kind.WORKER_WITHOUT_API: (Victims.busy_workers, worker_faults.worker_without_api),
    Kind.WORKER_DRAINED: (Victims.patient_workers, worker_faults.worker_drained),
    Kind.WORKER_UNFIT: (Victims.living_workers, worker_faults.worker_unfit),
    Kind.STARTS_HANG: (Victims.living_workers, worker_faults.starts_hang),
}
PROCESS_FAULTS: dict[Kind, Callable[[Blow, Any], None]] = {
    Kind.FORK_SERVER_KILLED: worker_faults.fork_server_killed,
    Kind.SUPERVISOR_KILLED: worker_faults.supervisor_killed,
    Kind.TASK_KILLED: worker_faults.task_killed,
}
BROKER_FAULTS: dict[Kind, Callable[[Blow, Any], None]] = {
    Kind.BROKER_KILLED: broker_faults.server_killed,
    Kind.BROKER_STOPPED: broker_faults.server_stopped,
    Kind.BROKER_AWAY: broker_faults.server_stopped,
    Kind.BROKER_FROZEN: broker_faults.server_frozen,
    Kind.BROKER_WIPED: broker_faults.server_stopped,
    Kind.NODE_KILLED: broker_faults.node_ended,
    Kind.NODE_STOPPED: broker_faults.node_ended,
    Kind.NODE_FROZEN: broker_faults.node_frozen,
    Kind.QUORUM_LOST: broker_faults.quorum_lost,
}
OTHER_FAULTS: dict[Kind, Callable[[Blow], None]] = {
    Kind.SCHEDULER_KILLED: airflow_faults.scheduler_ended,
    Kind.SCHEDULER_STOPPED: airflow_faults.scheduler_ended,
    Kind.SCHEDULER_REPLACED: airflow_faults.scheduler_ended,
    Kind.API_AWAY: airflow_faults.api_away,
    Kind.API_FROZEN: airflow_faults.api_frozen,
    Kind.API_SLOW: airflow_faults.api_misbehaves,
    Kind.API_MUTE: airflow_faults.api_misbehaves,
    Kind.API_BEHIND_PROXY: airflow_faults.api_misbehaves,
    Kind.POISON: airflow_faults.poison,
    Kind.REVOKED: airflow_faults.revoked,
    Kind.CLEARED: airflow_faults.cleared,
}

"""Holds what a worker is at this moment: orders change it, health and presence show it."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nats_executor.wire.messages import Presence

if TYPE_CHECKING:
    from nats_executor.settings import Settings
    from nats_executor.wire.messages import Drain
    from nats_worker.intake.intake import Intake
    from nats_worker.intake.memory_guard import Guard
    from nats_worker.intake.slots import Slots
    from nats_worker.processes.proof import Proof

__all__ = ["Plan", "WorkerState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The name, queues and options with which a worker was started.

    Attributes:
        cleanup_seconds: how often to remove stale versions of Dag bundles, 0 for never.
        version: of this distribution, for the presence record; `airflow` and `python` are the
            releases of these.
        serves_logs: whether to serve this host's task logs to the UI.
    """

    name: str
    queues: tuple[str, ...]
    concurrency: int
    team: str | None
    cleanup_seconds: float
    version: str
    airflow: str = ""
    python: str = ""
    serves_logs: bool = False
    log_folder: str = ""  # Airflow's `base_log_folder`


@dataclass(slots=True, kw_only=True, eq=False)
class WorkerState:
    """The state of one worker at this moment.

    Attributes:
        id: unique for each start, so that a restarted worker is never taken for its predecessor.
        queues: those that it serves now; orders change them and the slots while it runs.
        guard: whether there is memory to take workloads.
        proof: whether it can start workloads.
        intake: pulls from the queues, once the worker takes workloads.
        is_draining: it takes nothing more, and stops.
        drained: what an operator said who had it take nothing more, without a stop.
        stop_requests: signals to stop so far; each one makes the drain less patient.
    """

    id: str
    plan: Plan
    settings: Settings
    queues: list[str]
    slots: Slots
    guard: Guard
    proof: Proof
    intake: Intake | None = None
    is_draining: bool = False
    drained: Drain | None = None
    stop_requests: int = 0
    started_at: float = field(default_factory=time.time)

    @property
    def paused(self) -> str:
        """The reason to take nothing at the moment, '' if there is none."""
        return "; ".join(filter(None, (self.proof.reason, self.guard.reason)))

    @property
    def takes_no_more(self) -> bool:
        """Whether it stops, or an operator has drained it."""
        return self.is_draining or self.drained is not None

    def presence(self) -> Presence:
        """Describe the worker to others."""
        return Presence(
            worker=self.id,
            name=self.plan.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=list(self.queues),
            concurrency=self.slots.concurrency,
            running=self.slots.used,
            draining=self.takes_no_more,
            started_at=self.started_at,
            at=time.time(),
            version=self.plan.version,
            airflow=self.plan.airflow,
            python=self.plan.python,
            bands=len(self.settings.priority_bands) + 1,
            paused=self.paused,
            drained_by=self.drained.by if self.drained else "",
            drain_reason=self.drained.reason if self.drained else "",
        )

    def recall(self) -> None:
        """Have the intake look at the slots and queues again, if it pulls already."""
        if self.intake:
            self.intake.recall()

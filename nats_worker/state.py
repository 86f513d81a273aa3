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
    from nats_worker.intake.intake import Intake
    from nats_worker.intake.memory_guard import Guard
    from nats_worker.intake.slots import Slots
    from nats_worker.processes.proof import Proof

__all__ = ["Plan", "WorkerState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a worker was started.

    Attributes:
        team: whose Airflow's configuration and bundles it uses, None for the global ones.
        cleanup_seconds: how often to remove stale versions of Dag bundles, 0 for never.
        version: of this distribution, for the presence record.
        serves_logs: whether to serve this host's task logs to the UI.
        log_folder: Airflow's `base_log_folder`.
    """

    name: str
    queues: tuple[str, ...]
    concurrency: int
    team: str | None
    cleanup_seconds: float
    version: str
    serves_logs: bool = False
    log_folder: str = ""


@dataclass(slots=True, kw_only=True)
class WorkerState:
    """One worker as it is now.

    Attributes:
        id: unique for each start, so that a restarted worker is never taken for its predecessor.
        queues: those that it serves now.
        guard, proof: each one may pause the intake, and has the reason.
        intake: pulls from the queues; None until NATS has confirmed the worker's name and the first
            self-test has passed.
        stop_requests: signals to stop so far; each one makes the drain less patient.
        started_at: epoch seconds.
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
    stop_requests: int = 0
    started_at: float = field(default_factory=time.time)

    @property
    def paused(self) -> str:
        """Why the worker takes nothing at the moment, '' if it does."""
        return "; ".join(filter(None, (self.proof.reason, self.guard.reason)))

    @property
    def stores_logs(self) -> bool:
        """Whether this worker keeps task logs in NATS; those of a team's tasks stay here."""
        return self.settings.stores_logs and not self.plan.team

    def presence(self) -> Presence:
        """Return the worker's record for the workers bucket, as of now."""
        return Presence(
            worker=self.id,
            name=self.plan.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=list(self.queues),
            concurrency=self.slots.concurrency,
            running=self.slots.used,
            draining=self.is_draining,
            started_at=self.started_at,
            at=time.time(),
            version=self.plan.version,
            bands=len(self.settings.priority_bands) + 1,
            paused=self.paused,
        )

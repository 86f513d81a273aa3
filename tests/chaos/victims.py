"""Choose what a fault may hurt at the moment."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.database import Database, Execution
    from tests.chaos.processes import Member
    from tests.chaos.stage import ChaosStage

__all__ = ["Victims"]

# Longer than the longest cut that leaves a worker alive, and than one that has it counted as lost.
OUTLIVES_SHORT_CUT_SECONDS, OUTLIVES_LONG_CUT_SECONDS = 3.6, 9.0
# A task that has begun before that may end while its worker is cut off.
RECENT_SECONDS = 1.0
LONG_RECENT_SECONDS = 2.0


class Victims:
    """What there is to hurt, newly looked up with each question."""

    def __init__(self, stage: ChaosStage, database: Database) -> None:
        self.stage = stage
        self.database = database

    def living_workers(self) -> Sequence[Member]:
        return [w for w in self.stage.workers if w.is_kept and w.is_alive]

    def busy_workers(self) -> Sequence[Member]:
        """Those that run anything, else any."""
        pids = {execution.worker for execution in self.running()}
        workers = self.living_workers()
        return [worker for worker in workers if worker.pid in pids] or workers

    def patient_workers(self) -> Sequence[Member]:
        """Those that let their tasks end when they are stopped, and have run something by now.

        Before a worker is ready SIGTERM ends it like any other program.
        """
        known = {pid for (pid,) in self.database.do("SELECT DISTINCT worker FROM executions")}
        patient = [w for w in self.living_workers() if w.is_patient and w.pid in known]
        busy = {worker.pid for worker in self.busy_workers()}
        return [worker for worker in patient if worker.pid in busy] or patient

    def cabled_workers(self) -> Sequence[Member]:
        return [w for w in self.living_workers() if w.name in self.stage.cables]

    def workers_to_offer(self) -> Sequence[Member]:
        """Those with a task that outlives a short cut, so that others are offered it."""
        return self.cabled_workers_with_tasks(OUTLIVES_SHORT_CUT_SECONDS, RECENT_SECONDS)

    def workers_to_lose(self) -> Sequence[Member]:
        """Those with a task that will start elsewhere while it still runs there, else any."""
        found = self.cabled_workers_with_tasks(OUTLIVES_LONG_CUT_SECONDS, LONG_RECENT_SECONDS)
        return found or self.cabled_workers()

    def cabled_workers_with_tasks(
        self, longer_than: float, started_within: float
    ) -> Sequence[Member]:
        long = "number IN (SELECT number FROM workloads WHERE behaviour = 'plain' AND length >= ?)"
        recent = self.database.executions(
            f"outcome = 'running' AND started_at > ? AND {long}",
            time.monotonic() - started_within,
            longer_than,
        )
        pids = {execution.worker for execution in recent}
        return [worker for worker in self.cabled_workers() if worker.pid in pids]

    def running(self) -> Sequence[Execution]:
        return self.database.executions("outcome = 'running'")

    def clearable(self) -> Sequence[Execution]:
        """What runs for long enough to be met while it runs."""
        long = "number IN (SELECT number FROM workloads WHERE behaviour = 'plain' AND length > 1)"
        return self.database.executions(f"outcome = 'running' AND {long}")

"""Holds what all errands of one worker share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nats_worker.processes.fitness import Fitness

if TYPE_CHECKING:
    from nats_executor.broker.port import Broker
    from nats_executor.fleet.liveness import Liveness
    from nats_executor.settings import Settings
    from nats_worker.delivery.leases import Leases
    from nats_worker.processes.pool import ProcessPool

__all__ = ["Shared"]


@dataclass(frozen=True, slots=True)
class Shared:
    """The parts of a worker that all its errands use.

    Attributes:
        worker: this worker's id.
        fitness: hears of every start, and of every one that failed.
    """

    broker: Broker
    settings: Settings
    pool: ProcessPool
    leases: Leases
    liveness: Liveness
    worker: str
    worker_name: str
    fitness: Fitness = field(default_factory=Fitness)

"""Answers the question what a worker runs at this moment, and with how much memory."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from nats_executor.wire.coordinates import Coordinates, coordinates_in, id_in
from nats_executor.wire.descriptions import Carried, Description
from nats_executor.wire.fitting import fitted_description
from nats_executor.wire.names import Verb
from nats_worker.control.orders import dispatches_in
from nats_worker.processes import memory
from nats_worker.processes.memory import MemoryReading

if TYPE_CHECKING:
    from collections.abc import Collection

    from nats_executor.broker.port import Broker
    from nats_worker.delivery.errand import Errand
    from nats_worker.state import WorkerState

__all__ = ["serve_descriptions"]

# Anyone may ask at any rate, and a look at hundreds of processes takes some milliseconds of each.
LOOK_AGAIN_SECONDS = 2.0
# An answer does not wait longer for the kernel.
KERNEL_SECONDS = 2.0


async def serve_descriptions(
    broker: Broker, state: WorkerState, errands: Collection[Errand]
) -> None:
    """Answer for as long as the connection lives.

    Args:
        errands: what this worker carries, which changes all the time.
    """
    subject = state.settings.names.control(state.id, Verb.DESCRIBE)
    await broker.serve(subject, Describer(broker, state, errands).answer)


class MemoryUse(NamedTuple):
    """The memory of the worker and its tasks, and the limit that is closest."""

    own: int = 0
    reading: MemoryReading = MemoryReading()


class Describer:
    """Describes a worker; looks at its memory in a thread, from time to time."""

    def __init__(self, broker: Broker, state: WorkerState, errands: Collection[Errand]) -> None:
        self._broker = broker
        self._state = state
        self._errands = errands
        self._look: asyncio.Task[MemoryUse] | None = None
        self._looked_at = 0.0

    async def answer(self, question: bytes) -> bytes:
        """Return the encoded `Description`."""
        wanted = set(dispatches_in(question))
        # Who asks about some dispatches wants to know at once.
        memory_use = MemoryUse() if wanted else await self._memory_use()
        # A second delivery of what runs here has no process, and only renews the first one.
        in_order = sorted(self._errands, key=lambda errand: errand.record.run is not None)
        carried = {
            errand.dispatch_id: carried_in_hand(errand)
            for errand in in_order
            if not wanted or errand.dispatch_id in wanted
        }
        state, now = self._state, time.time()
        description = Description(
            worker=state.id,
            name=state.plan.name,
            at=now,
            started_at=state.started_at,
            # The clock of connections is another one.
            connected_at=now - max(0.0, time.monotonic() - self._broker.connected_since),
            version=state.plan.version,
            airflow=state.plan.airflow,
            python=state.plan.python,
            memory_bytes=memory_use.own,
            memory_used_bytes=memory_use.reading.used,
            memory_limit_bytes=memory_use.reading.limit,
            memory_of=memory_use.reading.what,
            carried=sorted(carried.values(), key=lambda one: one.since),
        )
        return fitted_description(description)

    async def _memory_use(self) -> MemoryUse:
        """Return what was seen last; nothing while the kernel does not answer."""
        is_old = time.monotonic() - self._looked_at > LOOK_AGAIN_SECONDS
        if self._look is None or (self._look.done() and is_old):
            self._looked_at = time.monotonic()
            self._look = asyncio.create_task(asyncio.to_thread(look_at_memory), name="memory")
        done, _ = await asyncio.wait({self._look}, timeout=KERNEL_SECONDS)
        return self._look.result() if done else MemoryUse()


def look_at_memory() -> MemoryUse:
    return MemoryUse(memory.bytes_of_tree(os.getpid()), memory.read())


def carried_in_hand(errand: Errand) -> Carried:
    """Describe a delivery, without the token and the body of its workload."""
    record, workload = errand.record, errand.record.workload
    where = coordinates_in(workload) if workload else Coordinates()
    return Carried(
        dispatch_id=record.dispatch_id,
        queue=record.queue,
        kind=workload.kind if workload else "",
        phase=record.phase,
        since=record.since,
        dag=where.dag,
        run=where.run,
        task=where.task,
        map_index=where.map_index,
        try_number=where.try_number,
        id=id_in(workload) if workload else None,
        attempt=record.attempt,
        pid=record.run.task_pid if record.run else 0,
    )

"""The state at the end of a run, as plain data for `invariants.py`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nats_executor.broker.connection import connect
from nats_executor.errors import DecodeError
from nats_executor.wire.messages import Workload, decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.broker.port import Broker, ConsumerInfo
    from nats_executor.settings import Settings
    from tests.chaos.database import Entry, Execution, Job, Row
    from tests.chaos.injections import Injection, Span

__all__ = ["BrokerContent", "Evidence", "look_into_broker"]

READY_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerContent:
    """What the broker holds.

    Attributes:
        tasks: the subjects of the task stream.
        workers: the keys of the workers bucket that have a value.
        dead_letters: (the workload's task id, the subject) of each.
    """

    tasks: Sequence[str] = ()
    consumers: Sequence[ConsumerInfo] = ()
    workers: Sequence[str] = ()
    dead_letters: Sequence[tuple[str, str]] = ()

    @property
    def is_idle(self) -> bool:
        return not self.tasks and not any(c.pending or c.in_flight for c in self.consumers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that a run is judged by.

    Attributes:
        jobs: the schedulers that live at the end.
        worker_names: of all workers, which are the keys expected in the bucket.
        orphans: command lines of what still ran after the workers had stopped, by pid.
        hurt: the pids of what was killed, stopped or frozen, and of workers whose fork server was.
        cut_off: when which worker was frozen or cut off from the broker.
        api_outages: when the API server was away, for all or for one worker.
        wiped_at: when the broker last lost its data, 0 for never.
        is_mixed: whether some of the members had the code of an earlier release.
    """

    rows: Sequence[Row] = ()
    history: Sequence[Entry] = ()
    executions: Sequence[Execution] = ()
    jobs: Sequence[Job] = ()
    broker: BrokerContent = field(default_factory=BrokerContent)
    worker_names: Sequence[str] = ()
    orphans: dict[int, str] = field(default_factory=dict)
    injections: Sequence[Injection] = ()
    hurt: frozenset[int] = frozenset()
    cut_off: Sequence[Span] = ()
    api_outages: Sequence[Span] = ()
    wiped_at: float = 0.0
    is_mixed: bool = False


def look_into_broker(settings: Settings) -> BrokerContent:
    """Read all that matters; raises a `BrokerError` when there is no broker."""

    async def look() -> BrokerContent:
        async with connect(settings, role="chaos") as broker:
            await broker.ready(READY_SECONDS)
            return await read(broker, settings)

    return asyncio.run(look())


async def read(broker: Broker, settings: Settings) -> BrokerContent:
    names = settings.names
    tasks = await broker.scan(names.tasks_stream, names.tasks())
    workers = await broker.scan(names.workers_stream, names.presences())
    letters = await broker.scan(names.dead_letters_stream, names.dead_letters())
    return BrokerContent(
        tasks=[message.subject for message in tasks],
        consumers=await broker.consumer_infos(names.tasks_stream),
        workers=[message.subject.rpartition(".")[2] for message in workers if message.body],
        dead_letters=[(task_id(letter.body), letter.subject) for letter in letters],
    )


def task_id(body: bytes) -> str:
    try:
        workload = decode(Workload, body)
    except DecodeError:
        return "?"
    return str(workload.key[1]) if len(workload.key) > 1 else str(workload.key[0])

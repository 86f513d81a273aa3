"""What streams, consumers and workers look like at one moment, as rows for people and scripts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nats_executor import topology
from nats_executor.errors import DecodeError
from nats_executor.messages import Presence, decode

if TYPE_CHECKING:
    from nats_executor.ports import Broker, ConsumerInfo
    from nats_executor.settings import Settings

__all__ = [
    "Seen",
    "Survey",
    "findings",
    "queue_rows",
    "seen_workers",
    "serving",
    "take_survey",
    "worker_rows",
]

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker's record, and the seconds since the broker got it."""

    presence: Presence
    age: float


@dataclass(frozen=True, slots=True)
class Survey:
    """One look at everything."""

    drifts: list[topology.Drift]
    consumers: list[ConsumerInfo]
    workers: list[Seen]


async def take_survey(broker: Broker, settings: Settings) -> Survey:
    """Ask the broker for everything that the rows need; changes nothing."""
    names = settings.names
    if await broker.stream_info(names.tasks_stream) is None:
        return Survey(await topology.inspect(broker, settings, []), [], [])
    consumers = await broker.consumer_infos(names.tasks_stream)
    drifts = await topology.inspect(broker, settings, [c.queue for c in consumers])
    return Survey(drifts, consumers, await seen_workers(broker, settings))


async def seen_workers(broker: Broker, settings: Settings) -> list[Seen]:
    """Return the readable records of the workers bucket."""
    names = settings.names
    workers: list[Seen] = []
    if (info := await broker.stream_info(names.workers_stream)) is None:
        return workers
    for message in await broker.scan(names.workers_stream, names.presences()):
        try:
            # By the broker's clock alone, because this machine's may be wrong.
            workers.append(Seen(decode(Presence, message.body), info.time - message.at))
        except DecodeError:
            continue  # a deleted record, or one of a release that we cannot read
    return workers


def state_of(seen: Seen, settings: Settings) -> str:
    """Name a worker's state, by the age of its record."""
    if seen.age > settings.worker_lost_seconds:
        return "lost"
    return "draining" if seen.presence.draining else "running"


def serving(workers: list[Seen], queue: str, settings: Settings) -> list[Seen]:
    """The workers that take workloads of a queue."""
    return [
        seen
        for seen in workers
        if queue in seen.presence.queues and state_of(seen, settings) == "running"
    ]


def queue_rows(survey: Survey, settings: Settings) -> list[Row]:
    """One row for each queue, in the words of NATS's consumer info."""
    rows = []
    for consumer in sorted(survey.consumers, key=lambda c: c.queue):
        workers = serving(survey.workers, consumer.queue, settings)
        rows.append(
            {
                "queue": consumer.queue,
                "pending": consumer.pending,
                "in_flight": consumer.in_flight,
                "redelivered": consumer.redelivered,
                "workers": len(workers),
                "slots": sum(seen.presence.concurrency for seen in workers),
            }
        )
    return rows


def worker_rows(survey: Survey, settings: Settings) -> list[Row]:
    """One row for each worker."""
    return [
        {
            "worker": seen.presence.name,
            "state": state_of(seen, settings),
            "queues": ",".join(map(str, seen.presence.queues)),
            "running": seen.presence.running,
            "concurrency": seen.presence.concurrency,
            "host": seen.presence.host,
            "pid": seen.presence.pid,
            "last_seen_seconds": max(0, math.floor(seen.age)),
            "version": seen.presence.version,
        }
        for seen in sorted(survey.workers, key=lambda s: s.presence.name)
    ]


def findings(survey: Survey, settings: Settings) -> list[Row]:
    """One row for each thing that was checked; a status other than `ok` needs attention."""
    rows = [finding("broker", "ok", f"connected to {settings.shown('servers')}")]
    rows += [finding("streams", "drift", f"{d}; run: airflow nats setup") for d in survey.drifts]
    if not survey.drifts:
        rows.append(finding("streams", "ok", "as configured"))
    for consumer in sorted(survey.consumers, key=lambda c: c.queue):
        rows.append(queue_finding(consumer, serving(survey.workers, consumer.queue, settings)))
    rows += [
        finding(f"worker {seen.presence.name}", "lost", f"silent for {seen.age:.0f} s")
        for seen in survey.workers
        if state_of(seen, settings) == "lost"
    ]
    return rows


def queue_finding(consumer: ConsumerInfo, workers: list[Seen]) -> Row:
    what = f"queue {consumer.queue}"
    if workers:
        names = ", ".join(seen.presence.name for seen in workers)
        return finding(what, "ok", f"{consumer.pending} pending, served by {names}")
    if not consumer.pending + consumer.in_flight:
        return finding(what, "ok", "empty, no worker")
    return finding(
        what,
        "unserved",
        f"{consumer.pending} pending and no worker; run: airflow nats worker -q {consumer.queue}",
    )


def finding(what: str, status: str, details: str) -> Row:
    return {"check": what, "status": status, "details": details}

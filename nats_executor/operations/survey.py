"""Takes one look at streams, consumers and workers, and makes rows of it for people and scripts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nats_executor.access.permissions import Role
from nats_executor.broker.quorum import no_quorum
from nats_executor.broker.releases import danger, weakness
from nats_executor.errors import AccessDenied, BrokerUnavailable
from nats_executor.fleet.drains import in_drained_words
from nats_executor.fleet.holds import hold_of, seen_holds
from nats_executor.fleet.queues import by_queue, queue_rows, until_in_words
from nats_executor.fleet.rates import Counters, rates_between
from nats_executor.fleet.workers import seen_workers, served_queues, serving, worker_state
from nats_executor.installation import Releases, differing, installed
from nats_executor.operations.letters import newest_letter
from nats_executor.text import presentable
from nats_executor.topology import setup
from nats_executor.topology.room import limit_findings
from nats_executor.topology.storage import (
    account_findings,
    busiest_queue,
    is_crowded,
    stream_finding,
)
from nats_executor.topology.wanted import stream_configs
from nats_executor.wire.names import Lane
from nats_executor.wire.queue_names import as_argument, as_text, remedy

if TYPE_CHECKING:
    from nats_executor.broker.port import Broker, ConsumerInfo, StreamInfo, Usage
    from nats_executor.fleet.letters import Letter
    from nats_executor.fleet.presences import Seen
    from nats_executor.fleet.queues import Row
    from nats_executor.settings import Settings
    from nats_executor.wire.messages import Hold
    from nats_executor.wire.names import Names

__all__ = [
    "Survey",
    "check_row",
    "check_rows",
    "survey_queue_rows",
    "take_look",
    "take_survey",
    "worker_rows",
]

# A dead letter of this age has been seen by those who look once a day.
NEW_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class Survey:
    """One look at everything."""

    drifts: list[setup.Drift]
    consumers: list[ConsumerInfo]
    workers: list[Seen]
    streams: list[StreamInfo] = field(default_factory=list)
    usage: Usage | None = None  # of the account, None where this user may not ask
    busiest: dict[str, str] = field(default_factory=dict)  # by stream that is almost full
    server_version: str = ""  # of the server that answers
    holds: list[Hold] = field(default_factory=list)
    newest_letter: Letter | None = None  # where this user may read it
    at: float = 0.0  # epoch seconds, by the clock of the tasks stream's server

    @property
    def look(self) -> Counters:
        """What rates are found from."""
        return Counters(self.at, self.consumers)

    @property
    def server_versions(self) -> set[str]:
        """Those of all servers that are known of: a cluster tells those of its streams' leaders."""
        return {self.server_version, *(info.server_version for info in self.streams)}


async def take_survey(broker: Broker, settings: Settings) -> Survey:
    """Ask the broker for everything that the rows need; changes nothing.

    Raises:
        NoQuorum: a stream has too few servers to be changed; what they say of it is old.
    """
    names = settings.names
    asked = [await broker.stream_info(config["name"]) for config in stream_configs(settings)]
    streams = [info for info in asked if info is not None]
    for info in streams:
        if not info.replication.has_quorum:
            raise no_quorum(info.replication.servers)
    at = next((info.time for info in streams if info.name == names.tasks_stream), None)
    if at is None:
        drifts = await setup.inspect(broker, settings, [])
        return Survey(drifts, [], [], streams, server_version=broker.server_version)
    consumers = await broker.consumer_infos(names.tasks_stream)
    drifts = await setup.inspect(broker, settings, list(by_queue(consumers)))
    workers = await seen_workers(broker, settings)
    queues = list(by_queue(consumers))
    holds = await seen_holds(broker, names)
    usage, version = await usage_of(broker), broker.server_version
    # Last of all: subjects that a client has made long may cost the connection.
    busiest = {
        info.name: await busiest_in(broker, info.name, queues, names)
        for info in streams
        if is_crowded(info, names)
    }
    newest = await newest_of(broker, settings, streams)
    return Survey(drifts, consumers, workers, streams, usage, busiest, version, holds, newest, at)


async def take_look(broker: Broker, settings: Settings) -> Counters | None:
    """Ask for the consumers alone; None where there is no tasks stream."""
    stream = settings.names.tasks_stream
    if (info := await broker.stream_info(stream)) is None:
        return None
    return Counters(info.time, await broker.consumer_infos(stream))


async def usage_of(broker: Broker) -> Usage | None:
    """Return how full the account is; users of the release before may not ask."""
    try:
        return await broker.usage()
    except AccessDenied:
        return None


async def newest_of(broker: Broker, settings: Settings, streams: list[StreamInfo]) -> Letter | None:
    """Return the newest dead letter, if it may be new and this user may read it.

    A refusal is logged here and by the server, so those who have no such permission do not ask.
    """
    stream = settings.names.dead_letters_stream
    info = next((info for info in streams if info.name == stream), None)
    is_old = info is None or not info.messages or info.time - info.last_at > NEW_SECONDS
    role = (settings.user or "").rpartition("-")[2]  # a team's name may be in front
    if is_old or role in {Role.ADMIN, Role.MONITOR}:
        return None
    try:
        return await newest_letter(broker, settings.names)
    except AccessDenied:
        return None


async def busiest_in(broker: Broker, stream: str, queues: list[str], names: Names) -> str:
    """Return the queue that has most of a stream, '' if NATS does not list so much."""
    try:
        found = await broker.subjects(stream, ">")
    except BrokerUnavailable:
        return ""
    return busiest_queue(found.messages, queues, names)


def survey_queue_rows(
    survey: Survey, settings: Settings, before: Counters | None = None
) -> list[Row]:
    """Return a row for each queue, with rates if there was a look before this one."""
    consumers, workers = survey.consumers, survey.workers
    served = served_queues(workers, settings)
    rates = rates_between(before, survey.look)
    return queue_rows(consumers, workers, settings, survey.holds, served=served, rates=rates)


def worker_rows(survey: Survey, settings: Settings, ours: Releases | None = None) -> list[Row]:
    """Return a row for each worker.

    Args:
        ours: the releases that theirs are compared with; without it those of this machine.
    """
    here = ours or installed()
    return [
        {
            "worker": seen.presence.name,
            "state": worker_state(seen, settings),
            "queues": list(map(str, seen.presence.queues)),
            "running": seen.presence.running,
            "concurrency": seen.presence.concurrency,
            "host": seen.presence.host,
            "pid": seen.presence.pid,
            "last_seen_seconds": max(0, math.floor(seen.age)),
            "version": seen.presence.version,
            "airflow": seen.presence.airflow or None,
            "python": seen.presence.python or None,
            "differs": differing(releases_of(seen), here),
            "drained_by": seen.presence.drained_by or None,
            "reason": seen.presence.drain_reason or seen.presence.paused or None,
        }
        for seen in sorted(survey.workers, key=lambda s: s.presence.name)
    ]


def releases_of(seen: Seen) -> Releases:
    return Releases(seen.presence.version, seen.presence.airflow, seen.presence.python)


def check_rows(survey: Survey, settings: Settings) -> list[Row]:
    """Return a row for each thing that was checked; a status other than `ok` needs attention."""
    rows = [check_row("broker", "ok", f"connected to {settings.shown_servers}")]
    rows += server_findings(survey)
    rows += [check_row("streams", "drift", drift.advice) for drift in survey.drifts]
    if not survey.drifts:
        rows.append(check_row("streams", "ok", "as configured"))
    for info in survey.streams:
        rows += replica_findings(info, settings.replicas)
    rows += [
        stream_finding(info, survey.busiest[info.name], settings.names)
        for info in survey.streams
        if info.name in survey.busiest
    ]
    rows += room_findings(survey, settings.names) + letters_findings(survey, settings)
    for queue, bands in by_queue(survey.consumers).items():
        workers = serving(survey.workers, Lane(queue), settings)
        rows += queue_findings(queue, bands, workers, hold_of(queue, bands, survey.holds))
        rows += [
            band_finding(band)
            for band in bands
            if workers
            and band.pending + band.in_flight
            and not serving(survey.workers, Lane(queue, band.band), settings)
        ]
    rows += [
        check_row(f"worker {seen.presence.name}", "lost", f"silent for {seen.age:.0f} s")
        for seen in survey.workers
        if worker_state(seen, settings) == "lost" and not is_forgotten(seen, settings)
    ]
    rows += [
        check_row(f"worker {seen.presence.name}", "paused", presentable(seen.presence.paused))
        for seen in survey.workers
        if worker_state(seen, settings) == "paused"
    ]
    rows += [
        drain_finding(seen)
        for seen in survey.workers
        if seen.presence.drained_by and worker_state(seen, settings) != "lost"
    ]
    return rows


def room_findings(survey: Survey, names: Names) -> list[Row]:
    """Return the rows of limits of the account that are almost reached."""
    usage, consumers, version = survey.usage, len(survey.consumers), survey.server_version
    return [
        *account_findings(usage, survey.streams),
        *limit_findings(usage, consumers, names.tasks_stream, version),
    ]


def is_forgotten(seen: Seen, settings: Settings) -> bool:
    """Whether a lost worker has been named for long enough: its tasks were seen to long ago."""
    return seen.age > settings.worker_lost_seconds + settings.worker_forgotten_seconds


def server_findings(survey: Survey) -> list[Row]:
    """Return rows of releases of nats-server with a known fault; a weakness can wait."""
    versions = sorted(survey.server_versions)
    unsafe = [check_row("nats-server", "unsafe", text) for v in versions if (text := danger(v))]
    weak = [check_row("nats-server", "ok", text) for v in versions if (text := weakness(v))]
    return unsafe + weak


def replica_findings(info: StreamInfo, replicas: int) -> list[Row]:
    """Return the row of a stream that works on fewer servers than its settings say."""
    missing, servers = info.replication.missing, info.replication.servers
    if missing:
        details = (
            f"{len(servers) - len(missing)} of {len(servers)} servers have all of it, "
            f"{' and '.join(map(str, missing))}; start or mend that server before another one fails"
        )
    elif info.replicas == replicas > len(servers):
        details = (
            f"{len(servers)} of {replicas} servers have it: NATS is still copying it, or is no "
            "cluster of so many servers; look again in a minute"
        )
    elif info.replication.is_changing:
        details = "NATS is still moving it to its servers; stop no server until that is done"
    else:
        return []
    return [check_row(f"stream {info.name}", "degraded", details)]


def letters_findings(survey: Survey, settings: Settings) -> list[Row]:
    stream = settings.names.dead_letters_stream
    infos = [info for info in survey.streams if info.name == stream]
    return [letters_finding(info, survey.newest_letter) for info in infos]


def letters_finding(info: StreamInfo, newest: Letter | None) -> Row:
    """The row of dead letters; those of the last day need attention, until they are removed."""
    what = "dead letters"
    if not info.messages:
        return check_row(what, "ok", "none")
    age = max(0.0, info.time - (newest.at if newest else info.last_at))
    details = f"{info.messages} kept, the newest for {age_in_words(age)}"
    if age > NEW_SECONDS:
        return check_row(what, "ok", details)
    why = f" ({newest.reason})" if newest else ""
    return check_row(what, "new", f"{details}{why}; run: airflow nats dead-letters list")


def age_in_words(seconds: float) -> str:
    """Write an age in the largest unit that it has several of."""
    units = (("d", 86400), ("h", 3600), ("min", 60))
    return next(
        (f"{seconds / n:.0f} {u}" for u, n in units if seconds >= 2 * n), f"{seconds:.0f} s"
    )


def queue_findings(
    queue: str, bands: list[ConsumerInfo], workers: list[Seen], hold: Hold | None
) -> list[Row]:
    row = queue_finding(queue, bands, workers)
    if not any(band.paused_until for band in bands):
        return [row]
    pause = pause_finding(queue, bands, hold)
    return [pause] if row["status"] == "ok" else [row, pause]


def queue_finding(queue: str, bands: list[ConsumerInfo], workers: list[Seen]) -> Row:
    what, pending = f"queue {queue}", sum(band.pending for band in bands)
    if workers:
        names = ", ".join(seen.presence.name for seen in workers)
        return check_row(what, "ok", f"{pending} pending, served by {names}")
    if not pending + sum(band.in_flight for band in bands):
        return check_row(what, "ok", "empty, no worker")
    advice = remedy(Lane(queue), has_workers=False)
    return check_row(what, "unserved", f"{pending} pending and no worker; run: {advice}")


def band_finding(band: ConsumerInfo) -> Row:
    """Return the row of a band whose workloads no worker pulls, because its settings differ."""
    what = f"queue {band.queue}, priority band {band.band}"
    advice = remedy(Lane(band.queue, band.band), has_workers=True)
    return check_row(what, "unserved", f"{band.pending} pending and no worker; {advice}")


def pause_finding(queue: str, bands: list[ConsumerInfo], hold: Hold | None) -> Row:
    """Return the row of a queue whose consumers are paused, so that no worker gets anything."""
    paused = [band for band in bands if band.paused_until]
    numbers = ", ".join(str(band.band) for band in paused)
    which = "paused" if paused == bands else f"priority band {numbers} paused"
    until = until_in_words(max(band.paused_until for band in paused))
    by = f" by {presentable(hold.by)}" if hold else ""
    why = f" ({presentable(hold.reason)})" if hold and hold.reason else ""
    pending = sum(band.pending for band in bands)
    resume = f"airflow nats queues resume {as_argument(as_text([queue]))}"
    details = f"{pending} pending, {which}{by} {until}{why}; to resume now: {resume}"
    return check_row(f"queue {queue}", "paused", details)


def drain_finding(seen: Seen) -> Row:
    """The row of a worker that an operator has drained; one that stops has none."""
    worker = seen.presence
    who = in_drained_words(worker.drained_by, worker.drain_reason)
    undrain = f"airflow nats workers undrain {as_argument(as_text([worker.name]))}"
    details = f"{worker.running} running, {who}; to let it take workloads again: {undrain}"
    return check_row(f"worker {worker.name}", "draining", details)


def check_row(what: str, status: str, details: str) -> Row:
    return {"check": what, "status": status, "details": details}

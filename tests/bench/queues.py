"""Measure 300 queues with three bands on three servers, each with a copy: set-up, and at rest."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from nats_executor.broker.connection import connect
from nats_executor.topology import setup, several
from tests.bench.sample import Sample
from tests.bench.stage import cpu_seconds, new_prefix, resident_megabytes
from tests.support.fixtures import settings_for
from tests.support.nats_server import nats_cluster, start_together

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nats_executor.settings import Settings
    from tests.bench.sample import Task
    from tests.support.nats_server import NatsServer

__all__ = ["KEYS", "measure"]

KEY = "queues_300_r3"
KEYS = frozenset({KEY})
QUEUES = 300
COPIES = 3
WATCH_SECONDS = 20.0
# Requests that one thousand consumers at a time keep waiting on a busy machine.
ANSWER_SECONDS = 30.0
WAYS = {"one-by-one": 1, "nats": several.QUEUES_AT_ONCE}


def measure(task: Task) -> Iterator[Sample]:
    names = [f"queue-{number}" for number in range(max(1, int(QUEUES * task.scale)))]
    for number in range(1, task.rounds + 1):
        # The first one finds the machine warmer or colder each time.
        for way in list(WAYS)[:: 1 if number % 2 else -1]:
            servers = nats_cluster(task.directory / f"{number}-{way}")
            try:
                start_together(servers)
                yield from figures_of(way, servers, names)
            finally:
                for server in servers:
                    server.kill()
            task.say(f"round {number} of {task.rounds}: {way}")


def figures_of(way: str, servers: Sequence[NatsServer], names: Sequence[str]) -> Iterator[Sample]:
    """Set so many queues up, again, and look at the servers while nothing happens."""
    settings = settings_for(
        *(server.url for server in servers), subject_prefix=new_prefix(), replicas=COPIES,
        publish_timeout_seconds=ANSWER_SECONDS,
    )  # fmt: skip
    with_patch = several.QUEUES_AT_ONCE
    several.QUEUES_AT_ONCE = WAYS[way]
    try:
        asyncio.run(set_up(settings, []))  # the streams
        bare, idle = memory(servers), at_rest(servers)
        seconds, used = asyncio.run(timed(settings, names, servers))
        yield Sample(KEY, way, seconds)
        yield Sample(KEY, f"{way}-broker-cpu", used)
        if way == "nats":
            seconds, _ = asyncio.run(timed(settings, names, servers))
            yield Sample(KEY, "again", seconds)
            yield Sample(KEY, "idle-cpu-bare", 100 * idle)
            yield Sample(KEY, "idle-cpu", 100 * at_rest(servers))
            yield Sample(KEY, "rss-bare", bare)
            yield Sample(KEY, "rss", memory(servers))
    finally:
        several.QUEUES_AT_ONCE = with_patch


async def set_up(settings: Settings, names: Sequence[str]) -> float:
    """Return the seconds that it takes on a connection that is there."""
    async with connect(settings, role="bench") as broker:
        await broker.ready(ANSWER_SECONDS)
        began = time.perf_counter()
        await setup.apply(broker, settings, names)
        return time.perf_counter() - began


async def timed(
    settings: Settings, names: Sequence[str], servers: Sequence[NatsServer]
) -> tuple[float, float]:
    """Return the seconds of a set-up, and the CPU seconds of all servers meanwhile."""
    before = sum(map(cpu_of, servers))
    seconds = await set_up(settings, names)
    return seconds, sum(map(cpu_of, servers)) - before


def at_rest(servers: Sequence[NatsServer]) -> float:
    """Return how much of a core each server uses, in the mean, with nobody to serve."""
    before, began = sum(map(cpu_of, servers)), time.monotonic()
    time.sleep(WATCH_SECONDS)  # not for anything to happen: this is the measurement
    return (sum(map(cpu_of, servers)) - before) / len(servers) / (time.monotonic() - began)


def memory(servers: Sequence[NatsServer]) -> float:
    return max(resident_megabytes(pid_of(server)) for server in servers)


def cpu_of(server: NatsServer) -> float:
    return cpu_seconds(pid_of(server))


def pid_of(server: NatsServer) -> int:
    assert server.process
    return server.process.pid

"""Measure idle workers at the broker: connections, pulls, heartbeats, a list of them.

A thousand are real ones, ten thousand are bare connections that say the same: as many real ones
need more of this machine than the broker. A tenth of those is measured both ways, so that a
difference would show.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from nats_executor.broker.connection import connect
from nats_executor.broker.pull_times import CALM_HEARTBEAT_SECONDS
from nats_executor.topology import setup
from tests.bench.aside import Aside
from tests.bench.fleet_workers import QUEUE
from tests.bench.needs import Unmeasured
from tests.bench.sample import Sample
from tests.bench.stage import (
    BenchStage,
    cpu_seconds,
    new_prefix,
    resident_megabytes,
    settings_of,
)
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.bench.sample import Task

__all__ = ["KEYS", "measure"]

REAL, BARE = "fleet_1000", "fleet_10000"
KEYS = frozenset({REAL, BARE})
MODULES = {REAL: "tests.bench.fleet_workers", BARE: "tests.bench.fleet_bare"}
WORKERS = {REAL: 1_000, BARE: 10_000}
# Where the machine cannot hold all, the largest step that it held is told.
STEPS = (0.1, 0.5, 1.0)
PROCESSES = 2
START_SECONDS = 180.0
# A whole life of a pull, so that each one ends once.
WATCH_SECONDS = 30.0
LISTS = 3
# A connection is one in the fleet and one in the server, which has a few of its own.
FILES = 20_000


def measure(task: Task) -> Iterator[Sample]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))
    with BenchStage(task.directory, task.say) as stage:
        for number in range(1, task.rounds + 1):
            for key in sorted(task.keys):
                most = WORKERS[key] * task.scale
                sizes = sorted({max(PROCESSES, int(most * step)) for step in STEPS})
                for size in sizes if number == 1 else sizes[-1:]:
                    stage.renew_nats()
                    try:
                        yield from fleet_of(key, size, stage, task, number)
                    except TimeoutError as exc:
                        reason = f"{size} workers: {exc}"
                        raise Unmeasured({key: {f"broker-cpu-{size}": reason}}) from exc


def fleet_of(key: str, size: int, stage: BenchStage, task: Task, number: int) -> Iterator[Sample]:
    """Start so many workers, look at the server while they do nothing, and list them."""
    environment = stage.with_prefix(new_prefix())
    asyncio.run(set_up(stage.nats.url, environment))
    with ExitStack() as exits:
        began = time.monotonic()
        share = size // PROCESSES
        asides = []
        for process in range(PROCESSES):
            workers = share if process else size - share * (PROCESSES - 1)
            aside = exits.enter_context(
                Aside(
                    MODULES[key], stage.logs, environment,
                    workers=workers, first=process * size, heartbeat=CALM_HEARTBEAT_SECONDS,
                )
            )  # fmt: skip
            asides.append(aside.process)
        block_until(lambda: present(stage) >= size, START_SECONDS, f"{size} workers to be there")
        task.say(f"round {number} of {task.rounds}: {size} workers after "
                 f"{time.monotonic() - began:.0f} s")  # fmt: skip
        yield Sample(key, f"starting-{size}", time.monotonic() - began)
        for name, value in watched(stage, asides, size).items():
            yield Sample(key, f"{name}-{size}", value)
        # A thousand workers share this machine with the command only here.
        for simulated in asides:
            simulated.send_signal(signal.SIGSTOP)
        for _ in range(LISTS):
            yield Sample(key, f"workers-list-{size}", listed(size, environment))


async def set_up(url: str, environment: Mapping[str, str]) -> None:
    """Make the streams, which bare workers do not."""
    settings = settings_of(url, environment["AIRFLOW__NATS_EXECUTOR__SUBJECT_PREFIX"])
    async with connect(settings, role="bench") as broker:
        await broker.ready(START_SECONDS)
        await setup.apply(broker, settings, [QUEUE])


def present(stage: BenchStage) -> int:
    """Count the workers that wait for work: their records, and their pulls at the server."""
    with contextlib.suppress(OSError):
        found = stage.nats.monitor("/jsz?consumers=true&streams=true")
        accounts = found.get("account_details") or ()
        streams = [stream for a in accounts for stream in a.get("stream_detail") or ()]
        records = sum(s["state"]["messages"] for s in streams if s["name"].startswith("KV_"))
        consumers = [c for s in streams for c in s.get("consumer_detail") or ()]
        pulls = [c.get("num_waiting", 0) for c in consumers]
        return int(min([records, *pulls])) if pulls else 0
    return 0


def watched(
    stage: BenchStage, fleet: Sequence[subprocess.Popen[bytes]], size: int
) -> dict[str, float]:
    """Return what the server does in a while, by the second, and what a worker does."""

    def used() -> tuple[float, float]:
        return cpu_seconds(stage.nats_pid), sum(cpu_seconds(process.pid) for process in fleet)

    before, cpu, began = stage.nats.monitor("/varz"), used(), time.monotonic()
    time.sleep(WATCH_SECONDS)  # not for anything to happen: this is the measurement
    seconds = time.monotonic() - began
    broker, workers = (now - then for now, then in zip(used(), cpu, strict=True))
    after = stage.nats.monitor("/varz")
    change = {
        name: (after[name] - before[name]) / seconds
        for name in ("in_msgs", "out_msgs", "in_bytes", "out_bytes")
    }
    return {
        "broker-cpu": 100 * broker / seconds,
        "worker-cpu": 100 * workers / seconds / size,
        "broker-rss": resident_megabytes(stage.nats_pid),
        "messages-in": change["in_msgs"],
        "messages-out": change["out_msgs"],
        "bytes-in": change["in_bytes"] / 1000,
        "bytes-out": change["out_bytes"] / 1000,
    }


def listed(size: int, environment: dict[str, str]) -> float:
    """Return the seconds that `airflow nats workers list` takes, Airflow's own start included."""
    command = [sys.executable, "-m", "airflow", "nats", "workers", "list", "-o", "plain"]
    began = time.monotonic()
    shown = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    ).stdout
    seconds = time.monotonic() - began
    rows = sum("simulated-" in line for line in shown.splitlines())
    assert rows >= size, f"{rows} of {size} workers were listed"
    return seconds

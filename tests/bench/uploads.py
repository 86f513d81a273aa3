"""Measure what storing a log in NATS costs a no-op task: by its supervisor, or by the uploader.

Three pools run the same task in turns, against the stand-in Execution API and one nats-server: one
that stores nothing, one whose supervisors hold the login and store logs over connections of their
own, and one whose supervisors leave that to the worker's uploader. Two minutes on two cores:

    .venv/bin/python -m tests.bench.uploads
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.layers import cpu_below, cpu_seconds, memory, run_task, server_pid, stage

if TYPE_CHECKING:
    from nats_executor.settings import Settings
    from nats_worker.processes.pool import ProcessPool
    from nats_worker.uploads.process import Uploads

WARM_UP_TASKS = 3
STORES = {
    "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "nats_executor.logging_config.LOGGING_CONFIG",
    "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
    "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": "nats://",
}


async def compare(settings: Settings, count: int) -> None:
    from nats_worker.processes.pool import ProcessPool
    from nats_worker.uploads.process import Uploads

    async with AsyncExitStack() as exits:

        async def pool_of(uploads: Uploads | None = None) -> ProcessPool:
            uploader = uploads.to_uploader if uploads else None
            pool = await exits.enter_async_context(ProcessPool(uploads=uploader))
            await pool.ready()
            for _ in range(WARM_UP_TASKS):
                await run_task(pool)
            return pool

        pools = {"nothing stored": await pool_of()}
        os.environ.update(STORES)
        pools["by supervisors"] = await pool_of()
        uploads = await exits.enter_async_context(Uploads(settings, is_wanted=True))
        pools["by the uploader"] = await pool_of(uploads)
        assert uploads.process is not None
        uploader = uploads.process.pid
        walls: dict[str, list[float]] = {name: [] for name in pools}
        used = {name: cpu_below(server_pid(pool)) for name, pool in pools.items()}
        used_there = cpu_seconds(uploader)
        for turn in range(count):
            names = list(pools)
            for name in names[turn % 3 :] + names[: turn % 3]:
                _, began, over = await run_task(pools[name])
                walls[name].append(1000 * (over - began))
        for name, pool in pools.items():
            cpu = 1000 * (cpu_below(server_pid(pool)) - used[name]) / count
            wall = statistics.median(walls[name])
            sys.stdout.write(f"{name:16} {wall:6.1f} ms, {cpu:6.1f} ms of CPU a task\n")
        cpu = 1000 * (cpu_seconds(uploader) - used_there) / count
        size = memory(uploader)
        sys.stdout.write(f"the uploader     {cpu:6.1f} ms of CPU a task, {size['pss']} MB\n")


async def main(count: int) -> None:
    """Start what is needed, measure, print."""
    from nats_executor.broker.connection import connect
    from nats_executor.topology import setup
    from tests.support.fixtures import settings_for
    from tests.support.nats_server import NatsServer

    with tempfile.TemporaryDirectory() as name, stage(Path(name)):
        server = NatsServer(Path(name) / "nats")
        server.start()
        try:
            os.environ["AIRFLOW__NATS_EXECUTOR__SERVERS"] = server.url
            settings = settings_for(server.url, remote_base_log_folder="nats://")
            async with connect(settings, role="bench") as broker:
                await broker.ready(5)
                await setup.apply(broker, settings, [])
            await compare(settings, count)
        finally:
            server.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=60, help="tasks of each kind (default: 60)")
    asyncio.run(main(parser.parse_args().count))

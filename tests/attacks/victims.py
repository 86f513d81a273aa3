"""The parts of a deployment that read what others wrote, each in a process that measures itself.

`python -m tests.attacks.victims NAME MODE URL...` prints one line of JSON; `readers.py` calls it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from nats_executor.broker.connection import connect
from nats_executor.fleet.liveness import Holder, Liveness
from nats_executor.logs import connection
from nats_executor.logs.running import TaskLogs
from nats_executor.operations.survey import take_survey
from nats_executor.scheduler.dispatcher import Dispatcher
from nats_executor.scheduler.telemetry import Telemetry
from nats_worker.control.presence import Announcer
from tests.attacks.burdens import LAST, PATH, presence
from tests.support.user_stage import ONE_ACCOUNT, UserStage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats_executor.broker.port import Broker

__all__ = ["VICTIMS"]

# What is computed between two beats has held their loop; by the processor's time, as the machine
# may have other things to do.
BEAT_SECONDS = 0.005
PATIENCE_SECONDS = 60.0


def megabytes(name: str) -> float:
    """Return what the kernel counts of this process: what it has, or had at most."""
    status = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in status if line.startswith(f"{name}:")]
    return int(line.split()[1]) / 1024


class Measurement:
    """Memory, and how long an event loop was held at most."""

    def __init__(self) -> None:
        self.stall = 0.0
        self.before = megabytes("VmRSS")
        self.began = time.monotonic()

    async def beat(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(BEAT_SECONDS)
            self.stall = max(self.stall, time.thread_time() - before)

    def told(self, note: object) -> dict[str, Any]:
        return {
            "before": round(self.before),
            "peak": round(megabytes("VmHWM")),
            "stall": round(self.stall, 2),
            "seconds": round(time.monotonic() - self.began, 1),
            "note": str(note),
        }


async def asking(
    user: str, question: Callable[[UserStage, Broker], Awaitable[Any]], user_stage: UserStage
) -> Any:
    """Ask one thing over a connection that was there before."""
    async with connect(user_stage.settings(user), role="victim") as broker:
        await broker.ready(10)
        return await measured(question(user_stage, broker))


async def measured(what: Awaitable[Any]) -> dict[str, Any]:
    measurement = Measurement()
    beating = asyncio.create_task(measurement.beat())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            note = await what
    except Exception as exc:  # noqa: BLE001 - what went wrong is a finding
        note = f"{type(exc).__name__}: {exc}"
    finally:
        await asyncio.sleep(2 * BEAT_SECONDS)  # what held the loop until now counts, too
        beating.cancel()
    return measurement.told(note)


async def following(user_stage: UserStage) -> dict[str, Any]:
    """Follow reports, as a scheduler does, until one has come that was sent after the flood."""
    made = Dispatcher(user_stage.settings("scheduler"), "s1")
    made._streams.read_after = 0  # as one that was started before the flood

    async def read_all() -> str:
        running = asyncio.create_task(made.run())
        count = 0
        try:
            while True:
                await asyncio.sleep(0.05)
                reports = made.mailbox.reports
                while reports:
                    count += 1
                    if reports.popleft().dispatch_id == LAST:
                        return f"{count} reports"
        finally:
            running.cancel()
            await asyncio.wait([running], timeout=5)

    return await measured(read_all())


async def liveness(user_stage: UserStage, broker: Broker) -> str:
    holders = [Holder(f"evil{n}.1", f"evil{n}", "a") for n in range(40)]
    lost = await Liveness(broker, user_stage.settings("scheduler")).lost(holders)
    return f"{len(lost)} lost"


async def metrics(user_stage: UserStage, broker: Broker) -> str:
    reading = await Telemetry(user_stage.settings("scheduler"))._read(lambda: broker)
    return f"{reading.workers.total()} workers"


async def survey(user_stage: UserStage, broker: Broker) -> str:
    found = await take_survey(broker, user_stage.settings("monitor"))
    return f"{len(found.workers)} workers"


async def start(user_stage: UserStage, broker: Broker) -> str:
    mine = presence("evil0", "a")
    await Announcer(broker, user_stage.settings("worker_a"), lambda: mine).claim_name()
    return "started"


def running_log(user_stage: UserStage) -> dict[str, Any]:
    """Look for the log of a task that runs, as the API server does for a page."""
    logs = TaskLogs(lambda: user_stage.settings("api_server"))
    return on_its_connection(lambda: logs.read("d1", "a")[1])


def stored_log(user_stage: UserStage) -> dict[str, Any]:
    """Show the log of a task that has ended, as the API server does for a page."""
    from nats_executor.logs.ended import StoredLogs

    logs = StoredLogs(Path(), deletes=False)
    logs.__dict__["_settings"] = user_stage.settings("api_server")
    ti = SimpleNamespace(queue="a")
    return on_its_connection(lambda: [sum(map(len, part)) for part in logs.stream(PATH, ti)[1]][:3])


def on_its_connection(look: Callable[[], Any]) -> dict[str, Any]:
    measurement = Measurement()
    stay_open = connection.ProcessConnection._stay_open

    async def beating(self: connection.ProcessConnection) -> None:
        beat = asyncio.create_task(measurement.beat())
        try:
            await stay_open(self)
        finally:
            beat.cancel()

    connection.ProcessConnection._stay_open = beating  # type: ignore[method-assign]
    try:
        note = look()
    except Exception as exc:  # noqa: BLE001 - what went wrong is a finding
        note = f"{type(exc).__name__}: {exc}"
    return measurement.told(note)


VICTIMS: dict[str, Callable[[UserStage], Any]] = {
    "scheduler follows reports": following,
    "scheduler looks who is alive": partial(asking, "scheduler", liveness),
    "scheduler reads its metrics": partial(asking, "scheduler", metrics),
    "airflow nats check": partial(asking, "monitor", survey),
    "another worker of queue a starts": partial(asking, "worker_a", start),
    "page of a running task's log": running_log,
    "page of a stored log": stored_log,
}


def main(name: str, kind: str, *urls: str) -> None:
    first, *others = (SimpleNamespace(url=url) for url in urls)
    user_stage = UserStage(first, kind != ONE_ACCOUNT, others)  # type: ignore[arg-type]
    found = VICTIMS[name](user_stage)
    told = asyncio.run(found) if asyncio.iscoroutine(found) else found
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])

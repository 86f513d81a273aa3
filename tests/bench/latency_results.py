"""An executor that is told of ends by another process; `latency.py` runs it.

First while the scheduler's thread waits, then while it calls `heartbeat()` without a pause: that
thread holds Python's lock most of the time, and the bridge's has to wait for it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nats_executor import NatsExecutor
from nats_executor.scheduler import compat
from tests.bench.aside import Aside, answer, asked
from tests.scheduler.stage import queue_up, task_workload
from tests.support.rowless import never_look_for_rows
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from nats_executor.wire.messages import Report

WAIT_SECONDS = 120.0


class Arrivals(deque["Report"]):
    """The mailbox's reports, with how long each was under way."""

    def __init__(self) -> None:
        super().__init__()
        self.delays: list[float] = []
        self.sent_at: dict[str, float] = {}

    def append(self, report: Report, /) -> None:
        self.delays.append(time.time() - report.at)
        self.sent_at[report.dispatch_id] = report.at
        super().append(report)


def main() -> None:
    request = asked()
    count = request["count"]
    never_look_for_rows()
    executor = NatsExecutor()
    executor.job_id = 1
    executor.start()
    try:
        assert executor._connected.dispatcher
        arrivals = executor._connected.dispatcher.mailbox.reports = Arrivals()
        tasks = [task_workload(f"t{number}") for number in range(2 * count)]
        ids = {compat.key_of(task): task.ti.external_executor_id for task in tasks}
        queue_up(executor, *tasks)
        executor.heartbeat()
        executor.get_event_buffer()
        place = Path(request["directory"])
        with reporter(place, request["url"], executor, 0, count):
            block_until(lambda: len(arrivals.delays) >= count, WAIT_SECONDS, "the reports")
        received, arrivals.delays = arrivals.delays, []
        executor.sync()
        executor.get_event_buffer()
        with reporter(place, request["url"], executor, count, count):
            events = looped(executor, arrivals, ids, count)
        answer({"received": received, "event": events, "received-looping": arrivals.delays})
    finally:
        executor.end()


def reporter(place: Path, url: str, executor: NatsExecutor, first: int, count: int) -> Aside:
    prefix = executor._settings.subject_prefix
    return Aside(
        "tests.bench.latency_reporter", place, os.environ,
        url=url, prefix=prefix, first=first, count=count,
    )  # fmt: skip


def looped(
    executor: NatsExecutor, arrivals: Arrivals, ids: dict[Any, str | None], count: int
) -> list[float]:
    """Return each report's time to its event, with a scheduler that does nothing else."""
    delays: list[float] = []
    deadline = time.monotonic() + WAIT_SECONDS
    while len(delays) < count:
        executor.heartbeat()
        now = time.time()
        ended = executor.get_event_buffer()
        delays += [now - arrivals.sent_at[ids[key] or ""] for key in ended]
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(delays)} of {count} events within {WAIT_SECONDS:g} s")
    return delays


if __name__ == "__main__":
    main()

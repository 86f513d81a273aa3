"""NatsExecutor hands over workloads, and is then asked again and again; `dispatch.py` runs it."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

from nats_executor import NatsExecutor
from tests.bench.aside import answer, asked
from tests.scheduler.stage import queue_up, task_workload
from tests.support.rowless import never_look_for_rows
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.broker.port import StreamInfo
    from nats_executor.scheduler.ledger import Dispatch

WAIT_SECONDS = 120.0
# A hundred thousand in one heartbeat would meet its time limit.
MOST = 10_000


class SweepWatch:
    """Notes when sweeps begin and end; they run beside the scheduler, in the bridge's thread."""

    def __init__(self, executor: NatsExecutor) -> None:
        assert executor._connected.dispatcher
        self.inspector: Any = executor._connected.dispatcher.inspector
        self.sweep = self.inspector.sweep
        self.done = 0
        self.seconds = 0.0
        self.inspector.sweep = self.timed

    async def timed(self, dispatches: Sequence[Dispatch]) -> None:
        began = time.perf_counter()
        await self.sweep(dispatches)
        self.seconds = time.perf_counter() - began
        self.done += 1


def main() -> None:
    never_look_for_rows()
    request = asked()
    executor = NatsExecutor()
    executor.job_id = 1
    executor.start()
    try:
        watch = SweepWatch(executor)
        queue_up(executor, task_workload("first"))
        executor.heartbeat()
        block_until(lambda: watch.done, WAIT_SECONDS, "the first sweep")
        count = request["count"]
        for few in range(0, count, MOST):
            size = min(MOST, count - few)
            tasks = [task_workload(f"t{number}") for number in range(few, few + size)]
            queue_up(executor, *tasks)
            seconds = handed_over(executor, few + size)
        figures: dict[str, Any] = {"rate": size / seconds}
        if request["calls"]:
            figures["sync"] = [sync_ms(executor) for _ in range(request["calls"])]
            figures["sweep"], figures["sweep-whole"] = sweep(executor, watch)
        answer(figures)
    finally:
        executor.end()


def handed_over(executor: NatsExecutor, count: int) -> float:
    """Return the seconds until the broker has confirmed all, with one heartbeat if that does it."""
    gc.collect()  # what the set-up left behind must not be cleared up in the measured time
    began = time.perf_counter()
    executor.heartbeat()
    while len(executor.running) <= count:
        # It took longer than `publish_timeout_seconds`: the scheduler comes back to it.
        if time.perf_counter() - began > WAIT_SECONDS:
            raise TimeoutError(f"{len(executor.running) - 1} of {count} sent in {WAIT_SECONDS:g} s")
        executor.heartbeat()
    seconds = time.perf_counter() - began
    assert messages(executor) == count + 1
    return seconds


def messages(executor: NatsExecutor) -> int:
    """Count what is in the task stream."""
    assert executor._connected.dispatcher
    assert executor._connected.bridge
    broker = executor._connected.dispatcher.require_broker()
    info: StreamInfo | None = executor._connected.bridge.call(
        broker.stream_info(executor._settings.names.tasks_stream), timeout=WAIT_SECONDS
    )
    assert info
    return info.messages


def sync_ms(executor: NatsExecutor) -> float:
    began = time.perf_counter()
    executor.sync()
    return (time.perf_counter() - began) * 1000


def sweep(executor: NatsExecutor, watch: SweepWatch) -> tuple[list[float], list[float]]:
    """Return the slowest `sync()` from the one that begins a sweep to its end, and its length.

    The sweep itself runs in another thread, but holds Python's lock for much of its time.
    """
    assert executor._connected.upkeep
    before = watch.done
    executor._connected.upkeep._next_sweep = 0.0
    slowest = 0.0
    while watch.done == before:
        slowest = max(slowest, sync_ms(executor))
    return [slowest], [watch.seconds * 1000]


if __name__ == "__main__":
    main()

"""CeleryExecutor hands over workloads, and is then asked again; `dispatch.py` runs it."""

from __future__ import annotations

import gc
import importlib
import time
from typing import Any

from airflow.configuration import conf

from tests.bench.aside import answer, asked
from tests.scheduler.stage import queue_up, task_workload


def main() -> None:
    request = asked()
    # Not everywhere installed, so that a type checker may not know them.
    redis: Any = importlib.import_module("redis")
    provider: Any = importlib.import_module("airflow.providers.celery.executors.celery_executor")
    broker = redis.Redis.from_url(conf.get_mandatory_value("celery", "broker_url"))
    broker.flushall()
    executor: Any = provider.CeleryExecutor()
    executor.job_id = 1
    executor.start()
    queue_up(executor, task_workload("first"))
    executor.heartbeat()
    tasks = [task_workload(f"t{number}") for number in range(request["count"])]
    queue_up(executor, *tasks)
    gc.collect()  # what the set-up left behind must not be cleared up in the measured time
    began = time.perf_counter()
    executor.heartbeat()
    seconds = time.perf_counter() - began
    assert len(executor.running) == len(tasks) + 1
    assert broker.llen("default") == len(tasks) + 1
    answer(
        {"rate": len(tasks) / seconds, "sync": [sync_ms(executor) for _ in range(request["calls"])]}
    )
    broker.flushall()


def sync_ms(executor: Any) -> float:
    began = time.perf_counter()
    executor.sync()
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()

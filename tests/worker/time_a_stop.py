"""Measures how long a task that ignores SIGTERM goes on after its heartbeat was refused.

A real supervisor and a real task, at the defaults of this Airflow:
`python -m tests.worker.time_a_stop`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
import uuid
from importlib.metadata import version
from pathlib import Path

from nats_worker.processes.pool import ProcessPool
from tests.support.execution_api import Answer, ExecutionApi
from tests.support.process_stage import is_alive, make_home, task_body
from tests.support.waiting import wait_until

REFUSED = Answer(409, {"reason": "not_running"})
DEFAULT_INTERVAL = "5"


async def measure(api: ExecutionApi) -> float:
    ti_id = str(uuid.uuid4())
    api.script(ti_id, "heartbeat", Answer(200), REFUSED)
    async with ProcessPool() as pool:
        run = await pool.start(ti_id, task_body("stubborn", ti_id))
        await wait_until(lambda: len(api.bodies(ti_id, "heartbeat")) > 1, 600, "the refusal")
        begun = time.monotonic()
        await wait_until(lambda: not is_alive(run.task_pid), 600, "its death")
        return time.monotonic() - begun


def main() -> None:
    logging.disable()
    with ExecutionApi() as api, tempfile.TemporaryDirectory() as directory:
        home, marks = Path(directory, "home"), Path(directory, "marks")
        home.mkdir()
        marks.mkdir()
        os.environ.update(make_home(home, api, marks))
        os.environ["AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL"] = DEFAULT_INTERVAL
        seconds = asyncio.run(measure(api))
    print(f"Airflow {version('apache-airflow')}: {seconds:.1f} s")  # noqa: T201 - the result


if __name__ == "__main__":
    main()

"""The Dag of the chaos driver: tasks that keep a journal; imported by Airflow only."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, get_current_context, task

JOURNAL = Path(os.environ["TEST_MARKS"], "journal")
BEAT_SECONDS = 0.1
# More than one row will ever meet: what runs out of tries must not hide what went wrong before.
RETRIES = 8


def keep_journal(number: int) -> None:
    """Say twenty times a second that this execution lives, which a kill -9 cannot retract."""
    ti = get_current_context()["ti"]
    JOURNAL.mkdir(exist_ok=True)
    path = JOURNAL / f"{ti.run_id}#{ti.task_id}#{ti.map_index}#{ti.try_number}#{os.getpid()}"
    seconds = number % 4 * 1.0
    with path.open("a", buffering=1) as journal:
        end = time.monotonic() + seconds
        journal.write(f"start {time.monotonic()}\n")
        while time.monotonic() < end:
            time.sleep(BEAT_SECONDS)
            journal.write(f"beat {time.monotonic()}\n")
        journal.write(f"end {time.monotonic()}\n")


with DAG("chaos", schedule=None, max_active_tasks=64, max_active_runs=64):
    for queue, size in (("red", 8), ("blue", 7)):
        task(
            task_id=queue,
            queue=queue,
            retries=RETRIES,
            retry_delay=timedelta(seconds=queue == "red"),
        )(keep_journal).expand(number=list(range(size)))

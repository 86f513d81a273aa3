"""Two hundred tasks of which it is known how each has to end, whatever is killed meanwhile."""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path

from airflow.sdk import dag, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

# How many of each kind; tests/containers/trial.py knows how they end.
STEADY, HEAVY, FAILING, FLAKY, SKIPPING = 110, 40, 20, 20, 10


def mark(what: str) -> None:
    """Write down that this try begins or ends; whole lines, from any number of containers."""
    ti = get_current_context()["ti"]
    line = f"{ti.task_id} {ti.map_index} {ti.try_number} {what}\n"
    path = Path(os.environ["TRIAL_MARKS"]) / os.uname().nodename
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, line.encode())
    os.close(file)


@dag(
    schedule=None,
    max_active_tasks=64,
    default_args={"retries": 2, "retry_delay": dt.timedelta(seconds=1)},
)
def trial() -> None:
    """Every kind of end, on two queues."""

    @task
    def steady(number: int) -> None:
        mark("begin")
        time.sleep(1 + number % 3)
        mark("end")

    @task(queue="heavy")
    def heavy(number: int) -> None:
        mark("begin")
        time.sleep(1 + number % 2)
        mark("end")

    @task(retries=1)
    def failing(number: int) -> None:
        mark("begin")
        raise RuntimeError(f"number {number} never succeeds")

    @task
    def flaky(number: int) -> None:
        mark("begin")
        if get_current_context()["ti"].try_number == 1:
            raise RuntimeError(f"number {number} fails at first")
        mark("end")

    @task
    def skipping(number: int) -> None:
        mark("begin")
        raise AirflowSkipException(f"number {number} has nothing to do")

    steady.expand(number=list(range(STEADY)))
    heavy.expand(number=list(range(HEAVY)))
    failing.expand(number=list(range(FAILING)))
    flaky.expand(number=list(range(FLAKY)))
    skipping.expand(number=list(range(SKIPPING)))


trial()


@dag(schedule=None)
def patient() -> None:
    """One task that is still running when its worker is told to stop."""

    @task
    def wait() -> None:
        print("patience pays")  # noqa: T201 - into the task's log
        time.sleep(20)

    wait()


patient()

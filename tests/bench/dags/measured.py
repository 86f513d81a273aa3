"""The Dags that every contender runs; `BENCH_SCALE` makes them smaller for a trial."""

from __future__ import annotations

import atexit
import os
import time
from pathlib import Path

from airflow.sdk import dag, get_current_context, task

SCALE = float(os.environ.get("BENCH_SCALE", "1"))
SECOND = 1.0


def numbers(full_size: int) -> list[int]:
    return list(range(max(1, round(full_size * SCALE))))


# More than any number of slots: nothing but the executor holds tasks back.
@dag(schedule=None, max_active_tasks=1024)
def warm() -> None:
    noop.expand(_n=list(range(32)))


@dag(schedule=None, max_active_tasks=1024)
def noops() -> None:
    noop.expand(_n=numbers(200))


@dag(schedule=None, max_active_tasks=1024)
def to_500() -> None:
    noop.expand(_n=numbers(270))


@dag(schedule=None, max_active_tasks=1024)
def to_5000() -> None:
    noop.expand(_n=numbers(900))


@dag(schedule=None, max_active_tasks=1024)
def seconds() -> None:
    one_second.expand(_n=numbers(200))


@dag(schedule=None, max_active_tasks=1024)
def ends() -> None:
    noted_end.expand(_n=numbers(200))


@task
def noop(_n: int) -> None:
    pass


@task
def one_second(_n: int) -> None:
    time.sleep(SECOND)


@task
def noted_end(_n: int) -> None:
    """Note when this process ends: with the last Python that it runs, after all of Airflow's."""
    ti = str(get_current_context()["ti"].id)
    notes = Path(os.environ["BENCH_NOTES"]) / "ended"

    def note() -> None:
        line = f"{ti} {time.monotonic_ns()}\n".encode()
        with open(notes, "ab", buffering=0) as file:  # noqa: PTH123
            file.write(line)

    atexit.register(note)


for made in (warm, noops, to_500, to_5000, seconds, ends):
    made()

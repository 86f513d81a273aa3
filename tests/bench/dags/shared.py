"""The common part of the Dags; each has a file of its own, as every task parses its Dag's file."""

from __future__ import annotations

import os

from airflow.sdk import task

__all__ = ["UNLIMITED", "noop", "numbers"]

SCALE = float(os.environ.get("BENCH_SCALE", "1"))  # smaller for a trial
# More than any number of slots: nothing but the executor holds tasks back.
UNLIMITED = 1024


def numbers(full_size: int) -> list[int]:
    return list(range(max(1, round(full_size * SCALE))))


@task
def noop(_n: int) -> None:
    pass

"""The common part of the Dags."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

__all__ = ["RETRIES", "RETRY_DELAY", "note_begin"]

RETRIES = 2
RETRY_DELAY = timedelta(seconds=1)


def note_begin(n: int) -> None:
    """Say that this task's own code begins, each time that it does."""
    with (Path(os.environ["BENCH_NOTES"]) / "begun").open("ab", buffering=0) as file:
        file.write(f"{n}\n".encode())

"""Marks of a task for the test that watches it: files in one directory."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["hold", "lines", "note"]

MARKS = Path(os.environ["TEST_MARKS"])


def hold(name: str) -> None:
    """Say which process runs, and run until the test says that it may end."""
    # The test must not read half a number.
    unfinished = MARKS / f"{name}-{os.getpid()}"
    unfinished.write_text(str(os.getpid()))
    unfinished.rename(MARKS / f"{name}-runs")
    while not (MARKS / f"{name}-may-end").exists():
        time.sleep(0.05)


def note(name: str, text: str = "ran") -> None:
    """Append a line, in one piece even if other processes write."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    file = os.open(MARKS / f"{name}-lines", flags, 0o644)
    try:
        os.write(file, f"{text}\n".encode())
    finally:
        os.close(file)


def lines(name: str) -> list[str]:
    return (MARKS / f"{name}-lines").read_text().splitlines()

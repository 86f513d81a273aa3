"""The frame of a run of the benchmark: its directory, its output, an end in good order."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.sample import Task

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

__all__ = ["INTERRUPTED", "forget_foreign", "handle_stop", "keep", "run_directory", "task_for"]

INTERRUPTED = 130
FOREIGN = ("AIRFLOW_", "NATS_EXECUTOR_")


def forget_foreign() -> None:
    """Forget what the environment configures: a developer's own must not be measured."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]


def task_for(options: argparse.Namespace, directory: Path, name: str, keys: frozenset[str]) -> Task:
    began = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - began:5.0f} s] {name}: {line}\n")

    place = directory / name
    place.mkdir()
    return Task(options.rounds, options.scale, place, say, keys)


def keep(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    half.write_text(text)
    half.rename(path)


def handle_stop(how: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, how)


@contextlib.contextmanager
def run_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="airflow-nats-bench-"))
    directory.chmod(0o755)  # PostgreSQL runs as a user of its own
    os.environ["AIRFLOW_HOME"] = str(directory / "airflow")
    try:
        yield directory
    finally:
        handle_stop(signal.SIG_IGN)
        shutil.rmtree(directory, ignore_errors=True)

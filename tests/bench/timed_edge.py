"""`airflow edge worker` that notes, for each task instance, when its slot was given back.

A job is taken from the worker's list, which is what its slots are counted by, right before its
files are removed.
"""

from __future__ import annotations

import functools
import sys
from importlib import import_module
from typing import Any

from tests.bench.timed_worker import note


def attach() -> None:
    job = import_module("airflow.providers.edge3.cli.dataclasses").Job
    cleanup = job.cleanup

    @functools.wraps(cleanup)
    def timed(self: Any) -> None:
        note(self.edge_job.command.ti.id)
        cleanup(self)

    job.cleanup = timed


if __name__ == "__main__":
    # Before Airflow is loaded, because the provider looks at these words to know what it is.
    sys.argv[0] = "airflow"
    from airflow.__main__ import main

    attach()
    main()

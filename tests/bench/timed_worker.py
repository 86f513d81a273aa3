"""`airflow nats worker` that notes, for each task instance, when its slot was given back.

Run as a module with the words of `airflow`. Everything else is the real worker; a line of
`BENCH_NOTES`/freed holds the task instance's id and CLOCK_MONOTONIC in nanoseconds.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

NOTES = Path(os.environ.get("BENCH_NOTES", "/nowhere")) / "freed"


def note(ti: object) -> None:
    line = f"{ti} {time.monotonic_ns()}\n".encode()
    with NOTES.open("ab", buffering=0) as file:
        file.write(line)


def attach() -> None:
    from nats_worker.delivery.errand import Errand

    execute = Errand.execute

    @functools.wraps(execute)
    async def timed(self: Errand, workload: Any, claim: Any, on_exit: Callable[[], None]) -> Any:
        def timed_exit() -> None:
            on_exit()
            note(workload.body["ti"]["id"])

        return await execute(self, workload, claim, timed_exit)

    Errand.execute = timed  # type: ignore[method-assign]


def run_airflow() -> None:
    """Run `airflow` with this process's words; what was changed here stays for the worker."""
    from airflow.__main__ import main

    from nats_worker import main as worker_main

    worker_main.become = worker_main.run_worker  # type: ignore[assignment] # a new program would lose it
    sys.argv[0] = "airflow"
    main()


if __name__ == "__main__":
    attach()
    run_airflow()

"""Runs a worker's main process: everything but Airflow, which only its fork server imports.

`cli.py` reads the command line and Airflow's configuration and then becomes this program, with
what it has read in an inherited file: a sixth of the memory, and no password in a process list.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from setproctitle import setproctitle

from nats_executor.errors import NatsExecutorError
from nats_executor.text import one_line
from nats_worker import log_lines
from nats_worker.processes.concealment import environment_without_login
from nats_worker.processes.linux import keep_private
from nats_worker.processes.pool import PoolBroken
from nats_worker.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats_executor.settings import Settings
    from nats_worker.state import Plan

__all__ = ["Start", "become"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A worker's settings, and the options of its command line.

    Attributes:
        pid_file: a daemon's, which it removes at its end.
        log_file: a daemon's; without one log lines go to stdout.
    """

    settings: Settings = field(repr=False)
    plan: Plan
    is_verbose: bool
    is_json: bool
    pid_file: str | None = None
    log_file: str | None = None


def become(start: Start) -> NoReturn:
    """Replace this process, whose pid stays, by one that only runs the worker.

    Its environment, which everything below it has, holds no login.
    """
    handover = os.memfd_create("worker")
    os.write(handover, pickle.dumps(start))
    os.lseek(handover, 0, os.SEEK_SET)
    os.set_inheritable(handover, True)
    sys.stdout.flush()
    sys.stderr.flush()
    environment = environment_without_login(os.environ, start.settings, team=start.plan.team)
    command = [sys.executable, "-P", "-m", __name__, str(handover)]
    os.execve(sys.executable, command, environment)  # noqa: S606 - our own interpreter and module


def run_worker(start: Start) -> None:
    """Run a worker; a reason that ends it is one line on stderr and exit code 1."""
    log_lines.set_up(is_verbose=start.is_verbose, is_json=start.is_json, file=start.log_file)
    try:
        asyncio.run(Worker(start.settings, start.plan).run())
    except* (NatsExecutorError, PoolBroken) as group:
        for exc in leaves(group):
            sys.stderr.write(f"error: {one_line(str(exc))}\n")
        raise SystemExit(1) from None
    finally:
        if start.pid_file:
            with contextlib.suppress(FileNotFoundError):
                Path(start.pid_file).unlink()


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from leaves(exc)
        else:
            yield exc


def main(handover: int) -> None:
    keep_private()
    with os.fdopen(handover, "rb") as file:
        start = pickle.load(file)  # noqa: S301 - written by `become`, in this very process
    setproctitle(f"airflow nats worker {start.plan.name}")
    run_worker(start)


if __name__ == "__main__":
    main(int(sys.argv[1]))

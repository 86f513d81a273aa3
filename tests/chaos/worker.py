"""One real worker: `python -m tests.chaos.worker NAME QUEUES CONCURRENCY`.

Only its fork server is another one, which needs no Airflow, and so it starts within a second.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

from nats_executor.settings import Settings
from nats_worker.delivery import errand
from nats_worker.processes import handle
from nats_worker.state import Plan
from nats_worker.worker import Worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

__all__ = ["Environment"]

SPAWN = handle.spawn
STAND_INS = {"nats_worker.processes.forkserver": "tests.chaos.forkserver"}
# What no executor knows any more leaves the stream after this time, within the end of a run.
ABANDONED_SECONDS = 15.0


class Environment:
    """The settings as Airflow would find them in the environment, without importing it."""

    def get(self, section: str, key: str, *, fallback: Any) -> Any:
        return os.environ.get(f"AIRFLOW__{section.upper()}__{key.upper()}", fallback)


def spawn(
    uploads: socket.socket | None, modules: Sequence[str] = ()
) -> tuple[subprocess.Popen[bytes], socket.socket, socket.socket]:
    """Start our fork server where the worker starts its own."""
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        ours = [STAND_INS.get(part, part) for part in command]
        assert ours != command, f"no stand-in for any part of {command}"
        return popen(ours, **options)

    with mock.patch.object(subprocess, "Popen", start):
        return SPAWN(uploads, modules)


def main(name: str, queues: str, concurrency: str) -> None:
    logging.basicConfig(
        format="%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        level=logging.INFO,
    )
    plan = Plan(
        name=name,
        queues=tuple(queues.split(",")),
        concurrency=int(concurrency),
        team=None,
        cleanup_seconds=0.0,
        version="chaos",
    )
    vars(errand).update(ABANDONED_SECONDS=ABANDONED_SECONDS)
    work = partial(Worker, Settings.load(Environment()), plan)
    with mock.patch.object(handle, "spawn", spawn):
        asyncio.run(work().run())


if __name__ == "__main__":
    main(*sys.argv[1:])

"""`nats-worker` with a trapdoor: dies at a chosen point, or lives by a clock that is wrong.

Everything else is the real thing. `TRAPS` is a folder: a file `<dispatch id>.<point>.<n>` there
kills one process that reaches the point with that dispatch. `CLOCK_OFFSET` is in seconds.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path
from typing import Any

OFFSET = float(os.environ.get("CLOCK_OFFSET", "0"))
TRAPS = Path(os.environ.get("TRAPS", "/nowhere"))


def spring(dispatch_id: str, point: str) -> None:
    """Die, if there is a trap left here; each one kills once."""
    for trap in TRAPS.glob(f"{dispatch_id}.{point}.*"):
        try:
            trap.unlink()
        except FileNotFoundError:  # it has caught another worker in this instant
            continue
        os.kill(os.getpid(), signal.SIGKILL)


def shift_clock() -> None:
    right = time.time
    time.time = lambda: right() + OFFSET


def set_traps() -> None:
    from nats_worker.delivery.errand import Errand
    from nats_worker.processes.pool import ProcessPool

    decide, start = Errand.decide, ProcessPool.start

    @functools.wraps(decide)
    async def trapped_decide(self: Errand) -> Any:
        spring(self.dispatch_id, "received")
        return await decide(self)

    @functools.wraps(start)
    async def trapped_start(self: ProcessPool, dispatch_id: str, *args: Any, **options: Any) -> Any:
        spring(dispatch_id, "claimed")
        return await start(self, dispatch_id, *args, **options)

    Errand.decide = trapped_decide  # type: ignore[method-assign]
    ProcessPool.start = trapped_start  # type: ignore[method-assign]


if __name__ == "__main__":
    if OFFSET:
        shift_clock()
    set_traps()
    from nats_worker import cli, main

    main.become = main.run_worker  # type: ignore[assignment] # what is trapped here must stay
    cli.main()

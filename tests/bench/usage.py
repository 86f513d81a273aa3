"""Read what the processes below another one have used: CPU seconds, and their own memory."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from tests.support.worker_process import descendants

__all__ = ["cpu_seconds", "pss_megabytes", "settled_pss_megabytes"]

TICKS = os.sysconf("SC_CLK_TCK")
# Places in /proc/PID/stat after the command's name: user and system time, then that of the
# children that it has waited for, which holds that of their children.
OWN = slice(11, 13)
WAITED_FOR = slice(13, 15)
STEADY = 0.01
STEADY_SECONDS = 4.0
PAUSE_SECONDS = 0.5
LONGEST_SECONDS = 60.0


def cpu_seconds(root: int) -> float:
    """Return user and system time of all that runs or has run below a process, without its own.

    Every process that ends is waited for by its parent, which gets its times; an orphan comes to
    `root`, if that is a subreaper as a leash is. Processes that ignore SIGCHLD would lose some.
    """
    ticks = sum(times(root)[WAITED_FOR])
    for pid in descendants(root):
        with suppress(OSError):  # it has just ended: its parent has its times
            found = times(pid)
            ticks += sum(found[OWN]) + sum(found[WAITED_FOR])
    return ticks / TICKS


def times(pid: int) -> list[int]:
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return [int(field) if field.isdigit() else 0 for field in fields]


def pss_megabytes(root: int) -> float:
    """Return the proportional set size of all processes below one, in 10^6 bytes.

    It counts a page that several processes share once in all, which the resident size does not.
    """
    kibibytes = 0
    for pid in descendants(root):
        with suppress(OSError):  # it has just ended
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kibibytes += int(line.split()[1])
    return kibibytes * 1024 / 1e6


def settled_pss_megabytes(root: int) -> float:
    """Return the set size once it has kept within a hundredth for a while; the last one if not."""
    deadline = time.monotonic() + LONGEST_SECONDS
    seen = [pss_megabytes(root)]
    count = round(STEADY_SECONDS / PAUSE_SECONDS)
    while time.monotonic() < deadline:
        time.sleep(PAUSE_SECONDS)
        seen = [*seen[-count:], pss_megabytes(root)]
        if len(seen) > count and max(seen) - min(seen) <= STEADY * max(seen):
            break
    return seen[-1]

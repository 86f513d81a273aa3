"""Finds out which processors a worker may use, and whether processes wait for them."""

from __future__ import annotations

import math
import os
import re
import time
from typing import TYPE_CHECKING

from nats_worker.processes import memory

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Waits", "processors"]

MICROSECOND = 1e-6


def processors(*, own: Path = memory.OWN, root: Path = memory.ROOT) -> int:
    """Return how many processors this process may use, by its affinity and its cgroups' quotas."""
    allowed = len(os.sched_getaffinity(0))
    quotas = [quota for place in cgroups(own, root) if (quota := quota_of(place))]
    return max(1, math.ceil(min([allowed, *quotas])))


def cgroups(own: Path, root: Path) -> list[Path]:
    """Return the directories of this process's cgroup and those above it, of version 2.

    In a container its own cgroup may be mounted as the root, whatever its path says.
    """
    line = next((line for line in memory.text_of(own).splitlines() if line.startswith("0::")), "")
    place = root / line.removeprefix("0::").lstrip("/")
    return [place, *(above for above in place.parents if root in (above, *above.parents))]


def quota_of(place: Path) -> float | None:
    """Return the processors' worth of time of a cgroup's quota, None without one."""
    match memory.text_of(place / "cpu.max").split():
        case [quota, period] if quota.isdecimal() and period.isdecimal() and int(period):
            return int(quota) / int(period)
    return None


class Waits:
    """Tells for how much of a moment some process waited for a processor.

    It reads the kernel's pressure stall information, of this process's cgroup or else of the
    machine, as a sum of time. So a moment is as short as one likes.
    """

    def __init__(
        self, *, own: Path = memory.OWN, root: Path = memory.ROOT, proc: Path = memory.PROC
    ) -> None:
        own_file = cgroups(own, root)[0] / "cpu.pressure"
        self._files = (own_file, proc / "pressure" / "cpu")
        self._began = math.nan
        self._total: float | None = None

    @property
    def seconds(self) -> float:
        """Length of the moment so far; NaN before the first."""
        return time.monotonic() - self._began

    def begin(self) -> None:
        """Begin a moment."""
        self._began, self._total = time.monotonic(), self._read()

    def share(self) -> float | None:
        """Return the share of the moment so far in which one waited; None if not known."""
        total, seconds = self._read(), self.seconds
        if total is None or self._total is None or not seconds > 0:
            return None
        return min(1.0, max(0.0, (total - self._total) / seconds))

    def _read(self) -> float | None:
        for file in self._files:
            if found := re.search(r"^some .*\btotal=([0-9]+)", memory.text_of(file), re.MULTILINE):
                return int(found[1]) * MICROSECOND
        return None

"""Whether the kernel killed a process because memory ran out, as far as it tells."""

from __future__ import annotations

from pathlib import Path

__all__ = ["oom_kills", "sigkill_reason"]

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def oom_kills(*, own: Path = OWN, root: Path = ROOT) -> int | None:
    """Return how many processes of this cgroup the OOM killer has ended, None if not known.

    Reads `memory.events` of cgroup v2, which counts kills for its own limit and for the host's.
    """
    try:
        place = next(line[3:] for line in own.read_text().splitlines() if line.startswith("0::"))
        events = (root / place.lstrip("/") / "memory.events").read_text()
        return next(
            int(line.split()[1]) for line in events.splitlines() if line.startswith("oom_kill ")
        )
    except (KeyError, OSError, StopIteration, ValueError):
        return None


def sigkill_reason(before: int | None) -> str:
    """Return why a task process probably got SIGKILL, given the count from before it started."""
    after = oom_kills()
    if before is None or after is None:
        return "the task process was killed by SIGKILL, possibly out of memory"
    if after > before:
        return "the task process was killed by SIGKILL, out of memory according to the kernel"
    return "the task process was killed by SIGKILL; the kernel counted no out-of-memory kill"

"""Whether the kernel killed a process because memory ran out, as far as it tells."""

from __future__ import annotations

from pathlib import Path

__all__ = ["oom_kills", "sigkill_reason"]

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def oom_kills(*, own: Path = OWN, root: Path = ROOT) -> int | None:
    """Return how many processes of this cgroup the OOM killer has ended, None if not known.

    Reads `memory.events` of cgroup v2 or `memory.oom_control` of v1, which count kills for the
    group's own limit and for the host's.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    # The line of v1 first: where both are there, it is v1 that limits the memory.
    for start, directory, name in (
        (":memory:", root / "memory", "memory.oom_control"),
        ("0::", root, "memory.events"),
    ):
        try:
            place = next(line.partition(start)[2] for line in lines if start in line)
            events = (directory / place.lstrip("/") / name).read_text().splitlines()
            return next(int(line.split()[1]) for line in events if line.startswith("oom_kill "))
        except (IndexError, OSError, StopIteration, ValueError):
            continue
    return None


def sigkill_reason(before: int | None) -> str:
    """Return why a task process probably got SIGKILL, given the count from before it started."""
    after = oom_kills()
    if before is None or after is None:
        return "the task process was killed by SIGKILL, possibly out of memory"
    if after > before:
        return "the task process was killed by SIGKILL, out of memory according to the kernel"
    return "the task process was killed by SIGKILL; the kernel counted no out-of-memory kill"

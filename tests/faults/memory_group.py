"""A cgroup with a memory limit, below the one that this process is in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from tests.support.waiting import block_until

__all__ = ["MemoryGroup"]

ROOT = Path("/sys/fs/cgroup")


def parent() -> tuple[Path, str]:
    """Return our own memory cgroup and the name of its limit; raises `OSError` without one."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers == "memory":
            return ROOT / "memory" / place.lstrip("/"), "memory.limit_in_bytes"
        if not controllers and "memory" in controllers_of(ROOT / place.lstrip("/")):
            group = ROOT / place.lstrip("/")
            # Refused where processes are in the group itself, as in most containers.
            (group / "cgroup.subtree_control").write_text("+memory")
            return group, "memory.max"
    raise OSError("this process is in no memory cgroup")


def controllers_of(group: Path) -> str:
    path = group / "cgroup.controllers"
    return path.read_text() if path.exists() else ""


class MemoryGroup:
    """The group, for the length of the context; raises `OSError` where the machine has none."""

    def __init__(self) -> None:
        above, self.limit_name = parent()
        self.path = above / f"airflow-nats-executor-tests-{os.getpid()}"

    def __enter__(self) -> Self:
        self.path.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        block_until(self.is_removed, 10, "the last process to leave the cgroup")

    def is_removed(self) -> bool:
        try:
            self.path.rmdir()
        except OSError:  # busy: what was killed is not reaped yet
            return False
        return True

    def add(self, pid: int) -> None:
        (self.path / "cgroup.procs").write_text(str(pid))

    @property
    def usage(self) -> int:
        current = "memory.current" if self.limit_name == "memory.max" else "memory.usage_in_bytes"
        return int((self.path / current).read_text())

    def limit(self, size: int) -> None:
        (self.path / self.limit_name).write_text(str(size))

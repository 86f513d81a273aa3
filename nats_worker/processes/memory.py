"""Reads from the kernel how much memory is used, and whether it killed a process for it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nats_worker.processes.linux import children_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "OWN",
    "PROC",
    "ROOT",
    "MemoryReading",
    "bytes_of_tree",
    "oom_kills",
    "read",
    "sigkill_reason",
    "text_of",
]

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
PROC = Path("/proc")
GIB = 2**30
KERNEL_PAGE = os.sysconf("SC_PAGE_SIZE")
# So many processes are looked at, at most.
LARGEST_TREE = 5000


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
    """Return why a task process probably got SIGKILL, given the count from before it started.

    The reason alone: the verdict names the process and the signal.
    """
    after = oom_kills()
    if before is None or after is None:
        return "possibly out of memory"
    if after > before:
        return "out of memory according to the kernel"
    return "the kernel counted no out-of-memory kill"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReading:
    """The memory at one moment; None is what the kernel does not tell.

    Attributes:
        used_percent: of the limit that is closest, a cgroup's or the machine's.
        where: what that is, for a person.
        used, limit: the same in bytes, 0 if not known; `what` has that limit, cgroup or machine.
        pressure_percent: the time in which some process waited for memory, in the last ten seconds.
    """

    used_percent: float | None = None
    where: str = ""
    used: int = 0
    limit: int = 0
    what: str = ""
    pressure_percent: float | None = None


def read(*, own: Path = OWN, root: Path = ROOT, proc: Path = PROC) -> MemoryReading:
    """Read how full the memory is that this process may use."""
    uses = list(uses_of_cgroups(own, root))
    if machine := use_of_machine(proc / "meminfo"):
        uses.append(machine)
    used, limit, what = max(uses, key=lambda use: use[0] / use[1], default=(0, 0, ""))
    return MemoryReading(
        used_percent=100 * used / limit if limit else None,
        used=used,
        limit=limit,
        what=what,
        where=f"{used / GIB:.1f} of {limit / GIB:.1f} GiB of the {what}" if limit else "",
        pressure_percent=pressure(own, root, proc),
    )


def bytes_of_tree(pid: int, *, proc: Path = PROC) -> int:
    """Return what a process and all its descendants use; pages that they share count once."""
    tree = [pid]
    for parent in tree:
        tree.extend(children_of(parent))
        if len(tree) > LARGEST_TREE:
            break
    return sum(bytes_of(process, proc) for process in tree)


def bytes_of(pid: int, proc: Path) -> int:
    """Return a process's share of the memory, 0 once it is gone."""
    directory = proc / str(pid)
    if share := table_in(directory / "smaps_rollup").get("Pss:"):
        return 1024 * share
    # It is another user's, or keeps its memory private. Then all of it counts that others share.
    facts = text_of(directory / "statm").split()
    return int(facts[1]) * KERNEL_PAGE if len(facts) > 1 else 0


def uses_of_cgroups(own: Path, root: Path) -> Iterator[tuple[int, int, str]]:
    """Yield use and limit of this process's cgroup and of those above it, as far as they have one.

    In a container its own cgroup may be mounted as the root, whatever its path says.
    """
    for version, directory in memory_cgroups(own, root):
        if version == 1:
            limits, use = ["memory.limit_in_bytes"], "memory.usage_in_bytes"
            droppable = ["total_inactive_file", "total_active_file"]
        else:
            limits, use = ["memory.max", "memory.high"], "memory.current"
            droppable = ["inactive_file", "active_file", "slab_reclaimable"]
        found = [limit for name in limits if (limit := number_in(directory / name))]
        used = number_in(directory / use)
        if found and used is not None:
            # Without what the kernel drops before it kills anybody: reading files must not pause.
            facts = table_in(directory / "memory.stat")
            used -= sum(facts.get(name, 0) for name in droppable)
            yield max(0, used), min(found), "cgroup"


def memory_cgroups(own: Path, root: Path) -> Iterator[tuple[int, Path]]:
    """Yield the version and the directory of each cgroup that may limit this process's memory."""
    lines = text_of(own).splitlines()
    # The line of v1 first: where both are there, it is v1 that limits the memory.
    for version, start, base in ((1, ":memory:", root / "memory"), (2, "0::", root)):
        if place := next((line.partition(start)[2] for line in lines if start in line), ""):
            directory = base / place.lstrip("/")
            yield version, directory
            for above in directory.parents:
                if base in (above, *above.parents):
                    yield version, above
            return


def use_of_machine(meminfo: Path) -> tuple[int, int, str] | None:
    facts = table_in(meminfo)
    total, available = facts.get("MemTotal:", 0), facts.get("MemAvailable:")
    if not total or available is None:
        return None
    return 1024 * max(0, total - available), 1024 * total, "machine"


def pressure(own: Path, root: Path, proc: Path) -> float | None:
    """Return `some avg10` of this process's cgroup, or else of the machine."""
    own_cgroup = [place / "memory.pressure" for _, place in memory_cgroups(own, root)][:1]
    for file in (*own_cgroup, proc / "pressure" / "memory"):
        if found := re.search(r"^some avg10=([0-9]+(\.[0-9]+)?)\b", text_of(file), re.MULTILINE):
            return float(found[1])
    return None


def text_of(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def number_in(file: Path) -> int | None:
    """Read a file that holds a number; None for one that says `max`, or is not there."""
    text = text_of(file).strip()
    return int(text) if text.isdecimal() else None


def table_in(file: Path) -> dict[str, int]:
    """Read lines of a name and a number; what else they hold does not count."""
    rows = (line.split() for line in text_of(file).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}

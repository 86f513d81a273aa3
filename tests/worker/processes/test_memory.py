"""The memory's figures are read from files of every kind; one that is missing is None."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from nats_worker.processes import memory

if TYPE_CHECKING:
    from pathlib import Path

V2 = "0::/workers/a\n"
HYBRID = "4:memory:/workers/a\n0::/workers/a\n"
V1 = "4:memory:/workers/a\n"


@pytest.mark.parametrize(
    ("own", "events", "count"),
    [
        (V2, "low 0\noom 3\noom_kill 2\noom_group_kill 0\n", 2),
        (HYBRID, "oom_kill 0\n", 0),
        (V1, "oom_kill 2\n", None),  # that file is not v1's
        (V2, "low 0\n", None),
        (V2, "nonsense", None),
        ("", "oom_kill 2\n", None),
    ],
)
def test_the_kernels_count_is_read_or_not_known(
    tmp_path: Path, own: str, events: str, count: int | None
) -> None:
    (tmp_path / "workers/a").mkdir(parents=True)
    (tmp_path / "workers/a/memory.events").write_text(events)
    (tmp_path / "own").write_text(own)

    assert memory.oom_kills(own=tmp_path / "own", root=tmp_path) == count


@pytest.mark.parametrize("own", [V1, HYBRID])
def test_the_older_cgroups_are_read_as_well(tmp_path: Path, own: str) -> None:
    (tmp_path / "memory/workers/a").mkdir(parents=True)
    control = tmp_path / "memory/workers/a/memory.oom_control"
    control.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    (tmp_path / "own").write_text(own)

    assert memory.oom_kills(own=tmp_path / "own", root=tmp_path) == 3


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (None, None, "possibly out of memory"),
        (1, None, "possibly out of memory"),
        (1, 2, "out of memory according to the kernel"),
        (1, 1, "no out-of-memory kill"),
    ],
)
def test_a_kill_is_explained_as_far_as_the_kernel_tells(
    monkeypatch: pytest.MonkeyPatch, before: int | None, after: int | None, words: str
) -> None:
    monkeypatch.setattr(memory, "oom_kills", lambda: after)

    assert words in memory.sigkill_reason(before)


# How much is used

GIB = 2**30
MEMINFO = "MemTotal: 10485760 kB\nMemFree: 1 kB\nMemAvailable: 5242880 kB\nHugePages_Total: 0\n"
V2_FILES = {
    "memory.max": str(4 * GIB),
    "memory.high": "max",
    "memory.current": str(3 * GIB),
    "memory.stat": f"anon {GIB}\ninactive_file {GIB // 2}\nactive_file 0\nslab_reclaimable 0\n",
}
V1_FILES = {
    "memory.limit_in_bytes": str(4 * GIB),
    "memory.usage_in_bytes": str(3 * GIB),
    "memory.stat": f"active_file 77\ntotal_inactive_file 0\ntotal_active_file {GIB}\n",
}


class Kernel:
    """The files of a kernel, under a directory of the test's."""

    def __init__(self, directory: Path, own: str, meminfo: str = MEMINFO) -> None:
        self.directory = directory
        self.write("own", own)
        self.write("proc/meminfo", meminfo)

    def write(self, name: str, text: str) -> None:
        file = self.directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def group(self, name: str, files: dict[str, str]) -> Kernel:
        for file, text in files.items():
            self.write(f"cgroup/{name}/{file}", text)
        return self

    def read(self) -> memory.MemoryReading:
        at = self.directory
        return memory.read(own=at / "own", root=at / "cgroup", proc=at / "proc")


@pytest.mark.parametrize(
    ("own", "group", "files", "percent", "where"),
    [
        # Caches that the kernel drops before it kills anybody do not count.
        (V2, "workers/a", V2_FILES, 62.5, "2.5 of 4.0 GiB of the cgroup"),
        (V1, "memory/workers/a", V1_FILES, 50.0, "2.0 of 4.0 GiB of the cgroup"),
        (HYBRID, "memory/workers/a", V1_FILES, 50.0, "2.0 of 4.0 GiB of the cgroup"),
        # A limit of a group above, and a container that sees its own group as the root.
        (V2, "workers", V2_FILES, 62.5, "2.5 of 4.0 GiB of the cgroup"),
        (V2, "", V2_FILES, 62.5, "2.5 of 4.0 GiB of the cgroup"),
        (V1, "memory", V1_FILES, 50.0, "2.0 of 4.0 GiB of the cgroup"),
        (V2, "workers/a", V2_FILES | {"memory.high": str(3 * GIB)}, 83.3, "2.5 of 3.0 GiB"),
        (V2, "workers/a", V2_FILES | {"memory.stat": ""}, 75.0, "3.0 of 4.0 GiB"),
        # No limit, or one that cannot be reached: the machine's counts.
        (V2, "workers/a", V2_FILES | {"memory.max": "max"}, 50.0, "5.0 of 10.0 GiB of the machine"),
        (V1, "memory", V1_FILES | {"memory.limit_in_bytes": str(2**63 - 4096)}, 50.0, "machine"),
        (V2, "workers/a", V2_FILES | {"memory.current": str(GIB)}, 50.0, "of the machine"),
        # Nonsense, another process's group, none at all.
        (V2, "workers/a", V2_FILES | {"memory.current": "many"}, 50.0, "of the machine"),
        (V2, "workers/a", V2_FILES | {"memory.max": "0"}, 50.0, "of the machine"),
        (V2, "others", V2_FILES, 50.0, "of the machine"),
        ("", "", V2_FILES, 50.0, "of the machine"),
    ],
)
def test_the_limit_that_is_closest_counts(
    tmp_path: Path, own: str, group: str, files: dict[str, str], percent: float, where: str
) -> None:
    reading = Kernel(tmp_path, own).group(group, files).read()

    assert reading.used_percent == pytest.approx(percent, abs=0.05)
    assert where in reading.where
    used, limit = reading.used / GIB, reading.limit / GIB
    assert f"{used:.1f} of {limit:.1f} GiB of the {reading.what}" == reading.where


@pytest.mark.parametrize(
    "meminfo", ["", "MemTotal: 5 kB\n", "MemTotal: 0 kB\nMemAvailable: 0 kB\n"]
)
def test_without_any_limit_nothing_is_known(tmp_path: Path, meminfo: str) -> None:
    assert Kernel(tmp_path, V2, meminfo).read() == memory.MemoryReading()


def test_a_machine_without_these_files(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"

    assert memory.read(own=nowhere, root=nowhere, proc=nowhere) == memory.MemoryReading()


@pytest.mark.parametrize(
    ("cgroup", "machine", "percent"),
    [
        ("some avg10=12.50 avg60=1.00 total=1\nfull avg10=99.00\n", "some avg10=3.00\n", 12.5),
        (None, "some avg10=3.00 avg60=1.00 total=1\nfull avg10=99.00\n", 3.0),
        ("", "some avg10=3\n", 3.0),
        (None, "full avg10=99.00\n", None),
        (None, "some avg10=much\n", None),
        (None, None, None),
    ],
)
def test_the_pressure_is_the_cgroups_or_the_machines(
    tmp_path: Path, cgroup: str | None, machine: str | None, percent: float | None
) -> None:
    kernel = Kernel(tmp_path, V2)
    if cgroup is not None:
        kernel.write("cgroup/workers/a/memory.pressure", cgroup)
    if machine is not None:
        kernel.write("proc/pressure/memory", machine)

    assert kernel.read().pressure_percent == percent


def test_this_machine_can_be_read() -> None:
    reading = memory.read()

    assert reading.used_percent is not None
    assert 0 < reading.used_percent < 100


def test_the_memory_of_a_tree_is_the_share_of_each_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(tmp_path, V2)
    children = {1: {2, 3}, 2: {4}}
    monkeypatch.setattr(memory, "children_of", lambda pid: children.get(pid, set()))
    kernel.write("proc/1/smaps_rollup", "55-77 ---p 0 00:00 0 [rollup]\nRss: 9 kB\nPss: 5 kB\n")
    kernel.write("proc/2/smaps_rollup", "Pss: 6 kB\n")
    # Another user's, or a private one: all that it has counts, also what others share.
    kernel.write("proc/3/statm", "900 10 2 1 0 1 0\n")

    # The fourth is gone by now.
    seen = memory.bytes_of_tree(1, proc=tmp_path / "proc")

    assert seen == 11 * 1024 + 10 * memory.KERNEL_PAGE


def test_a_look_at_a_tree_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def children_of(pid: int) -> set[int]:
        asked.append(pid)
        return set(range(1000))

    monkeypatch.setattr(memory, "children_of", children_of)

    assert memory.bytes_of_tree(1, proc=tmp_path) == 0
    assert len(asked) == 5


def test_this_process_uses_memory() -> None:
    assert 2**20 < memory.bytes_of_tree(os.getpid()) < 2**40

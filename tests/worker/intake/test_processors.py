"""What the kernel says of processors: how many, and whether processes wait for them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from nats_worker.intake.processors import Waits, processors

if TYPE_CHECKING:
    from pathlib import Path

HERE = len(os.sched_getaffinity(0))
PLACE = "slice/worker.service"


def tree(root: Path, files: dict[str, str]) -> tuple[Path, Path]:
    """Write files of cgroups, and return what tells the own one, and the root of all."""
    own = root / "cgroup"
    own.write_text(f"1:cpu:/elsewhere\n0::/{PLACE}\n")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return own, root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, HERE),
        ({f"{PLACE}/cpu.max": "max 100000\n"}, HERE),
        ({f"{PLACE}/cpu.max": "100000 100000\n"}, 1),
        ({"slice/cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "110000 100000\n"}, min(2, HERE)),
        ({"cpu.max": "1000000000 100000\n"}, HERE),
        ({"cpu.max": "100000 0\n"}, HERE),
        ({"cpu.max": "what\n"}, HERE),
    ],
)
def test_processors_are_those_that_the_quotas_allow(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    own, root = tree(tmp_path, files)

    assert processors(own=own, root=root) == expected


def pressure(microseconds: int) -> str:
    return (
        f"some avg10=1.00 avg60=2.00 avg300=3.00 total={microseconds}\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
    )


@pytest.mark.parametrize("file", [f"{PLACE}/cpu.pressure", "proc/pressure/cpu"])
@pytest.mark.parametrize(("added", "share"), [(0, 0.0), (10**12, 1.0), (-5, 0.0)])
def test_a_moment_is_measured_by_what_is_added_in_it(
    tmp_path: Path, file: str, added: int, share: float
) -> None:
    own, root = tree(tmp_path, {file: pressure(1000)})
    waits = Waits(own=own, root=root, proc=tmp_path / "proc")

    assert not waits.seconds >= 0
    assert waits.share() is None
    waits.begin()
    tree(tmp_path, {file: pressure(1000 + added)})

    assert waits.share() == share
    assert waits.seconds > 0


def test_the_own_cgroup_goes_before_the_machine(tmp_path: Path) -> None:
    files = {f"{PLACE}/cpu.pressure": pressure(0), "proc/pressure/cpu": pressure(0)}
    own, root = tree(tmp_path, files)
    waits = Waits(own=own, root=root, proc=tmp_path / "proc")

    waits.begin()
    tree(tmp_path, {"proc/pressure/cpu": pressure(10**12)})

    assert waits.share() == 0


def test_a_kernel_that_does_not_tell_is_no_error(tmp_path: Path) -> None:
    waits = Waits(own=tmp_path / "none", root=tmp_path, proc=tmp_path)

    waits.begin()

    assert waits.share() is None

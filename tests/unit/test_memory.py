from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nats_worker import memory

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

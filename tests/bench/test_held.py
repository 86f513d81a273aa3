from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.bench.held import parts, turns
from tests.bench.marks import Mark, read_marks

if TYPE_CHECKING:
    from pathlib import Path

# What a supervisor does at which millisecond of a turn: three requests, and 1,000 ms of a task.
TURN = {
    "supervise_task>": 0, "request>": 14, "request<": 57, "_on_child_started<": 58,
    "_monitor_subprocess>": 59, "request> 2": 100, "request< 2": 125, "request> 3": 1130,
    "request< 3": 1160, "_monitor_subprocess<": 1168, "supervise_task<": 1169,
}  # fmt: skip


def marks_of(pid: int, turns: int, every: int = 1176) -> list[Mark]:
    return [
        Mark(f"supervisor:{name.split()[0]}", pid, (number * every + at) / 1000, 0.0)
        for number in range(turns)
        for name, at in TURN.items()
    ]


def test_a_turn_lasts_until_the_supervisors_next_task() -> None:
    marks = sorted([*marks_of(7, 3), *marks_of(8, 2)], key=lambda mark: mark.wall)
    marks.append(Mark("task:supervise_task>", 9, 9.0, 0.0))

    found = turns(marks)

    assert [(turn[0].pid, round(turn[-1].wall - turn[0].wall, 3)) for turn in found] == [
        (7, 1.176), (7, 1.176), (8, 1.176),
    ]  # fmt: skip


def test_the_parts_of_a_turn_add_up() -> None:
    [turn] = turns(marks_of(7, 2))

    found = {name: round(ms, 6) for name, ms in parts(turn).items()}

    assert found == {
        "API client, log file, fork of the task": 14,
        "API call /run": 43,
        "API call /rtif": 25,
        "API call /state": 30,
        "the task's process: Dag file, context, the rest": 48,
        "the task's process ends": 8,
        "report, slot, pull, claim, next task": 8,
        "all": 176,
    }
    assert sum(found.values()) == 2 * found["all"]


def test_a_turn_with_a_heartbeat_is_not_taken_apart() -> None:
    [turn] = turns(marks_of(7, 2))
    turn.insert(5, Mark("supervisor:request>", 7, 0.9, 0.0))

    with pytest.raises(ValueError, match="4 requests and 3 answers"):
        parts(turn)


def test_marks_are_read_as_they_were_left(tmp_path: Path) -> None:
    path = tmp_path / "marks.txt"
    path.write_text("supervisor:request> 7 12.5 0.25\ntask:born 8 13.0 0.0\n")

    assert read_marks(path) == [
        Mark("supervisor:request>", 7, 12.5, 0.25),
        Mark("task:born", 8, 13.0, 0.0),
    ]

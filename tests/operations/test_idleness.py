"""What `drain --wait` makes of what it sees, from look to look."""

from __future__ import annotations

from typing import Any

import pytest

from nats_executor.fleet.presences import Seen
from nats_executor.operations.idleness import IdleWatch
from tests.support.presences import presence_of

Look = tuple[Seen, str] | None


def saw(running: int, state: str = "draining", age: float = 1.0, **changes: Any) -> Look:
    facts = {"running": running, "draining": state == "draining"} | changes
    return Seen(presence_of("w", "q", worker="w.1", **facts), age), state


def lines_of(looks: list[Look]) -> tuple[list[list[str]], IdleWatch]:
    seen = saw(3)
    assert seen
    watch = IdleWatch([seen[0]])
    return [watch.look({} if look is None else {"w.1": look}) for look in looks], watch


@pytest.mark.parametrize(
    ("looks", "lines", "failed"),
    [
        ([saw(3), saw(3), saw(1), saw(0)],
         [["worker w: 3 running"], [], ["worker w: 1 running"], ["worker w runs nothing any more"]],
         False),
        ([saw(0)], [["worker w runs nothing any more"]], False),
        ([saw(2), None], [["worker w: 2 running"], ["worker w has stopped"]], False),
        ([saw(2), saw(2, "lost", 31.2)],
         [["worker w: 2 running"], ["worker w is lost, silent for 31 s"]], True),
        # Its record is one heartbeat behind the order.
        ([saw(2, "running"), saw(0, "running"), saw(0)],
         [[], [], ["worker w runs nothing any more"]], False),
        ([saw(2), saw(2, "running")],
         [["worker w: 2 running"], ["worker w was undrained meanwhile"]], True),
    ],
)  # fmt: skip
def test_the_wait_for_one_worker(looks: list[Look], lines: list[list[str]], failed: bool) -> None:
    told, watch = lines_of(looks)

    assert (told, watch.failed, watch.left) == (lines, failed, {})


def test_what_is_left_is_named() -> None:
    _, watch = lines_of([saw(2)])

    assert watch.rest == "w (2 running)"
    assert watch.left

"""The output of demo and standalone where there is no terminal."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

from nats_executor.local.expected import TaskRow
from nats_executor.local.prefixed import Prefixed
from nats_executor.local.process import Process
from nats_executor.local.view import View

if TYPE_CHECKING:
    from pathlib import Path


def test_only_full_lines_are_printed_and_each_once(tmp_path: Path) -> None:
    out = io.StringIO()
    prefixed = Prefixed(Console(file=out))
    process = Process("scheduler", [], log=tmp_path / "log")

    for part in ("one\ntw", "o\n\x1b[31mthree\x1b[0m [bold]\n", ""):
        with process.log.open("a") as log:
            log.write(part)
        prefixed.show_logs([process])

    lines = [line.split("|", 1) for line in out.getvalue().splitlines()]
    assert [name.strip() for name, _ in lines] == ["scheduler"] * 3
    assert [text for _, text in lines] == [" one", " two", " three [bold]"]


def row(state: str) -> TaskRow:
    return TaskRow(
        task_id="price",
        map_index=2,
        state=state,
        queue="heavy",
        tries=1,
        workers=("worker-2",),
        dispatches=1,
        waited=0.25,
        ran=None,
    )


def test_a_change_of_state_is_one_line_and_the_summary_a_table() -> None:
    out = io.StringIO()
    view = View(Console(file=out))

    with view.following():
        for state in ("queued", "queued", "running"):
            view.show([row(state)])
    *changes, _, header, _, last, _ = [line.split() for line in shown(view, out)]

    assert [change[2:] for change in changes] == [
        ["price[2]", state, "heavy", "worker-2", "try", "1"] for state in ("queued", "running")
    ]
    assert header == ["task", "state", "queue", "worker", "tries", "sent", "wait", "run"]
    assert last == ["price[2]", "running", "heavy", "worker-2", "1", "1", "0.25", "s"]


def shown(view: View, out: io.StringIO) -> list[str]:
    view.summary([row("running")])
    return out.getvalue().splitlines()

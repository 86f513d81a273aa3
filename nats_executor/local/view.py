"""Shows the demo's run: a table that refreshes on a terminal, elsewhere a line for each change."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich import box
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from nats_executor.local.expected import TaskRow

__all__ = ["View"]

STATE_COLOURS = {
    "success": "green",
    "running": "bold cyan",
    "queued": "yellow",
    "deferred": "magenta",
    "up_for_reschedule": "magenta",
    "up_for_retry": "bold red",
    "failed": "bold red",
    "upstream_failed": "red",
}


class View:
    """The demo's output; times are seconds since its start."""

    def __init__(self, console: Console) -> None:
        self.console = console
        if not self.console.is_terminal:
            self.console.width = 120  # no window: the default of 80 would cut the table
        self.started = time.monotonic()
        self.last: dict[str, tuple[object, ...]] = {}
        self.live: Live | None = None

    def say(self, text: str) -> None:
        """Print one line with the time."""
        elapsed = time.monotonic() - self.started
        self.console.print(f"{elapsed:5.1f} s  {text}", markup=False, soft_wrap=True)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Within this context `show` draws over what it showed before, on a terminal."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, auto_refresh=False, transient=True) as self.live:
            yield
        self.live = None

    def show(self, rows: Sequence[TaskRow]) -> None:
        """Show what runs where at this moment."""
        if self.live is not None:
            elapsed = time.monotonic() - self.started
            self.live.update(table(rows, title=f"{elapsed:.1f} s"), refresh=True)
            return
        for row in rows:
            now = (row.state, row.tries, row.workers)
            if self.last.get(row.name) != now and row.state != "-":
                self.last[row.name] = now
                worker = row.workers[-1] if row.workers else "-"
                self.say(f"{row.name:14} {row.state:18} {row.queue:8} {worker:9} try {row.tries}")

    def summary(self, rows: Sequence[TaskRow]) -> None:
        """Print the table that the demo ends with."""
        self.console.print(table(rows))


def table(rows: Sequence[TaskRow], *, title: str | None = None) -> Table:
    """Return the table of all task instances."""
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("task", "state", "queue", "worker"):
        shown.add_column(name, no_wrap=True)
    for name in ("tries", "sent", "wait", "run"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(
            row.name,
            f"[{STATE_COLOURS.get(row.state, 'dim')}]{row.state}[/]",
            row.queue,
            ", ".join(row.workers),
            str(row.tries or ""),
            str(row.dispatches or ""),
            seconds(row.waited),
            seconds(row.ran),
        )
    return shown


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"

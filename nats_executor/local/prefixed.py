"""Prints the lines of standalone and of its components, each with the name of its source."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rich.console import Console

    from nats_executor.local.process import Process

__all__ = ["Prefixed"]

OWN_NAME = "standalone"
NAME_COLOURS = ("magenta", "blue", "yellow", "cyan", "green", "bright_blue")
# A component that writes faster than this for one look waits for the next one.
LOOK_BYTES = 262_144


class Prefixed:
    """Prints lines behind the name of their source; remembers how much of each log was printed."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.positions: dict[Path, int] = {}

    def say(self, text: str, *, name: str = OWN_NAME, style: str = "bold") -> None:
        """Print text, one or more lines."""
        for line in text.splitlines():
            shown = Text.assemble((f"{name:13}", style), " | ", Text.from_ansi(line))
            self.console.print(shown, soft_wrap=True)

    def show_logs(self, processes: Iterable[Process]) -> None:
        """Print the full lines that the components have written since the last call."""
        for number, process in enumerate(processes):
            style = NAME_COLOURS[number % len(NAME_COLOURS)]
            self.say(self.unread(process.log), name=process.name, style=style)

    def unread(self, log: Path) -> str:
        position = self.positions.get(log, 0)
        with log.open("rb") as file:
            file.seek(position)
            text = file.read(LOOK_BYTES)
        # A line without its end is still being written, unless it fills the chunk.
        full = text[: text.rfind(b"\n") + 1] or (text if len(text) == LOOK_BYTES else b"")
        self.positions[log] = position + len(full)
        return re.sub(r"[\r\x0b\x0c]", " ", full.decode(errors="replace"))

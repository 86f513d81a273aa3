"""Reads a page's commands and files, and makes one script of them. Pure."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

__all__ = ["Block", "Page", "is_shown", "outputs", "script"]

# A block of code, with the remark before it that only this reader sees.
BLOCK = re.compile(r"(?ms)^(?:<!-- ([^\n]*) -->\n)?```(\w+)\n(.*?)^```$")
MARK = "=== block"


@dataclass
class Block:
    """A block of code.

    Attributes:
        remark: `not run`, `install`, `file: NAME`, or nothing.
        shown: the lines of output that the page shows after it.
    """

    remark: str
    language: str
    text: str
    shown: list[str] = field(default_factory=list)

    @property
    def commands(self) -> list[str]:
        """The commands, without prompts; one may have several lines."""
        return re.split(r"(?m)^\$ ", self.text)[1:]

    @property
    def file(self) -> str:
        return self.remark.removeprefix("file: ") if self.remark.startswith("file: ") else ""


class Page:
    """The blocks of a page, in order."""

    def __init__(self, text: str) -> None:
        self.blocks: list[Block] = []
        for remark, language, body in BLOCK.findall(text):
            if language == "text":
                self.blocks[-1].shown += body.splitlines()
            else:
                self.blocks.append(Block(remark, language, body))

    def with_remark(self, remark: str) -> list[Block]:
        return [block for block in self.blocks if block.remark == remark]


def script(blocks: list[Block]) -> str:
    """Return what bash runs: it stops at the first command that fails, and marks each block."""
    lines = ["set -e"]
    for number, block in enumerate(blocks):
        lines.append(f"echo {shlex.quote(f'{MARK} {number}')}")
        if block.file:
            lines.append(f"printf %s {shlex.quote(block.text)} > ~/airflow/{block.file}")
        else:
            lines += block.commands
    return "\n".join([*lines, f"echo {shlex.quote(f'{MARK} end')}", ""])


def outputs(log: str) -> list[str]:
    """Return what each block has printed."""
    return re.split(rf"(?m)^{MARK} \w+\n", log)[1:]


def is_shown(line: str, output: str) -> bool:
    """Whether an output has such a line; `...` stands for anything."""
    pattern = ".*".join(re.escape(part.strip()) for part in line.split("..."))
    return re.search(pattern, output) is not None

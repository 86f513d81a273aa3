"""Write tables of Markdown for the generated pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# What Markdown would take for emphasis or a tag; an underscore within a word is none.
MARKS = re.compile(r"[*<]|(?<!\w)_|_(?!\w)")

__all__ = ["cell", "table"]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the cells are Markdown already."""
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def cell(text: str) -> str:
    """Return a text for one cell of a table; what stands between backticks stays as it is."""
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    return "`".join(MARKS.sub(r"\\\g<0>", p) if n % 2 == 0 else p for n, p in enumerate(parts))

"""Makes text from anyone fit for a terminal, a log line and a database.

Names, hosts, reasons and errors come from the broker. A client that can write there may put
anything into them: escape sequences, the eight-bit controls that some terminals obey, characters
that turn the direction of a line around, ends of lines that forge another line.
"""

from __future__ import annotations

from typing import Any

__all__ = ["lines", "number_of", "one_line", "presentable", "shown"]

LONGEST_TEXT = 4000
MARK = "\N{REPLACEMENT CHARACTER}"


def one_line(text: str) -> str:
    """Return a text with a mark in the place of each character that is not shown as one."""
    return marked(text, "")


def lines(text: str) -> str:
    """Return a text of several lines, such as a traceback, likewise."""
    return marked(text, "\n\t")


def marked(text: str, kept: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else MARK for c in text)


def presentable(text: str) -> str:
    """Return text from anyone as a database and a log take it: cut, and without control characters.

    PostgreSQL refuses NUL, and that would end the scheduler.
    """
    if len(text) <= LONGEST_TEXT and text.isprintable():
        return text
    marked = (c if c.isprintable() or c in "\n\t" else MARK for c in text[:LONGEST_TEXT])
    return "".join(marked)


def number_of(count: int, noun: str) -> str:
    """Return a number with what it counts, which takes an s unless it is one."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def shown(value: Any) -> str:
    """Return a short text for a value from anyone, its type for a list or a map.

    The `repr` of a deeply nested one could end this process.
    """
    return f"{value!r:.80}" if isinstance(value, str | int | float | None) else type(value).__name__

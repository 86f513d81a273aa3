"""What a terminal and a log line are given of text from anyone.

Names, hosts, reasons and errors come from the broker, so whoever can write there may put anything
into them: escape sequences, the eight-bit controls that some terminals obey, characters that turn
the direction of a line around, ends of lines that forge another line.
"""

from __future__ import annotations

from nats_executor.wire.messages import MARK

__all__ = ["lines", "one_line"]


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

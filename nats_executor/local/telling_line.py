"""Finds the line of a dead component's log that tells why it died. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["telling_line"]

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# The beginning of a log's line before its text: a pid, a date and a time.
LOG_PREFIX = re.compile(r"^(\[\d+\] )?\d{4}[-/]\d\d[-/]\d\d[T ][\d:.,]+Z? *")
TROUBLE = re.compile(
    r"error|critical|fatal|exception|refus|denied|not found|in use|cannot", re.IGNORECASE
)
# Python's; rich draws a box. A group of exceptions has a margin, and a number before each part.
TRACEBACK = re.compile(
    r"^ *(?P<margin>[+|] )?(╭─+ )?(Exception Group )?Traceback \(most recent call last\)"
    r"|^ *(?P<part>\+)[-+]+ \d+ -+$"
)
# The beginnings of the lines of a traceback's frames; rich's are in a box.
FRAME = " │╭╰"
MARGIN = re.compile(r"^ *\| ?")
# Beginnings of lines that do not go on with an exception's text, although they have no time.
FRESH = re.compile(
    r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL|FATAL|error|fatal): |^\[[a-z]+ *\] |^nats-server: "
)


def telling_line(text: str) -> str:
    """Return the last line that tells of trouble, else the last line, else nothing.

    Of an exception that is the line with its name: its text may have more lines, and SQLAlchemy's
    ends with where to read about such errors.
    """
    found = [(words, is_bad) for line, is_bad in telling(text) if (words := bare_line(line))]
    bad = [words for words, is_bad in found if is_bad or TROUBLE.search(words)]
    return (bad or [words for words, _ in found] or [""])[-1]


def telling(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the lines that are neither a traceback's frames nor the rest of an exception's text.

    Each comes with whether it is an exception, because not every name of one tells so.
    """
    margin: str | None = None  # of the traceback in whose frames we are
    is_rest = False
    for coloured in text.splitlines():
        line = ANSI.sub("", coloured).rstrip()
        if start := TRACEBACK.match(line):
            margin, is_rest = start["margin"] or start["part"] or "", False
        elif margin is not None:
            bare = MARGIN.sub("", line) if margin else line
            if bare and bare[0] not in FRAME:
                margin, is_rest = None, True
                yield bare, True
        elif not is_rest or LOG_PREFIX.match(line) or FRESH.match(line):
            is_rest = False
            yield line, False


def bare_line(text: str) -> str:
    """Return text without colours, time, line ends and surplus blanks, at most 300 characters."""
    return " ".join(LOG_PREFIX.sub("", ANSI.sub("", text)).split())[:300]

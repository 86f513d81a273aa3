"""Writes the lines of a task's log as Airflow reads them: those that were logged, and remarks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LINE_BYTES", "decoded", "remark", "stream_of"]

# The longest that one line is taken for; a longer one is cut there.
LINE_BYTES = 1024 * 1024


def decoded(line: bytes) -> str:
    """Return a line as text, with a mark in the place of each byte that is none."""
    return line.decode(errors="replace")


def remark(text: str) -> str:
    """Return a line of this project's own as Airflow writes a task's log."""
    return json.dumps({"event": text, "level": "warning", "logger": "nats_executor.logs"})


def stream_of(text: str) -> Iterator[str]:
    """Yield one remark; Airflow takes generators only."""
    yield remark(text)

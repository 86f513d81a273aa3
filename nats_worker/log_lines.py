"""Writes the worker's own log lines in the form of Airflow's; Airflow writes the task logs."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nats_executor.text import lines, one_line

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Text", "set_up"]

OUR_PACKAGES = ("nats_executor", "nats_worker")


class Text(logging.Formatter):
    """`TIME [level    ] what happened [logger] loc=file.py:1`, as Airflow's console lines."""

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        where = f"[{record.name}] loc={record.filename}:{record.lineno}"
        # A text of the broker's may forge lines, or give orders to a terminal.
        line = f"{when(record)} [{level:<9}] {one_line(record.getMessage())} {where}"
        trace = self.trace(record)
        return f"{line}\n{trace}" if trace else line

    def trace(self, record: logging.LogRecord) -> str:
        return lines(self.formatException(record.exc_info)) if record.exc_info else ""


class Json(Text):
    """One JSON object for each line, with the keys of Airflow's `[logging] json_logs`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": when(record),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            "filename": record.filename,
            "lineno": record.lineno,
        }
        if trace := self.trace(record):
            line["exception"] = trace
        return json.dumps(line)


def when(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")


def set_up(*, is_verbose: bool, is_json: bool, file: str | None) -> None:
    """Write log lines to stdout, or to a daemon's log file; of other packages only warnings."""
    handler = logging.FileHandler(file) if file else logging.StreamHandler(sys.stdout)
    handler.setFormatter(Json() if is_json else Text())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = show_exception
    for package in OUR_PACKAGES:
        logging.getLogger(package).setLevel(logging.DEBUG if is_verbose else logging.INFO)


def show_exception(
    _kind: type[BaseException], exc: BaseException, _traceback: TracebackType | None
) -> None:
    """Write what ends this process to stderr."""
    sys.stderr.write(lines("".join(traceback.format_exception(exc))))

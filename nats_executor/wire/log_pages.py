"""Defines the question for a piece of a running workload's log, and a worker's answer to it.

A question names a dispatch and no file. So its sender can read the logs of running workloads, and
no other file in a worker's log folder. The messages are msgpack maps like those of `messages.py`,
and its `decode` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgpack

from nats_executor.wire.messages import as_map

__all__ = ["PAGE_BYTES", "Page", "Question", "encode_log_message"]

# The most that one answer holds; a server takes a megabyte unless it is configured otherwise.
PAGE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Ask for a piece of a log.

    Attributes:
        offset: the first byte that is wanted.
        limit: the number of bytes that are wanted; 0 asks only who runs it and how long the log is.
    """

    dispatch_id: str
    offset: int = 0
    limit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A worker's answer.

    Attributes:
        runs: true if it runs this dispatch.
        path: the log file, for people.
        size: of the whole file at this moment, in bytes.
        data: the piece of the file.
        refusal: the reason why data are missing, '' if they are complete.
    """

    runs: bool = False
    path: str = ""
    size: int = 0
    data: bytes = field(default=b"", repr=False)
    refusal: str = ""


def encode_log_message(message: Question | Page) -> bytes:
    """Encode a message with its format version; a path may hold bytes that are no text."""
    body: bytes = msgpack.packb(as_map(message), unicode_errors="replace")
    return body

"""The question for a piece of a running workload's log, and a worker's answer to it.

A question names a dispatch and no file: who may ask can read the log of what runs, and nothing
else that lies in a worker's log folder. Messages are msgpack maps as those in `messages.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import msgpack

from nats_executor.errors import DecodeError, UnknownVersion
from nats_executor.messages import FORMAT, checked, layout, shown

__all__ = ["PAGE_BYTES", "VERB", "Page", "Question", "decode", "encode"]

# What a worker is asked by; see `Names.control`.
VERB = "log"
# The most that one answer holds; a server takes a megabyte unless it is configured otherwise.
PAGE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Ask for `limit` bytes from `offset` on; with a limit of 0 only who runs it and how much."""

    dispatch_id: str
    offset: int = 0
    limit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a worker answers.

    Attributes:
        runs: whether it runs this dispatch.
        path: the log file, for people.
        size: of the whole file at this moment, in bytes.
        refusal: why there are no data, '' if they are all that was asked for.
    """

    runs: bool = False
    path: str = ""
    size: int = 0
    data: bytes = field(default=b"", repr=False)
    refusal: str = ""


Message = TypeVar("Message", Question, Page)

# Resolved once, as in `messages.py`.
LAYOUTS = {kind: layout(kind) for kind in (Question, Page)}


def encode(message: Question | Page) -> bytes:
    """Encode a message with its format version."""
    values = {name: getattr(message, name) for name, _ in LAYOUTS[type(message)]}
    body: bytes = msgpack.packb({"v": FORMAT, **values}, unicode_errors="replace")
    return body


def decode(kind: type[Message], body: bytes) -> Message:
    """Decode and check a message that may come from anyone.

    Raises:
        UnknownVersion: its format version is not `FORMAT`.
        DecodeError: it is not what it should be.
    """
    try:
        values = msgpack.unpackb(body, raw=False, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as exc:
        raise DecodeError(f"not a msgpack message: {type(exc).__name__}: {exc}") from exc
    if not isinstance(values, dict):
        raise DecodeError(f"expected a map, got {type(values).__name__}")
    version = values.get("v")
    if type(version) is not int or version != FORMAT:
        raise UnknownVersion(f"format version {shown(version)}; this release reads {FORMAT}")
    known = {
        name: checked(name, values[name], hint) for name, hint in LAYOUTS[kind] if name in values
    }
    try:
        return kind(**known)
    except TypeError as exc:
        raise DecodeError(f"{kind.__name__.lower()} is incomplete: {exc}") from exc

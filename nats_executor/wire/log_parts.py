"""Defines how task logs are stored: as parts, cut into chunks, in a JetStream object store.

A log that goes on in another file, as after a deferral to another worker, has several parts. A part
is named after its first line. So the longer file of a later upload replaces it, and a file of
another worker, or a new file, becomes another part. An upload need not read what is stored.

A chunk is numbered by its place in the file and has a subject of its own. A file only grows, so a
chunk that is stored again begins as before. The entry of an earlier upload stays true until the
entry of the next upload replaces it, wherever that upload breaks off.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nats_executor.errors import DecodeError
from nats_executor.wire.sizes import LOG_ENTRY_BYTES

if TYPE_CHECKING:
    from nats_executor.wire.names import Names

__all__ = [
    "CHUNK_BYTES",
    "STORED_BYTES",
    "Part",
    "as_entry",
    "beginning",
    "ceiling",
    "log_of",
    "part_id",
    "part_in",
]

# As NATS's own tools cut objects.
CHUNK_BYTES = 128 * 1024
# Of one log file. Of a longer file the end is stored, which tells how its task has ended.
STORED_BYTES = 64 * 1024 * 1024
# The longest name that an object gets: it makes a subject, which a server takes up to 4 KB.
LONGEST_OBJECT_NAME = 1500
DIGEST = "SHA-256="
PART = re.compile(r"[0-9a-f]{16}")
# Errors that reading an entry from anyone can raise.
ENTRY_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file's share of a log.

    Attributes:
        start: the first byte that is stored, where a chunk begins.
        size: how many bytes are stored.
        digest: SHA-256 of them.
    """

    id: str
    start: int
    size: int
    digest: bytes

    @property
    def end(self) -> int:
        return self.start + self.size

    @property
    def numbers(self) -> range:
        """The numbers of its chunks."""
        return range(self.start // CHUNK_BYTES, ceiling(self.end, CHUNK_BYTES))

    def length(self, number: int) -> int:
        """Return how much of a chunk belongs to it; a later upload may have made that longer."""
        return min(CHUNK_BYTES, self.end - number * CHUNK_BYTES)


def log_of(path: str) -> str:
    """Return the path of the log that a file belongs to.

    A triggerer writes `<log>.trigger.<its id>.log`, and Airflow asks for `<log>`.
    """
    return re.sub(r"\.trigger\.\d+\.log$", "", path)


def part_id(beginning_of_file: bytes) -> str:
    """Name a part after its first line, which has the time in it to the microsecond."""
    line, _, _ = beginning_of_file.partition(b"\n")
    return hashlib.sha256(line).hexdigest()[:16]


def ceiling(count: int, size: int) -> int:
    """Return how many pieces of this size hold a count of bytes."""
    return -(-count // size)


def beginning(size: int, *, most: int, step: int) -> int:
    """Return where to begin with a file, so that no more than the most of it is taken.

    Args:
        size: of the file, in bytes like the others.
        most: what is taken at most: the end of the file.
        step: the beginning is a multiple of it.
    """
    return ceiling(max(0, size - most), step) * step


def as_entry(part: Part, names: Names, queue: str, path: str) -> tuple[str, bytes]:
    """Return the name of a part for the tools of NATS, and its entry in their form of JSON."""
    name = f"{path}/{part.id}"
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST_OBJECT_NAME:
        name = part.id
    digest = base64.urlsafe_b64encode(part.digest).decode()
    entry = {
        "name": name,
        "bucket": names.logs_bucket,
        "nuid": names.log_object(queue, path, part.id),
        "size": part.size,
        "chunks": len(part.numbers),
        "digest": f"{DIGEST}{digest}",
        "options": {"max_chunk_size": CHUNK_BYTES},
        "metadata": {"part": part.id, "start": str(part.start)},
    }
    return name, json.dumps(entry).encode()


def part_in(body: bytes) -> Part:
    """Read an entry that may come from anyone.

    Raises:
        DecodeError: it is not what it should be.
    """
    if len(body) > LOG_ENTRY_BYTES:
        raise DecodeError(f"more than {LOG_ENTRY_BYTES} bytes")
    try:
        entry: Any = json.loads(body)
        metadata = entry["metadata"]
        digest = base64.urlsafe_b64decode(entry["digest"].removeprefix(DIGEST))
        part = Part(
            id=metadata["part"], start=int(metadata["start"]), size=entry["size"], digest=digest
        )
        is_sound = (
            PART.fullmatch(part.id)
            and type(part.size) is int
            and 0 <= part.size <= STORED_BYTES
            and 0 <= part.start < 2**53
            and part.start % CHUNK_BYTES == 0
        )
    except ENTRY_ERRORS as exc:
        raise DecodeError(f"not a record of a log: {type(exc).__name__}") from exc
    if not is_sound:
        raise DecodeError("a record of a log that cannot be")
    return part

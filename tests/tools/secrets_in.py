"""Secrets in a repository: in the files of its tree, and in every version that it has ever had."""

from __future__ import annotations

import base64
import binascii
import re
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SCHEMES", "Found", "scan", "secrets_in"]

# What looks like a secret by itself, whatever it is called.
SCHEMES: dict[str, re.Pattern[bytes]] = {
    "private key": re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}"),
    "NKey seed": re.compile(rb"\bS[AUONC][A-Z2-7]{56}\b"),
    "JWT": re.compile(rb"\beyJ[\w-]{15,}\.eyJ[\w-]{15,}\.[\w-]{20,}"),
    "AWS key": re.compile(rb"\bAKIA[0-9A-Z]{16}\b"),
    "GitHub token": re.compile(rb"\b(?:gh[pousr]_\w{36}|github_pat_\w{60,})\b"),
    "PyPI token": re.compile(rb"\bpypi-[\w-]{80,}"),
    "Slack token": re.compile(rb"\bxox[abprs]-[\w-]{20,}"),
    "Fernet key": re.compile(rb"(?i)fernet_?key\W{1,4}([\w-]{43}=)"),
}
SEED = SCHEMES["NKey seed"]
LARGEST = 5_000_000


@dataclass
class Found:
    """What a scan came to; `faults` name the place and the kind, never the secret."""

    files: int = 0
    blobs: int = 0
    is_shallow: bool = False
    faults: list[str] = field(default_factory=list)


def git(root: Path, *args: str, given: bytes = b"") -> bytes:
    return subprocess.run(
        ["git", *args], cwd=root, input=given, capture_output=True, check=True
    ).stdout


def secrets_in(content: bytes) -> Iterator[tuple[int, str]]:
    """Yield the line and the kind of each secret."""
    for kind, pattern in SCHEMES.items():
        for match in pattern.finditer(content):
            if pattern is not SEED or is_seed(match[0]):
                yield content.count(b"\n", 0, match.start()) + 1, kind


def is_seed(text: bytes) -> bool:
    """Whether a seed's checksum is right; one that was made up for an example has another."""
    raw = base64.b32decode(text + b"=" * (-len(text) % 8))
    return binascii.crc_hqx(raw[:-2], 0) == int.from_bytes(raw[-2:], "little")


def scan(root: Path) -> Found:
    """Look at what is tracked, as it is now and as it ever was on any branch."""
    found = Found(is_shallow=git(root, "rev-parse", "--is-shallow-repository").strip() == b"true")
    for name in git(root, "ls-files", "-z").decode().split("\0"):
        path = root / name
        if name and path.is_file():
            found.files += 1
            note(found, name, path.read_bytes())
    listed = git(root, "rev-list", "--objects", "--all")
    names = dict(line.split(b" ", 1) for line in listed.splitlines() if b" " in line)
    for blob, content in contents(root, list(names)):
        found.blobs += 1
        note(found, f"{names[blob].decode()} in {blob[:12].decode()} of the history", content)
    return found


def note(found: Found, place: str, content: bytes) -> None:
    found.faults += [f"{place}, line {line}: {kind}" for line, kind in secrets_in(content)]


def contents(root: Path, objects: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield every blob among the objects; large ones are no texts."""
    kinds = git(root, "cat-file", "--batch-check", given=b"\n".join(objects) + b"\n")
    wanted = [
        words[0]
        for words in (line.split() for line in kinds.splitlines())
        if words[1] == b"blob" and int(words[2]) <= LARGEST
    ]
    answer = git(root, "cat-file", "--batch", given=b"\n".join(wanted) + b"\n") if wanted else b""
    at = 0
    for blob in wanted:
        end = answer.index(b"\n", at)
        size = int(answer[at:end].split()[2])
        yield blob, answer[end + 1 : end + 1 + size]
        at = end + size + 2

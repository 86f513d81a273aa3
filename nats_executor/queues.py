"""Names of queues as people write and read them: lists of them, and what to type into a shell.

A name is any text, so one that holds a comma or begins with a space is quoted as in a CSV file.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from nats_executor.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nats_executor.names import Lane

__all__ = ["as_argument", "as_text", "described", "in_text", "remedy", "why_unservable"]

ITEM = re.compile(r'\s*(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>[^",\s][^,]*|))\s*(?:,|\Z)')


def in_text(text: str) -> list[str]:
    """Read a list of names: `default,gpu`, or `default,"a,b"` where a name has a comma.

    Spaces around a name do not count, unless they stand in quotes.

    Raises:
        ConfigError: quotes that do not match.
    """
    names = []
    position = 0
    while position < len(text):
        item = ITEM.match(text, position)
        if item is None:
            raise ConfigError(
                f"cannot read the list of names {text!r} from character {position + 1} on; "
                'quote a name that has a comma, a quote or outer spaces: "a,b", and write a quote '
                'in it twice: "say ""hi"""'
            )
        position = item.end()
        if name := (item["quoted"] or "").replace('""', '"') or (item["plain"] or "").rstrip():
            names.append(name)
    return names


def as_text(names: Iterable[str]) -> str:
    """Write a list of names so that `in_text` reads the same ones."""
    return ",".join(map(quoted, names))


def quoted(name: str) -> str:
    if name == name.strip() and "," not in name and not name.startswith('"'):
        return name
    return '"' + name.replace('"', '""') + '"'


def as_argument(text: str) -> str:
    """Write a text so that a shell takes it for one argument, and a terminal shows all of it."""
    if text.isprintable():
        return shlex.quote(text)
    # bash, ksh and zsh read this form, and dash from 0.5.13 on.
    return f"$'{''.join(map(escaped, text))}'"


def escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))


def described(lane: Lane) -> str:
    band = f"priority band {lane.band} of " if lane.band else ""
    return f"{band}queue {lane.queue!r}"


def remedy(lane: Lane, *, has_workers: bool) -> str:
    """Return what to do about a lane that nobody serves.

    Args:
        has_workers: whether the queue has workers that take its lowest band.
    """
    if has_workers:
        return "start its workers with the scheduler's [nats_executor] priority_bands"
    return f"airflow nats worker -q {as_argument(as_text([lane.queue]))}"


def why_unservable(queue: str) -> str:
    """Return why no worker can be told to serve a queue, '' if one can."""
    return "no command line can hold a name with a NUL character" if "\0" in queue else ""

"""Reads names of queues from people, and writes them: in lists, on a shell's command line.

A name is any text, so one that holds a comma or begins with a space is quoted as in a CSV file.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from nats_executor.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nats_executor.wire.names import Lane

__all__ = ["as_argument", "as_text", "in_pairs", "in_text", "in_user", "remedy", "require_servable"]

ITEM = re.compile(r'\s*(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>[^",\s][^,]*|))\s*(?:,|\Z)')

PAIR = re.compile(r'(?:[^",]|"(?:[^"]|"")*")+')
PAIRS = re.compile(f"{PAIR.pattern}(?:,{PAIR.pattern})*")
USER = re.compile(r'(?P<user>.*)=(?P<queues>(?:"(?:[^"]|"")*"|[^"=])*)', re.DOTALL)


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


def in_user(text: str) -> tuple[str, list[str]]:
    """Read `USER=QUEUE,QUEUE`, both empty if it is not that.

    A certificate's name has equals signs, too, so the last one counts that is in no quotes.
    """
    if found := USER.fullmatch(text):
        return found["user"], in_text(found["queues"])
    return "", []


def in_pairs(text: str) -> list[tuple[str, str]]:
    """Read `gpu=4,"a,b"=2`.

    Raises:
        ValueError: it is not that.
    """
    if not PAIRS.fullmatch(text):
        raise ValueError(text)
    pairs = []
    for pair in PAIR.findall(text):
        name, _, value = pair.rpartition("=")
        try:
            names = in_text(name)
        except ConfigError as exc:
            raise ValueError(text) from exc
        if len(names) != 1:
            raise ValueError(text)
        pairs.append((names[0], value))
    return pairs


def as_text(names: Iterable[str]) -> str:
    """Write a list of names so that `in_text` reads the same ones."""
    return ",".join(map(quoted, names))


def quoted(name: str) -> str:
    # A command line would take what begins with a hyphen for an option.
    if name == name.strip() and "," not in name and not name.startswith(('"', "-")):
        return name
    return '"' + name.replace('"', '""') + '"'


def as_argument(text: str) -> str:
    """Write a text so that a shell takes it for one argument, and a terminal shows all of it."""
    if text.isprintable():
        return shlex.quote(text)
    # bash, ksh and zsh read this form.
    return f"$'{''.join(map(escaped, text))}'"


def escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))


def remedy(lane: Lane, *, has_workers: bool) -> str:
    """Return what to do about a lane that no worker serves.

    Args:
        has_workers: whether the queue has workers that take its lowest band.
    """
    if has_workers:
        return "start its workers with the scheduler's [nats_executor] priority_bands"
    return f"airflow nats worker -q {as_argument(as_text([lane.queue]))}"


def require_servable(queue: str) -> None:
    """Raise `ValueError` for the one kind of name that no worker can be told to serve."""
    if "\0" in queue:
        raise ValueError(f"queue {queue!r}: no command line can hold a name with a NUL character")

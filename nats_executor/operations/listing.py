"""Chooses the rows of a list, and sorts them, as its options say. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from nats_executor.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nats_executor.fleet.queues import Row

__all__ = ["Choice", "chosen"]


class Choice(NamedTuple):
    """The rows of a list that are to be shown, and their order.

    Attributes:
        patterns: by column; a row is shown if one of them matches, as names of files do.
        sort: the column to sort by, None for the list's own order.
    """

    patterns: Mapping[str, Sequence[str]]
    sort: str | None = None
    is_reversed: bool = False


def chosen(rows: Iterable[Row], choice: Choice) -> list[Row]:
    """Return the rows that match, sorted; what has no value is last in either direction.

    Raises:
        ConfigError: no column is called as `choice.sort` says.
    """
    found = [row for row in rows if is_chosen(row, choice.patterns)]
    if choice.sort is None:
        return found[::-1] if choice.is_reversed else found
    if found and choice.sort not in found[0]:
        columns = ", ".join(found[0])
        raise ConfigError(f"--sort {choice.sort!r}: no such column; there are: {columns}")
    column = choice.sort
    known = [row for row in found if row[column] is not None]
    known.sort(key=lambda row: row[column], reverse=choice.is_reversed)
    return known + [row for row in found if row[column] is None]


def is_chosen(row: Row, patterns: Mapping[str, Sequence[str]]) -> bool:
    """Whether each column that has patterns has a value that one of them matches."""
    return all(
        any(fnmatchcase(text, pattern) for text in texts_in(row[column]) for pattern in wanted)
        for column, wanted in patterns.items()
        if wanted
    )


def texts_in(value: Any) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list) else [str(value)]

"""Cuts what a survey says into the pages of a table, and names the states of queues."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from nats_executor.operations.listing import Choice, chosen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nats_executor.fleet.queues import Row

__all__ = ["MOST_ROWS_A_PAGE", "Cut", "cut_rows", "with_queue_state"]

MOST_ROWS_A_PAGE = 200
WILDCARDS = frozenset("*?[")


class Cut(NamedTuple):
    """The part of a table that a viewer has asked for."""

    texts: Mapping[str, str]
    sort: str | None
    is_reversed: bool
    offset: int
    limit: int


def cut_rows(rows: Sequence[Row], cut: Cut) -> dict[str, Any]:
    """Return the rows of a page, and how many there are.

    Raises:
        ConfigError: no column is called so.
    """
    patterns = {column: pattern_of(column, text) for column, text in cut.texts.items()}
    found = chosen(rows, Choice(patterns, cut.sort, cut.is_reversed))
    return {
        "rows": found[cut.offset : cut.offset + cut.limit],
        "found": len(found),
        "total": len(rows),
        "states": dict(Counter(row["state"] for row in rows)),
    }


def pattern_of(column: str, text: str) -> list[str]:
    """Return the pattern for what was typed: a part of a name, or a pattern as of a shell.

    A state is chosen from a list, and one is a part of another.
    """
    if not text:
        return []
    return [text] if column == "state" or WILDCARDS & set(text) else [f"*{text}*"]


def with_queue_state(row: Row) -> Row:
    """Return a queue's row with its state: what an operator would look for first."""
    if row["paused_until"]:
        state = "paused"
    elif row["workers"]:
        state = "served"
    else:
        state = "unserved" if row["pending"] + row["in_flight"] else "idle"
    return {"queue": row["queue"], "state": state} | row

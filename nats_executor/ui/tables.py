"""Cuts what a survey says into the pages of a table, and names the states of queues."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from nats_executor.operations.listing import Choice, chosen
from nats_executor.wire.history import minutes_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nats_executor.fleet.queues import Row
    from nats_executor.wire.history import History

__all__ = [
    "MOST_ROWS_A_PAGE",
    "Cut",
    "cut_rows",
    "hour_rows",
    "last_full_minute",
    "with_depths",
    "with_queue_state",
]

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


def last_full_minute(now: float) -> int:
    """Return the minute, counted from the epoch, that schedulers have written of by now."""
    return int(now // 60) - 1


def with_depths(rows: Sequence[Row], histories: Mapping[str, History], minute: int) -> list[Row]:
    """Return queues' rows with how many workloads waited at the end of each minute of an hour."""
    return [
        row | {"hour": [m.depth for m in minutes_until(histories.get(row["queue"]), minute)]}
        for row in rows
    ]


def hour_rows(history: History | None, minute: int) -> list[Row]:
    """Return the minutes of the hour that ends with one, the oldest first.

    `wait_seconds` is the mean of what started in that minute, None where nothing did.
    """
    minutes = minutes_until(history, minute)
    return [
        {
            "at": 60 * number,
            "depth": seen.depth,
            "ended": seen.ended,
            "wait_seconds": round(seen.waited / 1000 / seen.started, 3) if seen.started else None,
        }
        for number, seen in enumerate(minutes, start=minute - len(minutes) + 1)
    ]

"""Decides what the live view shows, and what a key does in it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nats_executor.fleet.queues import Row

__all__ = [
    "COLUMNS",
    "HELP",
    "Act",
    "ActOn",
    "Board",
    "Mode",
    "Tab",
    "ViewState",
    "footer",
    "keys_in",
    "pressed",
    "selected_row",
    "visible_rows",
    "window",
]

LONGEST_TYPED = 200


class Tab(StrEnum):
    """The tables; the value is the column that names a row."""

    QUEUES = "queue"
    WORKERS = "worker"


class Mode(StrEnum):
    """The use of the keys at the moment."""

    SELECT = "select"
    FILTER = "filter"
    REASON = "reason"
    HELP = "help"


class Act(StrEnum):
    """The step that a key asks for."""

    QUIT = "quit"
    PAUSE = "pause"
    RESUME = "resume"
    DRAIN = "drain"
    UNDRAIN = "undrain"


class ActOn(NamedTuple):
    """An act, and the queue or worker that it is about."""

    act: Act
    name: str = ""
    reason: str = ""


# By column, its title.
COLUMNS: Mapping[Tab, Mapping[str, str]] = {
    Tab.QUEUES: {
        "queue": "queue",
        "pending": "pending",
        "in_flight": "running",
        "in_per_s": "in/s",
        "out_per_s": "out/s",
        "workers": "workers",
        "slots": "slots",
        "paused_until": "paused",
    },
    Tab.WORKERS: {
        "worker": "worker",
        "state": "state",
        "running": "running",
        "concurrency": "slots",
        "queues": "queues",
        "last_seen_seconds": "seen",
    },
}

HELP = (
    "Up, Down or j, k   select a row",
    "Tab                queues or workers",
    "p                  pause the selected queue, or resume it",
    "d                  drain the selected worker, or undrain it",
    "/                  show names with this text, or those that a pattern matches",
    "s                  sort by the next column, the largest first",
    "q or Ctrl-C        quit",
    "",
    "running   workloads that workers have been given and that are not over",
    "in/s      workloads that came into the queue; out/s: those workers were given",
    "",
    "A pause and a drain last after this view has ended. Both need the role operator.",
)


class Board(NamedTuple):
    """The result of the last look."""

    queues: Sequence[Row] = ()
    workers: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class ViewState:
    """The view of a person: rows, selection and typed text.

    Attributes:
        selected: by table, the name of the selected row.
        filters: by table, what its names have to match.
        sorts: by table, the column to sort by.
        typed: the reason, or the filter, so far.
        wanted: what the reason is for.
    """

    tab: Tab = Tab.QUEUES
    mode: Mode = Mode.SELECT
    selected: Mapping[Tab, str] = field(default_factory=dict)
    filters: Mapping[Tab, str] = field(default_factory=dict)
    sorts: Mapping[Tab, str] = field(default_factory=dict)
    typed: str = ""
    wanted: ActOn | None = None

    @property
    def filter(self) -> str:
        return self.typed if self.mode is Mode.FILTER else self.filters.get(self.tab, "")

    @property
    def sort(self) -> str | None:
        return self.sorts.get(self.tab)


def visible_rows(state: ViewState, board: Board) -> list[Row]:
    """Return the rows of the table that is shown, filtered and sorted."""
    rows = board.queues if state.tab is Tab.QUEUES else board.workers
    text = state.filter
    pattern = text if any(c in text for c in "*?[") else f"*{text}*"
    found = [row for row in rows if fnmatchcase(row[state.tab], pattern)]
    column = state.sort
    if column is None:
        return found
    known = [row for row in found if row[column] is not None]
    is_number = any(isinstance(row[column], int | float) for row in known)
    known.sort(key=itemgetter(column), reverse=is_number)
    return known + [row for row in found if row[column] is None]


def selected_row(state: ViewState, rows: Sequence[Row]) -> int:
    """Return the index of the selected row, the first one if it is gone."""
    name = state.selected.get(state.tab)
    return next((n for n, row in enumerate(rows) if row[state.tab] == name), 0)


def window(index: int, count: int, height: int) -> range:
    """Return the rows that fit, with the selected one among them."""
    first = max(0, min(index - height // 2, count - height))
    return range(first, min(count, first + height))


def pressed(state: ViewState, key: str, rows: Sequence[Row]) -> tuple[ViewState, ActOn | None]:
    """Return what follows from a key: a new state, and what is to be done.

    Args:
        key: a character, or the name of a key as `keys_in` gives it.
        rows: those that are visible.
    """
    match state.mode:
        case Mode.HELP:
            return replace(state, mode=Mode.SELECT), None
        case Mode.FILTER:
            return filtering(state, key), None
        case Mode.REASON:
            return reasoning(state, key)
    if key == "q":
        return state, ActOn(Act.QUIT)
    if key in {"p", "d"} and rows:
        return ordered(state, key, rows[selected_row(state, rows)])
    return looking(state, key, rows), None


def looking(state: ViewState, key: str, rows: Sequence[Row]) -> ViewState:
    """Return what a key shows that changes nothing but the view."""
    match key:
        case "?":
            state = replace(state, mode=Mode.HELP)
        case "/":
            state = replace(state, typed=state.filter, mode=Mode.FILTER)
        case "tab":
            state = replace(state, tab=Tab.WORKERS if state.tab is Tab.QUEUES else Tab.QUEUES)
        case "s":
            state = with_sort(state)
        case "up" | "k":
            state = moved(state, -1, rows)
        case "down" | "j":
            state = moved(state, 1, rows)
    return state


def ordered(state: ViewState, key: str, row: Row) -> tuple[ViewState, ActOn | None]:
    """Ask for the reason of a pause or a drain; the end of one needs none."""
    name = row[state.tab]
    match key, state.tab:
        case "p", Tab.QUEUES:
            if row["paused_until"]:
                return state, ActOn(Act.RESUME, name)
            wanted = ActOn(Act.PAUSE, name)
        case "d", Tab.WORKERS:
            if row["drained_by"]:
                return state, ActOn(Act.UNDRAIN, name)
            wanted = ActOn(Act.DRAIN, name)
        case _:
            return state, None
    return replace(state, mode=Mode.REASON, typed="", wanted=wanted), None


def filtering(state: ViewState, key: str) -> ViewState:
    match key:
        case "enter":
            text = state.typed
        case "escape":
            text = ""
        case _:
            return replace(state, typed=typed_on(state.typed, key))
    filters = {**state.filters, state.tab: text}
    return replace(state, mode=Mode.SELECT, typed="", filters=filters)


def reasoning(state: ViewState, key: str) -> tuple[ViewState, ActOn | None]:
    over = replace(state, mode=Mode.SELECT, typed="", wanted=None)
    match key:
        case "enter" if state.wanted:
            return over, state.wanted._replace(reason=state.typed.strip())
        case "enter" | "escape":
            return over, None
    return replace(state, typed=typed_on(state.typed, key)), None


def typed_on(text: str, key: str) -> str:
    """Return a text with one more character, or one less."""
    if key == "backspace":
        return text[:-1]
    return text if key in SEQUENCES.values() else (text + key)[:LONGEST_TYPED]


def with_sort(state: ViewState) -> ViewState:
    """Sort by the next column; after the last one comes the list's own order."""
    columns = [None, *COLUMNS[state.tab]]
    following = columns[(columns.index(state.sort) + 1) % len(columns)]
    sorts = {tab: column for tab, column in state.sorts.items() if tab is not state.tab}
    return replace(state, sorts=sorts | ({state.tab: following} if following else {}))


def moved(state: ViewState, by: int, rows: Sequence[Row]) -> ViewState:
    if not rows:
        return state
    index = min(max(0, selected_row(state, rows) + by), len(rows) - 1)
    return replace(state, selected={**state.selected, state.tab: rows[index][state.tab]})


def footer(state: ViewState) -> str:
    """Return the line that says what keys do now, with what has been typed."""
    match state.mode:
        case Mode.HELP:
            return "any key goes back"
        case Mode.FILTER:
            return f"filter (Enter keeps it, Esc ends it): {state.typed}_"
        case Mode.REASON if state.wanted:
            what = f"{state.wanted.act} {state.wanted.name}"
            return f"{what}, for what reason? (Enter does it, Esc does not) {state.typed}_"
    order = "p pause" if state.tab is Tab.QUEUES else "d drain"
    other = "workers" if state.tab is Tab.QUEUES else "queues"
    return f"Tab {other}  j/k select  {order}  / filter  s sort  ? help  q quit"


# What terminals send, in both modes of the cursor keys.
SEQUENCES = {
    "\x1b[A": "up", "\x1bOA": "up", "\x1b[B": "down", "\x1bOB": "down",
    "\t": "tab", "\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace",
    "\x1b": "escape",
}  # fmt: skip


def keys_in(text: str) -> list[str]:
    """Return the keys of what a terminal has sent; those without a meaning are left out."""
    keys = []
    while text:
        sequence = next((s for s in SEQUENCES if text.startswith(s)), "")
        if sequence == "\x1b" and len(text) > 1:
            text = after_sequence(text)
            continue
        if sequence:
            keys.append(SEQUENCES[sequence])
        elif text[0].isprintable():
            keys.append(text[0])
        text = text[max(1, len(sequence)) :]
    return keys


def after_sequence(text: str) -> str:
    """Return what comes after an escape sequence of another key."""
    if text[1] not in "[O":
        return text[2:]
    for following, character in enumerate(text[2:], 3):
        if "@" <= character <= "~":
            return text[following:]
    return ""

"""What the live view shows and what each key does, over plain rows."""

from __future__ import annotations

from typing import Any

import pytest

from nats_executor.operations.board import (
    COLUMNS,
    HELP,
    Act,
    ActOn,
    Board,
    Mode,
    Tab,
    ViewState,
    footer,
    keys_in,
    pressed,
    selected_row,
    visible_rows,
    window,
)


def queue(name: str, pending: int = 0, **more: Any) -> dict[str, Any]:
    facts = {"in_flight": 0, "in_per_s": None, "out_per_s": None, "workers": 1, "slots": 4}
    return {"queue": name, "pending": pending, "paused_until": None, **facts, **more}


def worker(name: str, **more: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"state": "running", "running": 0, "concurrency": 4, "queues": ["a"]}
    return {"worker": name, "last_seen_seconds": 1, "drained_by": None, **facts, **more}


BOARD = Board(
    queues=[
        queue("etl-1", 5, in_per_s=1.5),
        queue("etl-2", 9),
        queue("gpu", 7, in_per_s=2.5, paused_until="resumed"),
    ],
    workers=[worker("w1"), worker("w2", drained_by="ann")],
)


def typed(state: ViewState, *keys: str) -> tuple[ViewState, list[ActOn]]:
    """Press keys one after the other; return the state and all that is to be done."""
    wanted = []
    for key in keys:
        state, one = pressed(state, key, visible_rows(state, BOARD))
        wanted += [one] if one else []
    return state, wanted


def names_shown(state: ViewState) -> list[str]:
    return [row[state.tab] for row in visible_rows(state, BOARD)]


@pytest.mark.parametrize(
    ("keys", "selected"),
    [
        ([], "etl-1"),
        (["j"], "etl-2"),
        (["down", "down"], "gpu"),
        (["j", "j", "j"], "gpu"),
        (["j", "j", "k"], "etl-2"),
        (["j", "up"], "etl-1"),
        (["up"], "etl-1"),
        (["tab"], "w1"),
        (["tab", "j"], "w2"),
        (["j", "tab", "j", "tab"], "etl-2"),
        (["j", "x", "pageup"], "etl-2"),
    ],
)
def test_keys_select_a_row(keys: list[str], selected: str) -> None:
    state, wanted = typed(ViewState(), *keys)

    rows = visible_rows(state, BOARD)
    assert rows[selected_row(state, rows)][state.tab] == selected
    assert wanted == []


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        (["q"], [ActOn(Act.QUIT)]),
        (["p", *"new driver ", "enter"], [ActOn(Act.PAUSE, "etl-1", "new driver")]),
        (["p", "enter"], [ActOn(Act.PAUSE, "etl-1")]),
        (["p", "q", "escape"], []),
        (["p", "a", "b", "backspace", "enter"], [ActOn(Act.PAUSE, "etl-1", "a")]),
        (["p", "x", "escape", "p", "enter"], [ActOn(Act.PAUSE, "etl-1")]),
        (["j", "j", "p"], [ActOn(Act.RESUME, "gpu")]),
        (["d"], []),
        (["tab", "d", "j", "enter"], [ActOn(Act.DRAIN, "w1", "j")]),
        (["tab", "j", "d"], [ActOn(Act.UNDRAIN, "w2")]),
        (["tab", "p", "enter"], []),
        (["/", *"gpu", "enter", "p"], [ActOn(Act.RESUME, "gpu")]),
        (["/", *"none", "enter", "p", "d", "j", "k"], []),
        (["?", "q"], []),
        (["?", "q", "q"], [ActOn(Act.QUIT)]),
    ],
)
def test_keys_have_something_done(keys: list[str], wanted: list[ActOn]) -> None:
    assert typed(ViewState(), *keys)[1] == wanted


def test_what_is_selected_stays_selected_where_it_moves_to() -> None:
    state, _ = typed(ViewState(), "j", "s", "s")  # by pending, the largest first

    assert names_shown(state) == ["etl-2", "gpu", "etl-1"]
    assert selected_row(state, visible_rows(state, BOARD)) == 0


def test_a_row_that_is_gone_leaves_the_first_one_selected() -> None:
    state, _ = typed(ViewState(), "j")

    assert selected_row(state, [queue("a"), queue("b")]) == 0


@pytest.mark.parametrize(
    ("times", "column", "order"),
    [
        (0, None, ["etl-1", "etl-2", "gpu"]),
        (1, "queue", ["etl-1", "etl-2", "gpu"]),
        (2, "pending", ["etl-2", "gpu", "etl-1"]),
        (4, "in_per_s", ["gpu", "etl-1", "etl-2"]),
        (8, "paused_until", ["gpu", "etl-1", "etl-2"]),
        (9, None, ["etl-1", "etl-2", "gpu"]),
    ],
)
def test_s_sorts_by_the_next_column(times: int, column: str | None, order: list[str]) -> None:
    state, _ = typed(ViewState(), *["s"] * times)

    assert state.sort == column
    assert names_shown(state) == order
    assert typed(state, "tab")[0].sort is None


def test_every_column_is_one_of_its_rows() -> None:
    assert COLUMNS[Tab.QUEUES].keys() <= queue("q").keys()
    assert COLUMNS[Tab.WORKERS].keys() <= worker("w").keys()
    for tab in Tab:
        assert next(iter(COLUMNS[tab])) == tab
        assert all(visible_rows(ViewState(tab=tab, sorts={tab: c}), Board()) == [] for c in COLUMNS)


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        (["/", *"etl"], ["etl-1", "etl-2"]),
        (["/", *"etl", "enter"], ["etl-1", "etl-2"]),
        (["/", *"*2", "enter"], ["etl-2"]),
        (["/", *"?pu", "enter"], ["gpu"]),
        (["/", *"[g]*", "enter"], ["gpu"]),
        (["/", *"etl", "escape"], ["etl-1", "etl-2", "gpu"]),
        (["/", *"etl", "enter", "/", *["backspace"] * 3, "enter"], ["etl-1", "etl-2", "gpu"]),
        (["/", *"etl", "enter", "tab"], ["w1", "w2"]),
        (["/", *"x", "enter"], []),
    ],
)
def test_a_filter_shows_names_that_match(keys: list[str], shown: list[str]) -> None:
    assert names_shown(typed(ViewState(), *keys)[0]) == shown


def test_what_is_typed_is_bounded_and_has_no_keys_in_it() -> None:
    state, _ = typed(ViewState(), "p", "x", "up", "tab")
    assert state.typed == "x"

    assert typed(state, *["x"] * 205)[0].typed == "x" * 200


@pytest.mark.parametrize(
    ("index", "count", "height", "shown"),
    [
        (0, 3, 5, range(3)),
        (0, 9, 4, range(4)),
        (2, 9, 4, range(4)),
        (3, 9, 4, range(1, 5)),
        (7, 9, 4, range(5, 9)),
        (8, 9, 4, range(5, 9)),
        (0, 0, 4, range(0)),
        (5, 9, 1, range(5, 6)),
    ],
)
def test_the_selected_row_is_among_those_that_fit(
    index: int, count: int, height: int, shown: range
) -> None:
    assert window(index, count, height) == shown


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ([], "Tab workers  j/k select  p pause  / filter  s sort  ? help  q quit"),
        (["tab"], "Tab queues  j/k select  d drain  / filter  s sort  ? help  q quit"),
        (["?"], "any key goes back"),
        (["/", "a"], "filter (Enter keeps it, Esc ends it): a_"),
        (["p", "a"], "pause etl-1, for what reason? (Enter does it, Esc does not) a_"),
    ],
)
def test_the_last_line_says_what_keys_do(keys: list[str], text: str) -> None:
    state, _ = typed(ViewState(), *keys)

    assert footer(state) == text


def test_help_and_keys_fit_a_small_terminal() -> None:
    assert max(map(len, [*HELP, *(footer(ViewState(tab=tab)) for tab in Tab)])) <= 80
    assert len(HELP) <= 24 - 3
    assert typed(ViewState(), "?")[0].mode is Mode.HELP


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ("jk", ["j", "k"]),
        ("\x1b[A\x1b[B", ["up", "down"]),
        ("\x1bOA\x1bOB", ["up", "down"]),
        ("\t\r\n\x7f\b", ["tab", "enter", "enter", "backspace", "backspace"]),
        ("\x1b", ["escape"]),
        ("\x1b[C\x1b[5~x\x1b[1;5Ay", ["x", "y"]),
        ("\x1bxq", ["q"]),
        ("\x1b[", []),
        ("\x1b[1", []),
        ("\x1b[1@x\x1b[1~y", ["x", "y"]),
        ("ü\x00\x01", ["ü"]),
        ("", []),
    ],
)
def test_what_a_terminal_sends_is_read(sent: str, keys: list[str]) -> None:
    assert keys_in(sent) == keys

"""Text from anyone, cut and marked; batches; and which error is which."""

from __future__ import annotations

from typing import Any

import pytest

from nats_executor import errors
from nats_executor.batches import batches
from nats_executor.text import lines, number_of, one_line, presentable, shown

MARK = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("text", "in_one", "in_several"),
    [
        ("größe", "größe", "größe"),
        ("a\nb\tc", f"a{MARK}b{MARK}c", "a\nb\tc"),
        ("\x1b[31m\x00\x9b", f"{MARK}[31m{MARK}{MARK}", f"{MARK}[31m{MARK}{MARK}"),
        ("a\N{RIGHT-TO-LEFT OVERRIDE}b\r", f"a{MARK}b{MARK}", f"a{MARK}b{MARK}"),
        ("", "", ""),
    ],
)
def test_what_is_not_shown_as_a_character_is_marked(
    text: str, in_one: str, in_several: str
) -> None:
    assert one_line(text) == in_one
    assert lines(text) == in_several
    assert presentable(text) == in_several


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 slots"), (1, "1 slot"), (2, "2 slots"), (11, "11 slots")]
)
def test_what_is_counted_has_the_right_number(count: int, text: str) -> None:
    assert number_of(count, "slot") == text


@pytest.mark.parametrize("length", [3999, 4000, 4001, 9000])
@pytest.mark.parametrize("end", ["", "\x00"])
def test_a_text_has_at_most_4000_characters(length: int, end: str) -> None:
    text = "x" * length

    assert presentable(text + end) == (text + MARK * len(end))[:4000]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "'a'"),
        (1, "1"),
        (1.5, "1.5"),
        (None, "None"),
        (True, "True"),
        ([1], "list"),
        (b"a", "bytes"),
        ("x" * 78, f"'{'x' * 78}'"),
        ("x" * 79, f"'{'x' * 79}"),
        ("x" * 500, f"'{'x' * 79}"),
    ],
)
def test_a_value_is_shown_in_80_characters(value: Any, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("items", "size", "pieces"),
    [
        ([], 2, []),
        ([1], 2, [[1]]),
        ([1, 2], 2, [[1, 2]]),
        ([1, 2, 3], 2, [[1, 2], [3]]),
        ([1, 2, 3], 1, [[1], [2], [3]]),
    ],
)
def test_a_sequence_is_cut(items: list[int], size: int, pieces: list[list[int]]) -> None:
    assert list(batches(items, size)) == pieces


def test_what_is_worth_another_try_is_unavailable() -> None:
    known = {getattr(errors, name) for name in errors.__all__}

    again = {kind for kind in known if issubclass(kind, errors.BrokerUnavailable)}
    assert again == {errors.BrokerUnavailable, errors.NoQuorum, errors.StreamFull}
    assert all(issubclass(kind, errors.NatsExecutorError) for kind in known)

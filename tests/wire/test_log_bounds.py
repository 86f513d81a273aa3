"""The first part of a stored log, its cuts, and the bounds of an entry from both sides."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nats_executor.errors import DecodeError
from nats_executor.wire.log_pages import PAGE_BYTES, Page, Question, encode_log_message
from nats_executor.wire.log_parts import (
    CHUNK_BYTES,
    STORED_BYTES,
    Part,
    as_entry,
    beginning,
    part_id,
    part_in,
)
from nats_executor.wire.messages import decode as decode_message
from nats_executor.wire.names import Names, Verb

CHUNK, MOST = 131_072, 67_108_864
NAMES = Names()


def part(start: int = 0, size: int = 1) -> Part:
    return Part(id="0123456789abcdef", start=start, size=size, digest=b"x" * 32)


@pytest.mark.parametrize(
    ("size", "start"),
    [
        (0, 0),
        (1, 0),
        (MOST - 1, 0),
        (MOST, 0),
        (MOST + 1, CHUNK),
        (MOST + CHUNK, CHUNK),
        (MOST + CHUNK + 1, 2 * CHUNK),
        (3 * MOST, 2 * MOST),
    ],
)
def test_the_last_64_mib_of_a_file_are_stored_from_a_chunk_on(size: int, start: int) -> None:
    assert beginning(size, most=STORED_BYTES, step=CHUNK_BYTES) == start
    assert type(beginning(size, most=STORED_BYTES, step=CHUNK_BYTES)) is int


@pytest.mark.parametrize(
    ("start", "size", "lengths"),
    [
        (0, 0, {}),
        (0, 1, {0: 1}),
        (0, CHUNK, {0: CHUNK}),
        (0, CHUNK + 1, {0: CHUNK, 1: 1}),
        (3 * CHUNK, 2 * CHUNK - 1, {3: CHUNK, 4: CHUNK - 1}),
    ],
)
def test_a_part_has_chunks(start: int, size: int, lengths: dict[int, int]) -> None:
    made = part(start, size)

    assert {number: made.length(number) for number in made.numbers} == lengths
    assert made.end == start + size


def test_a_part_is_named_by_16_characters_of_its_first_line() -> None:
    assert part_id(b"first\nsecond") == part_id(b"first\nthird") == part_id(b"first")
    assert part_id(b"") == "e3b0c44298fc1c14"


def entry(**changes: Any) -> bytes:
    made = json.loads(as_entry(part(), NAMES, "a", "p")[1])
    return json.dumps({**made, **changes}).encode()


def placed(start: int) -> dict[str, Any]:
    return {"metadata": {"part": "0123456789abcdef", "start": str(start)}}


@pytest.mark.parametrize("size", [0, 1, MOST])
def test_a_size_up_to_64_mib_is_read(size: int) -> None:
    assert part_in(entry(size=size)) == part(0, size)


@pytest.mark.parametrize("start", [0, CHUNK, 2**53 - CHUNK])
def test_a_start_where_a_chunk_begins_is_read(start: int) -> None:
    assert part_in(entry(**placed(start))) == part(start)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": -1},
        {"size": MOST + 1},
        {"size": 1.0},
        {"size": True},
        placed(-CHUNK),
        placed(-1),
        placed(1),
        placed(CHUNK - 1),
        placed(2**53),
        placed(2**53 + CHUNK),
    ],
)
def test_any_other_size_or_start_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match="a record of a log that cannot be"):
        part_in(entry(**changes))


def test_an_entry_has_at_most_16_kib() -> None:
    made = entry()

    assert part_in(made.ljust(16_384)) == part()
    with pytest.raises(DecodeError, match="more than 16384 bytes"):
        part_in(made.ljust(16_385))


@pytest.mark.parametrize("letter", ["x", "\u00fc"])
def test_a_name_of_1500_bytes_is_kept(letter: str) -> None:
    size = len(letter.encode())
    longest = letter * ((1500 - 17) // size) + "x" * ((1500 - 17) % size)

    assert as_entry(part(), NAMES, "a", longest)[0] == f"{longest}/0123456789abcdef"
    assert as_entry(part(), NAMES, "a", longest + "x")[0] == "0123456789abcdef"


def test_a_question_and_a_page_start_with_nothing() -> None:
    assert (Verb.LOG, PAGE_BYTES) == ("log", 262_144)
    question = Question(dispatch_id="d")
    assert (question.offset, question.limit) == (0, 0)
    assert (Page().runs, Page().size, Page().data, Page().refusal) == (False, 0, b"", "")
    assert "secret" not in repr(Page(data=b"secret"))


def test_a_page_survives_the_wire_and_a_path_that_is_no_text_too() -> None:
    page = Page(runs=True, path="a\udcff", size=7, data=b"\xff")

    read = decode_message(Page, encode_log_message(page))

    assert (read.runs, read.path, read.size, read.data) == (True, "a?", 7, b"\xff")

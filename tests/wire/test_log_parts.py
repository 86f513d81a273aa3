"""The entries of stored logs: whatever arrives is a part that can be, or it is refused."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_executor.errors import DecodeError
from nats_executor.wire.log_parts import (
    CHUNK_BYTES,
    STORED_BYTES,
    Part,
    as_entry,
    log_of,
    part_id,
    part_in,
)
from nats_executor.wire.names import Names

NAMES = Names()
PATH = "dag_id=a/attempt=1.log"
DIGEST = hashlib.sha256(b"x").digest()
PART = Part(id="0123456789abcdef", start=CHUNK_BYTES, size=2 * CHUNK_BYTES + 1, digest=DIGEST)
ENTRY: dict[str, Any] = json.loads(as_entry(PART, NAMES, "a", PATH)[1])


def test_what_is_written_is_read() -> None:
    assert part_in(json.dumps(ENTRY).encode()) == PART
    assert list(PART.numbers) == [1, 2, 3]
    assert [PART.length(number) for number in PART.numbers] == [CHUNK_BYTES, CHUNK_BYTES, 1]


def test_it_is_written_as_object_stores_write_it() -> None:
    name, _ = as_entry(PART, NAMES, "a", PATH)

    assert name == f"{PATH}/0123456789abcdef"
    assert ENTRY["digest"] == f"SHA-256={base64.urlsafe_b64encode(DIGEST).decode()}"
    subject = f"$O.{ENTRY['bucket']}.C.{ENTRY['nuid']}"
    assert subject == NAMES.log_part("a", PATH, PART.id) + ".*"
    assert NAMES.log_name("a/b c") == "$O.airflow_logs.M.YS9iIGM="


BAD: list[dict[str, Any]] = [
    {"metadata": None},
    {"metadata": {"part": "0123456789abcdef"}},
    {"metadata": {"part": "0123456789ABCDEF", "start": "0"}},
    {"metadata": {"part": "*", "start": "0"}},
    {"metadata": {"part": 1, "start": "0"}},
    {"metadata": {"part": "0123456789abcdef", "start": "1"}},
    {"metadata": {"part": "0123456789abcdef", "start": str(-CHUNK_BYTES)}},
    {"metadata": {"part": "0123456789abcdef", "start": str(CHUNK_BYTES * 2**40)}},
    {"metadata": {"part": "0123456789abcdef", "start": "9" * 5000}},
    {"metadata": {"part": "0123456789abcdef", "start": 1e999}},
    {"size": STORED_BYTES + 1},
    {"size": -1},
    {"size": True},
    {"size": "1"},
    {"digest": 1},
    {"digest": "SHA-256=x"},
    {"digest": "SHA-256=größe"},
]


@pytest.mark.parametrize("changes", BAD, ids=str)
def test_what_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        part_in(json.dumps(ENTRY | changes).encode())


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"1", b"\xff", b"[" * 100_000, b'{"size": ' + b"9" * 5000]
)
def test_what_is_no_entry_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        part_in(body)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*ENTRY]), VALUES, max_size=3))
def test_what_is_read_is_bounded(changes: dict[str, Any]) -> None:
    try:
        part = part_in(json.dumps(ENTRY | changes).encode())
    except DecodeError:
        return
    assert 0 <= part.size <= STORED_BYTES
    assert len(part.numbers) <= STORED_BYTES // CHUNK_BYTES
    assert part.id.isalnum()


def test_a_part_keeps_its_name_while_its_file_grows() -> None:
    assert part_id(b"one\ntwo\n") == part_id(b"one\n") != part_id(b"two\n")


@pytest.mark.parametrize(
    ("path", "log"),
    [
        ("a/attempt=1.log", "a/attempt=1.log"),
        ("a/attempt=1.log.trigger.42.log", "a/attempt=1.log"),
        ("a/x.trigger.42.log/attempt=1.log", "a/x.trigger.42.log/attempt=1.log"),
    ],
)
def test_a_triggers_log_belongs_to_its_tasks(path: str, log: str) -> None:
    assert log_of(path) == log

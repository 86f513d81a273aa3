"""Messages from the broker are bounded before they are decoded: bytes, depth, items."""

from __future__ import annotations

import tracemalloc
from typing import Any, NoReturn

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nats_executor.errors import DecodeError
from nats_executor.wire import log_parts
from nats_executor.wire.bounds import DEEPEST, MOST_ITEMS, SMALL_BYTES
from nats_executor.wire.messages import (
    LONGEST_LIST,
    SIZES,
    Presence,
    Report,
    Workload,
    decode,
    encode,
    token_expiry,
)
from nats_executor.wire.sizes import ANSWER_BYTES, LOG_RECORD_BYTES, WORKLOAD_BYTES
from tests.support.strange_messages import EXAMPLES, KINDS, as_map, read

# Of Python's memory, while a message is read that is as bad as can be.
MOST_MEGABYTES = 40
levels = st.lists(st.sampled_from(["list", "map"]), min_size=1, max_size=8)
depths = st.integers(1, 8) | st.integers(DEEPEST - 3, DEEPEST + 3) | st.integers(500, 1100)


def nested(depth: int, shape: list[str]) -> bytes:
    """Return so many levels of lists and maps, around nothing."""
    opens = {"list": b"\x91", "map": b"\x81\xa1x"}
    return b"".join(opens[shape[n % len(shape)]] for n in range(depth)) + b"\xc0"


def with_field(kind: type[Any], name: str, value: bytes) -> bytes:
    """Return a message that is as it should be but for one field."""
    values = as_map(kind)
    values.pop(name, None)
    body: bytes = msgpack.packb(values)
    head = (len(values) + 1).to_bytes(2, "big")
    field: bytes = msgpack.packb(name)
    return b"\xde" + head + body[1 if body[0] != 0xDE else 3 :] + field + value


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100)
@given(data=st.data())
def test_a_value_of_any_depth_anywhere_is_read_or_refused(
    kind: type[Any], data: st.DataObject
) -> None:
    depth, shape = data.draw(depths), data.draw(levels)
    name = data.draw(st.sampled_from(["unknown", *as_map(kind)]))
    body = with_field(kind, name, nested(depth, shape))

    message = read(kind, body)

    # The message itself is the first level.
    assert message is None or depth + 1 <= DEEPEST
    if depth + 1 <= DEEPEST and name == "unknown":
        assert message == EXAMPLES[kind]
    if message is not None:
        assert encode(decode(kind, encode(message))) == encode(message)
        assert repr(message)


@given(depths, levels, st.sampled_from(["key", "body"]))
def test_what_would_not_be_read_is_not_written(depth: int, shape: list[str], name: str) -> None:
    value = msgpack.unpackb(nested(min(depth, 400), shape))
    inner = [value] if name == "key" else {"x": value}
    message = Workload(**{f: getattr(EXAMPLES[Workload], f) for f in as_map(Workload) if f != "v"}
                       | {name: inner})  # fmt: skip

    packed = msgpack.packb(as_map(Workload) | {name: inner})
    if (is_read := read(Workload, packed)) is None:
        with pytest.raises(ValueError, match=f"nested deeper than {DEEPEST} levels"):
            encode(message)
    else:
        assert is_read == decode(Workload, encode(message)) == message


def never(*_: object, **__: object) -> NoReturn:
    raise AssertionError("it was decoded")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10)
@given(over=st.integers(1, 5000))
@example(over=1)
def test_what_is_too_large_is_never_decoded(kind: type[Any], over: int) -> None:
    most = SIZES.get(kind, ANSWER_BYTES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(msgpack, "unpackb", never)
        patch.setattr(msgpack, "Unpacker", never)

        with pytest.raises(DecodeError, match=f"more than {most} bytes"):
            decode(kind, bytes(most + over))


@pytest.mark.parametrize("kind", KINDS)
def test_what_just_fits_is_read(kind: type[Any]) -> None:
    most = SIZES.get(kind, ANSWER_BYTES)
    empty = len(with_field(kind, "unknown", b"\xc6" + bytes(4)))
    body = with_field(
        kind, "unknown", b"\xc6" + (most - empty).to_bytes(4, "big") + bytes(most - empty)
    )

    assert len(body) == most
    assert decode(kind, body) == EXAMPLES[kind]


ITEMS = {
    "empty lists": b"\x90",
    "empty maps": b"\x80",
    "short texts": b"\xa2ab",
    "numbers": b"\xcd\x12\x34",
    "small maps": b"\x81\xa1a\xa1b",
    "lists of lists": b"\x92\x90\x90",
}


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
@pytest.mark.parametrize("per_row", [10, 20_000])
@pytest.mark.parametrize("kind", [Workload, Report])
def test_no_message_of_many_items_takes_much_memory(
    kind: type[Any], per_row: int, item: bytes
) -> None:
    row = b"\xdc" + per_row.to_bytes(2, "big") + item * per_row
    count = (SIZES[kind] - 1000) // len(row)
    body = with_field(kind, "unknown", b"\xdd" + count.to_bytes(4, "big") + row * count)

    message, peak = peak_of(kind, body)

    assert message is None or kind is Report
    assert peak < MOST_MEGABYTES


@pytest.mark.parametrize("size", [SMALL_BYTES, SMALL_BYTES + 1, 60_000, 7_000_000])
@pytest.mark.parametrize("head", [b"\xdd", b"\xdf"], ids=["lists", "maps"])
def test_lists_and_maps_that_only_promise_to_be_long_take_no_memory(size: int, head: bytes) -> None:
    promise = (
        head + min(size, MOST_ITEMS).to_bytes(4, "big") + (b"" if head == b"\xdd" else b"\xa1x")
    )
    body = with_field(Workload, "body", promise * 1000)
    body += b"\xc0" * (size - len(body))

    message, peak = peak_of(Workload, body)

    assert message is None
    assert peak < MOST_MEGABYTES


def peak_of(kind: type[Any], body: bytes) -> tuple[Any, float]:
    """Read a message, and return the megabytes that it took at most."""
    tracemalloc.start()
    try:
        message = read(kind, body)
        return message, tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def test_a_callback_with_large_arguments_is_read() -> None:
    arguments = {"text": "x" * (WORKLOAD_BYTES // 2), "rows": [[n, str(n)] for n in range(40_000)]}
    body = msgpack.packb(as_map(Workload, body=arguments))

    assert decode(Workload, body).body == arguments


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(Report, "predecessors", "x"), (Presence, "queues", "x"), (Presence, "lacks", "x"),
     (Report, "key", 1), (Workload, "key", 1)],
)  # fmt: skip
def test_a_list_ends_somewhere(kind: type[Any], name: str, value: Any) -> None:
    most = msgpack.packb(as_map(kind, **{name: [value] * LONGEST_LIST}))
    over = msgpack.packb(as_map(kind, **{name: [value] * (LONGEST_LIST + 1)}))

    assert len(getattr(decode(kind, most), name)) == LONGEST_LIST
    with pytest.raises(DecodeError, match=f"'{name}': more than {LONGEST_LIST} entries"):
        decode(kind, over)


def test_a_token_that_is_too_long_has_no_expiry_that_anyone_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nats_executor.wire.messages.json.loads", never)

    assert token_expiry("a." + "e30" * 100_000 + ".c") is None


def test_a_record_of_a_log_that_is_too_large_is_never_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nats_executor.wire.log_parts.json.loads", never)

    with pytest.raises(DecodeError, match=f"more than {LOG_RECORD_BYTES} bytes"):
        log_parts.part_in(bytes(LOG_RECORD_BYTES + 1))


@given(depths)
def test_a_record_of_a_log_of_any_depth_is_refused(depth: int) -> None:
    with pytest.raises(DecodeError):
        log_parts.part_in(b"[" * depth + b"]" * depth)

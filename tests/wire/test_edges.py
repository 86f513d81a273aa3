"""Each bound of a message from both sides: its depth, its items, its texts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest

from nats_executor.errors import DecodeError
from nats_executor.wire import bounds, fitting
from nats_executor.wire.bounds import is_deep, may_be_deep, packed, unpack_large, unpacked
from nats_executor.wire.fitting import fitted_presence, fitted_report, shortened
from nats_executor.wire.messages import Presence, Report, State, decode, encode
from nats_executor.wire.sizes import HEADERS_BYTES

MANY = 10_000_000


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_a_hundred_levels_are_read_and_one_more_is_not() -> None:
    assert unpacked(packed({"a": nested(99)}), MANY) == {"a": nested(99)}
    with pytest.raises(ValueError, match="nested deeper than 100 levels"):
        packed({"a": nested(100)})
    with pytest.raises(DecodeError, match="nested deeper than 100 levels"):
        unpacked(msgpack.packb({"a": nested(100)}), MANY)
    assert not is_deep(nested(100))
    assert is_deep(nested(101))


# The bytes with which a map or a list begins, by msgpack's specification.
BEGINNINGS = {*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF}


@pytest.mark.parametrize("byte", range(256))
def test_what_begins_a_map_or_a_list_is_counted(byte: int) -> None:
    assert may_be_deep(bytes([byte]) * 101) is (byte in BEGINNINGS)
    assert not may_be_deep(bytes([byte]) * 100)


def test_a_message_has_at_most_200_000_items() -> None:
    """A list counts as one more than what it holds."""
    assert len(unpack_large(msgpack.packb([0] * 199_999))) == 199_999
    with pytest.raises(DecodeError, match="more than 200000 items"):
        unpack_large(msgpack.packb([0] * 200_000))
    half = [0] * 99_997  # two lists with 99,998 each, and the one around them with three
    assert len(unpack_large(msgpack.packb([half, half]))) == 2
    with pytest.raises(DecodeError, match="more than 200000 items"):
        unpack_large(msgpack.packb([[*half, 0, 0], half]))


@pytest.mark.parametrize("size", [10, 5000])
def test_the_keys_of_a_map_are_texts(size: int) -> None:
    with pytest.raises(DecodeError, match="not a msgpack message"):
        unpacked(msgpack.packb({1: "x" * size}), MANY)


@pytest.mark.parametrize(("size", "is_counted"), [(4095, False), (4096, False), (4097, True)])
def test_only_a_message_of_more_than_4_kib_is_counted(
    size: int, is_counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[bytes] = []
    monkeypatch.setattr(bounds, "unpack_large", counted.append)

    unpacked(msgpack.packb("x" * (size - 3)), MANY)

    assert bool(counted) is is_counted


REPORT = Report(
    dispatch_id="d",
    queue="q",
    state=State.FAILED,
    kind="k" * 2000,
    key=[],
    worker="w" * 2000,
    worker_name="n" * 2000,
    sender="s" * 2000,
    info="i" * 2000,
    predecessors=["a", "b" * 2000, "c"],
)


def test_a_shortened_report_keeps_so_much_of_each_text() -> None:
    short = shortened(REPORT)

    texts = (short.kind, short.worker, short.worker_name, short.sender, short.info)
    assert [len(text) for text in texts] == [250, 1000, 250, 1000, 500]
    assert short.predecessors == ["b" * 250, "c"]


PRESENCE = Presence(
    worker="w.1",
    name="w",
    host="h",
    pid=1,
    queues=[],
    concurrency=1,
    running=0,
    draining=False,
    started_at=0.0,
    at=0.0,
    version="1",
)


def test_a_presence_keeps_the_queues_for_which_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each costs its bytes and five more; what fits exactly stays."""
    empty = len(encode(PRESENCE))
    served = replace(PRESENCE, queues=["a" * 10] * 9, host="h" * 300)
    empty_short = len(encode(replace(served, queues=[], host="h" * 250)))
    assert empty_short > empty

    for room, kept in ((44, 2), (45, 3), (46, 3), (59, 3), (60, 4)):
        monkeypatch.setattr(fitting, "PRESENCE_BYTES", HEADERS_BYTES + empty_short + room)
        assert len(decode(Presence, fitted_presence(served)).queues) == kept


def test_a_queue_after_one_without_room_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    served = replace(PRESENCE, queues=["a" * 100, "b"], host="h" * 300)
    short = len(encode(replace(served, queues=[], host="h" * 250)))
    monkeypatch.setattr(fitting, "PRESENCE_BYTES", HEADERS_BYTES + short + 50)

    assert decode(Presence, fitted_presence(served)).queues == []


@pytest.mark.parametrize(("room", "is_whole"), [(0, True), (1, True), (-1, False)])
def test_what_fits_with_its_headers_is_left_as_it_is(
    room: int, is_whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = replace(PRESENCE, host="h" * 300)
    bound = HEADERS_BYTES + room
    monkeypatch.setattr(fitting, "PRESENCE_BYTES", bound + len(encode(served)))
    monkeypatch.setattr(fitting, "REPORT_BYTES", bound + len(encode(REPORT)))

    assert (fitted_presence(served) == encode(served)) is is_whole
    assert (fitted_report(REPORT) == encode(REPORT)) is is_whole


@pytest.mark.parametrize(("room", "key"), [(0, ["a", "b"]), (1, ["a", "b"]), (-1, [])])
def test_a_shortened_report_keeps_its_key_if_it_fits(
    room: int, key: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = replace(REPORT, key=["a", "b"])
    size = len(encode(shortened(report)))
    monkeypatch.setattr(fitting, "REPORT_BYTES", HEADERS_BYTES + size + room)

    assert decode(Report, fitted_report(report)).key == key

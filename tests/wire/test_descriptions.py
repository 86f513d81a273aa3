"""A worker's answer to the question what it runs: read back, checked, and cut to its size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_executor.errors import DecodeError, UnknownVersion
from nats_executor.wire import fitting
from nats_executor.wire.descriptions import (
    Carried,
    Description,
    Phase,
    decode_description,
    encode_description,
)
from nats_executor.wire.fitting import fitted_description
from nats_executor.wire.sizes import ANSWER_BYTES
from tests.support.strange_messages import VALUES

TASK = Carried(
    dispatch_id="d1", queue="q", kind="ExecuteTask", phase=Phase.RUNNING, since=2.5, dag="etl",
    run="r1", task="load", map_index=3, try_number=2, id="i1", attempt=2, pid=77,
)  # fmt: skip
BARE = Carried(dispatch_id="d2", queue="q", kind="", phase=Phase.LOOKING, since=3.0)
WORKER = Description(
    worker="w.1", name="w", at=9.0, started_at=1.0, connected_at=2.0, version="1", airflow="3.3.2",
    python="3.12.1", memory_bytes=5, memory_used_bytes=6, memory_limit_bytes=7,
    memory_of="cgroup", carried=[TASK, BARE],
)  # fmt: skip


def raw(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = msgpack.unpackb(encode_description(WORKER))
    return values | changes


def read(**changes: Any) -> Description:
    return decode_description(msgpack.packb(raw(**changes)))


def test_an_answer_is_read_as_it_was_written() -> None:
    assert decode_description(encode_description(WORKER)) == WORKER
    assert decode_description(fitted_description(WORKER)) == WORKER


def test_what_is_left_out_has_a_meaning() -> None:
    assert (BARE.dag, BARE.run, BARE.task, BARE.id) == (None, None, None, None)
    assert (BARE.map_index, BARE.try_number, BARE.attempt, BARE.pid) == (None, None, 1, 0)
    least = Description(
        worker="w.1", name="w", at=9.0, started_at=1.0, connected_at=2.0, version="1", airflow="",
        python="",
    )  # fmt: skip
    assert (least.memory_bytes, least.memory_used_bytes, least.memory_limit_bytes) == (0, 0, 0)
    assert (least.memory_of, least.carried, least.left_out) == ("", [], 0)


def test_a_phase_of_a_newer_release_is_read() -> None:
    [found] = read(carried=[{**raw()["carried"][0], "phase": "resting", "more": 1}]).carried

    assert found == replace(TASK, phase="resting")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dag": 1}, "field 'dag': expected str, got int"),
        ({"map_index": "1"}, "field 'map_index': expected int, got str"),
        ({"map_index": -1}, "field 'map_index': -1 is not between 0"),
        ({"since": None}, "field 'since': expected float, got NoneType"),
    ],
)
def test_a_part_that_is_not_as_it_should_be_is_refused(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(DecodeError, match=complaint):
        read(carried=[{**raw()["carried"][0], **changes}])


def test_a_part_that_is_no_map_or_incomplete_is_refused() -> None:
    with pytest.raises(DecodeError, match="field 'carried': expected maps, got int"):
        read(carried=[1])
    with pytest.raises(DecodeError, match="carried is incomplete"):
        read(carried=[{}])
    with pytest.raises(UnknownVersion):
        read(v=2)


@given(st.lists(VALUES, max_size=3))
def test_any_parts_are_read_or_refused(parts: list[Any]) -> None:
    try:
        found = read(carried=parts)
    except DecodeError:
        return
    assert [type(one) for one in found.carried] == [Carried] * len(parts)


def many(count: int, length: int = 1) -> Description:
    ones = [replace(BARE, dispatch_id=f"{number:05}", run="x" * length) for number in range(count)]
    return replace(WORKER, carried=ones)


@pytest.mark.parametrize(("count", "kept"), [(999, 999), (1000, 1000), (1001, 1000), (9000, 1000)])
def test_no_more_are_listed_than_a_reader_takes(count: int, kept: int) -> None:
    found = decode_description(fitted_description(many(count)))

    assert [one.dispatch_id for one in found.carried] == [f"{n:05}" for n in range(kept)]
    assert found.left_out == count - kept


@pytest.mark.parametrize("length", [300, 1000, 5000, 300_000])
def test_an_answer_fits_and_lists_nearly_as_many_as_it_can(length: int) -> None:
    whole = many(1000, length)
    body = fitted_description(whole)
    found = decode_description(body)

    assert len(body) <= ANSWER_BYTES
    assert found.left_out == 1000 - len(found.carried) > 0
    assert found.carried == whole.carried[: len(found.carried)]
    assert len(body) + 3 * (length + 200) > ANSWER_BYTES


def test_what_fits_exactly_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encode_description(WORKER)
    monkeypatch.setattr(fitting, "ANSWER_BYTES", len(whole))
    assert fitted_description(WORKER) == whole

    monkeypatch.setattr(fitting, "ANSWER_BYTES", len(whole) - 1)
    found = decode_description(fitted_description(WORKER))
    assert (found.carried, found.left_out) == ([TASK], 1)

    # Nothing more can be cut.
    monkeypatch.setattr(fitting, "ANSWER_BYTES", 1)
    assert decode_description(fitted_description(WORKER)).left_out == 2

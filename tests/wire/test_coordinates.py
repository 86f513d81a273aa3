"""What Airflow calls a task instance, read from workloads that anyone may have sent."""

from __future__ import annotations

from typing import Any

import pytest

from nats_executor.text import MARK
from nats_executor.wire.coordinates import Coordinates, coordinates_in, id_in, name_of
from nats_executor.wire.messages import Kind, Workload

INSTANCE: dict[str, Any] = {
    "id": "i1", "dag_id": "etl", "run_id": "r 1", "task_id": "load", "map_index": 3,
    "try_number": 2,
}  # fmt: skip


def workload(body: dict[str, Any], kind: str = Kind.TASK, *key: Any) -> Workload:
    return Workload(dispatch_id="d", queue="q", kind=kind, body=body, key=[*key], sender="s")


def test_a_task_instance_is_named() -> None:
    found = coordinates_in(workload({"ti": INSTANCE, "token": "secret"}))

    assert found == Coordinates("etl", "r 1", "load", 3, 2, "i1")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"map_index": -1}, {"map_index": None}),
        ({"map_index": 0, "try_number": 0}, {"map_index": 0, "try_number": 0}),
        ({"map_index": True, "try_number": "1"}, {"map_index": None, "try_number": None}),
        ({"dag_id": 1, "task_id": None}, {"dag": None, "task": None}),
        ({"run_id": "x" * 1000}, {"run": "x" * 1000}),
        ({"run_id": "x" * 1001, "id": []}, {"run": None, "instance": None}),
    ],
)
def test_what_cannot_be_read_is_left_out(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    found = coordinates_in(workload({"ti": INSTANCE | changes}))

    assert found == Coordinates("etl", "r 1", "load", 3, 2, "i1")._replace(**expected)


@pytest.mark.parametrize(
    "other",
    [
        workload({"ti": INSTANCE}, Kind.CALLBACK),
        workload({"ti": INSTANCE}, Kind.CONNECTION_TEST),
        workload({}),
        workload({"ti": ["dag_id"]}),
    ],
)
def test_what_is_no_task_has_no_coordinates(other: Workload) -> None:
    assert coordinates_in(other) == Coordinates(None, None, None, None, None, None)


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (workload({"ti": INSTANCE}, Kind.TASK, "etl", "load", "r 1", 2, 3), "i1"),
        (workload({}, Kind.CALLBACK, "c1"), "c1"),
        (workload({}, Kind.CALLBACK, "c1", "c2"), None),
        (workload({}, Kind.CALLBACK, 1), None),
        (workload({}, Kind.CALLBACK), None),
    ],
)
def test_the_id_is_that_of_the_task_instance_or_the_keys_only_part(
    of: Workload, expected: str | None
) -> None:
    assert id_in(of) == expected


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (None, "d"),
        (workload({"ti": INSTANCE}), "d (dag etl, run r 1, task load, map index 3)"),
        (workload({"ti": {"task_id": "load", "map_index": 0}}), "d (task load, map index 0)"),
        (workload({"ti": INSTANCE | {"map_index": -1}}), "d (dag etl, run r 1, task load)"),
        (workload({"ti": INSTANCE | {"run_id": None}}), "d (dag etl, task load, map index 3)"),
        (workload({}), "d"),
        (workload({}, Kind.CALLBACK, "c1"), "d (callback c1)"),
        (workload({}, Kind.CALLBACK), "d"),
        (workload({}, Kind.CONNECTION_TEST, "t1"), "d (connection test t1)"),
        (workload({}, "Sing", "s1"), "d (workload s1)"),
        (workload({}, Kind.CALLBACK, "c" * 251), f"d (callback {'c' * 250})"),
        (workload({}, Kind.CALLBACK, "c\x1b[2J\n"), f"d (callback c{MARK}[2J{MARK})"),
    ],
)  # fmt: skip
def test_a_dispatch_has_a_name_for_log_lines(of: Workload | None, expected: str) -> None:
    assert name_of("d", of) == expected

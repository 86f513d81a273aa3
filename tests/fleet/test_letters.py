"""What is read of a dead letter, which anyone with a worker's login may have written."""

from __future__ import annotations

from typing import Any

import pytest

from nats_executor.broker.port import Stored
from nats_executor.fleet.letters import Letter, Wanted, details_row, letter_of, letter_row
from nats_executor.wire.messages import Kind, Workload, encode
from nats_executor.wire.names import Names

NAMES = Names()
INSTANCE = {
    "id": "i1", "dag_id": "etl", "run_id": "r 1", "task_id": "load", "map_index": 3,
    "try_number": 2,
}  # fmt: skip


def letter(
    queue: str = "q",
    subject: str = "",
    reason: str = "why",
    body: bytes | None = None,
    body_of: dict[str, Any] | None = None,
    **more: Any,
) -> Letter:
    values: dict[str, Any] = {
        "dispatch_id": "d1", "queue": queue, "kind": Kind.TASK, "sender": "s", "key": ["x"],
        "body": body_of or {"token": "secret", "ti": INSTANCE},
    }  # fmt: skip
    written = encode(Workload(**(values | more))) if body is None else body
    place = subject or NAMES.dead_letter(queue, "d1")
    return letter_of(Stored(place, 7, written, 100.0, {"Airflow-Reason": reason}), NAMES)


def test_a_letter_of_a_task_names_it() -> None:
    found = letter(queue="größe")

    assert letter_row(found, now=160.9) == {
        "sequence": 7, "age_seconds": 60, "queue": "größe", "dag": "etl", "run": "r 1",
        "task": "load", "map_index": 3, "try": 2, "reason": "why",
    }  # fmt: skip
    details = details_row(found, now=160.9)
    assert details["task_instance_id"] == "i1"
    assert details["dispatch_id"] == "d1"
    assert details["kind"] == "ExecuteTask"
    assert details["buried_at"] == "1970-01-01T00:01:40+00:00"
    assert details["bytes"] == found.size > 0
    assert "secret" not in repr(found) + repr(details)


def test_what_is_not_mapped_has_no_index() -> None:
    assert letter_of_instance(INSTANCE | {"map_index": -1}).map_index is None


def letter_of_instance(instance: Any) -> Letter:
    workload = Workload(
        dispatch_id="d1", queue="q", kind=Kind.TASK, sender="s", key=[], body={"ti": instance}
    )
    return letter(body=encode(workload))


@pytest.mark.parametrize(
    "instance",
    [
        None, [], "text", {},
        {"id": 1, "dag_id": 2, "run_id": [], "task_id": {}, "map_index": "1", "try_number": True},
        {"dag_id": "x" * 1001, "map_index": 1.5},
    ],
)  # fmt: skip
def test_what_is_no_task_instance_is_not_read(instance: Any) -> None:
    found = letter_of_instance(instance)

    assert found.kind == Kind.TASK
    known = (found.dag, found.run, found.task, found.map_index, found.try_number, found.instance)
    assert known == (None,) * 6


def test_a_letter_that_cannot_be_read_has_its_place_and_reason() -> None:
    found = letter(queue="a b", body=b"garbage", reason="not a\x1b[31m message" + "x" * 5000)

    assert (found.kind, found.dag, found.size) == ("", None, 7)
    assert found.queue == found.queue_token != "a b"
    assert found.dispatch_id == "d1"
    assert "\x1b" not in found.reason
    assert len(found.reason) == 4000


def test_a_letter_without_a_reason_is_listed() -> None:
    assert letter_of(Stored(NAMES.dead_letter("q", "d1"), 1, b""), NAMES).reason == ""


def test_a_letter_under_the_subject_of_another_dispatch_is_not_believed() -> None:
    found = letter(subject=NAMES.dead_letter("q", "d2"))

    assert (found.kind, found.dag, found.dispatch_id) == ("", None, "d2")


def test_a_letter_under_the_subject_of_another_queue_is_of_that_queue() -> None:
    for queue in ("q", "a"):
        found = letter(queue=queue, subject=NAMES.dead_letter("other", "d1"))

        assert (found.queue, found.queue_token) == ("other", "other")


def test_a_longer_subject_ends_with_the_queue_and_the_dispatch() -> None:
    found = letter(queue="q", subject="airflow.dead.x.q.d1")

    assert (found.queue, found.queue_token, found.dispatch_id) == ("q", "q", "d1")


def test_names_of_any_length_are_not_kept() -> None:
    long = "x" * 1001
    assert letter(queue=long).queue == letter(queue=long).queue_token != long
    found = letter(dispatch_id=long, subject=NAMES.dead_letter("q", long))
    assert (found.kind, len(found.dispatch_id) < 100) == ("", True)
    assert len(letter(kind="K" * 5000).kind) == 1000


def test_the_longest_names_are_kept() -> None:
    longest = "x" * 1000
    found = letter(
        queue=longest, dispatch_id=longest, subject=NAMES.dead_letter(longest, longest),
        body_of={"ti": {"dag_id": longest}},
    )  # fmt: skip
    assert (found.queue, found.dispatch_id, found.dag) == (longest,) * 3


@pytest.mark.parametrize("kind", [Kind.CALLBACK, Kind.CONNECTION_TEST])
def test_what_is_no_task_has_no_coordinates(kind: Kind) -> None:
    found = letter(kind=kind)

    assert (found.kind, found.dag, found.instance) == (kind, None, None)


@pytest.mark.parametrize(
    ("wanted", "is_taken"),
    [
        (Wanted(), True),
        (Wanted(queue="q"), True),
        (Wanted(queue="*"), False),
        (Wanted(queue="a"), False),
        (Wanted(queue="q2"), False),
        (Wanted(dag="etl"), True),
        (Wanted(dag="et"), False),
        (Wanted(older_than=60.0), True),
        (Wanted(older_than=60.1), False),
        (Wanted(queue="q", dag="other"), False),
    ],
)
def test_which_letters_are_wanted(wanted: Wanted, is_taken: bool) -> None:
    assert wanted.takes(letter(), now=160.0) is is_taken


def test_a_letter_that_is_younger_than_the_clock_is_listed() -> None:
    """Another server's clock may be ahead."""
    assert Wanted().takes(letter(), now=95.0)
    assert not Wanted(older_than=1.0).takes(letter(), now=95.0)
    assert letter_row(letter(), now=95.0)["age_seconds"] == 0


def test_a_queue_of_any_name_is_found() -> None:
    assert Wanted(queue="a.b c").takes(letter(queue="a.b c"), 100.0)
    assert not Wanted(queue="a.b d").takes(letter(queue="a.b c"), 100.0)

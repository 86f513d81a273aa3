"""Which messages this release can run, and what it says of the others."""

from __future__ import annotations

from typing import Any

import pytest

from nats_executor.errors import DecodeError
from nats_executor.wire.messages import Kind, encode
from nats_worker.delivery.arrival import workload_in
from tests.support.worker_stage import task


@pytest.mark.parametrize("kind", Kind)
def test_a_workload_of_a_known_kind_is_read(kind: str) -> None:
    workload = task("d1", kind=kind, key=["x" * 9996])  # its text has 10,000 characters

    assert workload_in(encode(workload), "d1") == workload


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dispatch_id": "d2"}, "the message says it is 'd2'"),
        ({"kind": "Sing"}, "unknown workload type 'Sing'"),
        ({"key": ["x" * 9997]}, "its key is too long for a report"),
    ],
)
def test_what_cannot_be_run_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DecodeError, match=complaint):
        workload_in(encode(task(**{"dispatch_id": "d1", **changes})), "d1")

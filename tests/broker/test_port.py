"""The port's records have these values where a server, or a test, says nothing."""

from __future__ import annotations

from typing import Any

import pytest

from nats_executor.broker.port import (
    ConsumerInfo,
    ServerOffer,
    Stored,
    StreamInfo,
    Subjects,
    Usage,
)

STORED = Stored("tasks.default", 1, b"a token")
CONSUMER = ConsumerInfo("gpu", "gpu", 0, 12, 0, 0, 0)
STREAM = StreamInfo("tasks", 0, 0, 0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("record", "field", "value"),
    [
        (STORED, "at", 0.0),
        (CONSUMER, "paused_until", 0.0),
        (STREAM, "first_at", 0.0),
        (STREAM, "replicas", 1),
        (STREAM, "server_version", ""),
        (STREAM, "max_bytes", -1),
        (Subjects({}), "is_whole", True),
        (Usage(0), "limit", -1),
        (Usage(0), "streams", 0),
        (Usage(0), "max_streams", -1),
        (Usage(0), "max_consumers", -1),
        (ServerOffer(), "max_payload", 0),
        (ServerOffer(), "certificate_ends", 0.0),
        (ServerOffer(), "is_lone", False),
    ],
)
def test_a_field_that_is_left_out_has_its_meaning(record: Any, field: str, value: object) -> None:
    assert getattr(record, field) == value


def test_a_stored_message_is_shown_without_its_body() -> None:
    """A workload's body holds its token."""
    assert repr(STORED) == "Stored(subject='tasks.default', sequence=1, at=0.0)"

"""What a dead letter keeps of a workload: all but its tokens."""

from __future__ import annotations

import msgpack
import pytest

from nats_executor.wire.messages import Kind, Workload, decode, encode
from nats_executor.wire.redaction import without_tokens

JWT = b"eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiIwMTk4In0.c2lnbmF0dXJl-_9"


def workload(**body: object) -> Workload:
    return Workload(
        dispatch_id="d1", queue="q", kind=Kind.TASK, body=body, key=["dag", 1], sender="s"
    )


def test_a_workload_keeps_all_but_its_token() -> None:
    """Its token goes whatever it looks like."""
    kept = without_tokens(encode(workload(token="plain", ti={"id": "t1"})))

    assert decode(Workload, kept) == workload(token="", ti={"id": "t1"})


def test_fields_of_a_newer_sender_are_kept() -> None:
    values = {"v": 9, "body": {"token": "secret", "new": [1]}, "newer": True}

    kept = without_tokens(msgpack.packb(values))

    assert msgpack.unpackb(kept) == {"v": 9, "body": {"token": "", "new": [1]}, "newer": True}


@pytest.mark.parametrize(
    "values", [{"v": 1}, {"body": {"ti": 1}}, {"body": {"token": ""}}, {"body": []}, [], {}]
)
def test_a_message_without_a_token_stays(values: object) -> None:
    body = msgpack.packb(values)

    assert without_tokens(body) == body


def test_a_token_elsewhere_in_a_workload_is_hidden() -> None:
    kept = decode(Workload, without_tokens(encode(workload(token="", arguments=[JWT.decode()]))))

    assert kept.body["arguments"] == ["x" * len(JWT)]


@pytest.mark.parametrize("around", [(b"", b""), (b"\xc1{", b"}\x00"), (b"token=", b" and more")])
def test_a_token_in_a_message_that_cannot_be_read_is_hidden(around: tuple[bytes, bytes]) -> None:
    before, after = around

    assert without_tokens(before + JWT + after) == before + b"x" * len(JWT) + after


@pytest.mark.parametrize(
    "body",
    [
        b"garbage",
        b"",
        b"eyJhbGciOiJIUzUxMiJ9 alone",
        b"a.module.of.somebody",
        b"eyJ.two",
        b"\xff" * 9,
    ],
)
def test_what_is_no_token_stays(body: bytes) -> None:
    assert without_tokens(body) == body


@pytest.mark.parametrize("unit", [b"eyJ", b"eyJ.", b"a.", b"."])
def test_a_long_message_is_searched_once(unit: bytes) -> None:
    """A search that began again at each byte would take days: the test would not end."""
    body = b"\xc1" + unit * (4_000_000 // len(unit))

    assert len(without_tokens(body)) == len(body)

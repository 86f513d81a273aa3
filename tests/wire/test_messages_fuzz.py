"""Any bytes that arrive are read or refused, and nothing else happens."""

from __future__ import annotations

import base64
from typing import Any, get_origin, get_type_hints

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nats_executor.wire.messages import Report, State, Workload, decode, encode, token_expiry
from tests.support.strange_messages import EXAMPLES, KINDS, SECRET, as_map, bodies, changed, read


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(data=st.data())
def test_what_is_read_has_the_types_that_it_promises(kind: type[Any], data: st.DataObject) -> None:
    message = read(kind, data.draw(bodies(kind)))

    if message is not None:
        assert type(message) is kind
        for name, hint in get_type_hints(kind).items():
            value = getattr(message, name)
            wanted = get_origin(hint) or hint
            assert type(value) is wanted, name


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(data=st.data())
def test_what_is_read_can_be_written_and_is_the_same_again(
    kind: type[Any], data: st.DataObject
) -> None:
    message = read(kind, data.draw(bodies(kind)))

    if message is not None:
        body = encode(message)
        assert encode(decode(kind, body)) == body


@pytest.mark.parametrize("depth", [1, 500, 1000, 1020, 1021, 1022, 1023, 1024, 5000])
@pytest.mark.parametrize("name", ["key", "body"])
def test_what_is_nested_too_deep_to_be_written_is_not_read(name: str, depth: int) -> None:
    value: Any = b"\x91" * depth + b"\x90"
    body = encode(EXAMPLES[Workload])
    inner = msgpack.packb(name) + (value if name == "key" else b"\x81" + msgpack.packb("x") + value)
    old = msgpack.packb(name) + msgpack.packb(as_map(Workload)[name])
    assert old in body

    message = read(Workload, body.replace(old, inner))

    if message is not None:
        assert encode(decode(Workload, encode(message))) == encode(message)
        report = Report(
            dispatch_id="d1", queue="q", state=State.FAILED, kind="k", key=message.key, worker="w",
            worker_name="w",
        )  # fmt: skip
        assert encode(decode(Report, encode(report))) == encode(report)


@pytest.mark.parametrize("kind", [Workload, Report])
@settings(max_examples=60)
@given(data=st.data())
def test_a_token_never_shows(kind: type[Any], data: st.DataObject) -> None:
    message = read(kind, data.draw(changed(kind)))

    if message is not None:
        assert SECRET not in f"{message!r} {message}"


@given(st.binary() | st.text().map(str.encode), st.text(max_size=3), st.booleans())
@example(b'{"exp": NaN}', "", True)
@example(b'{"exp": -Infinity}', "", True)
@example(b'{"exp": 1e999}', "", True)
@example(b'{"exp": ' + b"9" * 5000 + b"}", "", True)
def test_the_expiry_of_any_token_is_a_number_or_unknown(
    payload: bytes, rest: str, is_encoded: bool
) -> None:
    text = base64.urlsafe_b64encode(payload).decode() if is_encoded else payload.decode("latin-1")
    body = msgpack.packb(as_map(Workload, body={"token": f"a.{text}.{rest}"}))

    assert isinstance(token_expiry(decode(Workload, body).token), float | None)


@given(changed(Workload))
def test_the_expiry_is_read_from_whatever_body_was_read(body: bytes) -> None:
    if workload := read(Workload, body):
        assert isinstance(token_expiry(workload.token), float | None)

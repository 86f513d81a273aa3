"""The wire format: what is written is read again, and what anyone may send does no harm."""

from __future__ import annotations

import base64
import json
from dataclasses import MISSING, fields
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_executor.errors import DecodeError, UnknownVersion
from nats_executor.wire.messages import (
    FORMAT,
    Obeyed,
    Presence,
    Report,
    State,
    Workload,
    decode,
    encode,
    token_expiry,
)

Kind = type[Any]  # of the four; the type variable of `decode` takes no union
KINDS: list[Kind] = [Workload, Report, Presence, Obeyed]
KEY = ["dag", "task", "run", 1, -1]
EXAMPLES: dict[Kind, Workload | Report | Presence | Obeyed] = {
    Workload: Workload(
        dispatch_id="d1",
        queue="größe.*",
        kind="ExecuteTask",
        body={"token": "secret-token", "ti": {"id": "1"}},
        key=KEY,
        sender="s1",
        sent_at=1.5,
    ),
    Report: Report(
        dispatch_id="d1",
        queue="default",
        state=State.RUNNING,
        kind="ExecuteTask",
        key=KEY,
        worker="w1",
        worker_name="host",
        token="secret-token",
    ),
    Presence: Presence(
        worker="w1",
        name="host",
        host="host",
        pid=1,
        queues=["default"],
        concurrency=4,
        running=1,
        draining=False,
        started_at=1.0,
        at=2.0,
        version="0.1.0",
    ),
    Obeyed: Obeyed(queues=["default"], concurrency=4, running=1, is_changed=True),
}

TEXT = st.text()
INTEGERS = st.integers(min_value=0, max_value=2**53)
SCALARS = st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False) | TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
# What a stranger may put into a field.
ANYTHING: st.SearchStrategy[Any] = (
    SCALARS | st.binary() | st.lists(SCALARS, max_size=2) | st.just({"a": [{}]})
)
WORKLOADS = st.builds(
    Workload,
    dispatch_id=TEXT,
    queue=TEXT,
    kind=TEXT,
    body=st.dictionaries(TEXT, JSON, max_size=4),
    key=st.lists(JSON, max_size=5),
    sender=TEXT,
    sent_at=st.floats(allow_nan=False),
)
REPORTS = st.builds(
    Report,
    dispatch_id=TEXT,
    queue=TEXT,
    state=st.sampled_from(State),
    kind=TEXT,
    key=st.lists(JSON, max_size=5),
    worker=TEXT,
    worker_name=TEXT,
    generation=INTEGERS,
    info=TEXT,
    pid=INTEGERS,
    token=TEXT,
)


def example(kind: Kind, /, **changes: Any) -> dict[str, Any]:
    """Return a message as the map that travels, with some fields changed."""
    values: dict[str, Any] = msgpack.unpackb(encode(EXAMPLES[kind]))
    return {**values, **changes}


def jwt(payload: bytes) -> str:
    return f"e30.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}.sig"


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def nested_bytes(depth: int) -> bytes:
    """Return lists in lists, deeper than the packer itself would go."""
    return b"\x91" * depth + b"\x90"


def read_as(kind: Kind, body: bytes) -> Any:
    """Decode, and let every error but the promised one escape."""
    try:
        return decode(kind, body)
    except DecodeError as exc:
        return exc


@given(WORKLOADS)
def test_a_workload_survives_the_wire(workload: Workload) -> None:
    assert decode(Workload, encode(workload)) == workload


@given(REPORTS)
def test_a_report_survives_the_wire(report: Report) -> None:
    assert decode(Report, encode(report)) == report


@pytest.mark.parametrize("kind", KINDS)
def test_every_message_survives_the_wire(kind: Kind) -> None:
    assert decode(kind, encode(EXAMPLES[kind])) == EXAMPLES[kind]


@pytest.mark.parametrize("kind", KINDS)
@given(body=st.binary())
def test_arbitrary_bytes_raise_nothing_else(kind: Kind, body: bytes) -> None:
    assert isinstance(read_as(kind, body), DecodeError)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_arbitrary_values_raise_nothing_else(kind: Kind, data: st.DataObject) -> None:
    names = st.sampled_from([f.name for f in fields(kind)])
    changes = data.draw(st.dictionaries(names | st.just("v"), ANYTHING, max_size=3))

    result = read_as(kind, msgpack.packb(example(kind, **changes)))

    assert isinstance(result, kind | DecodeError)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_cut_message_is_refused(kind: Kind, data: st.DataObject) -> None:
    body = encode(EXAMPLES[kind])
    length = data.draw(st.integers(min_value=0, max_value=len(body) - 1))

    assert isinstance(read_as(kind, body[:length]), DecodeError)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "not a msgpack message"),
        (b"\xc1", "not a msgpack message: FormatError$"),
        (b"{}", "not a msgpack message"),
        (b"\xa1\xff", "not a msgpack message"),
        (b"\xdd\xff\xff\xff\xff", "not a msgpack message"),
        (b"\xdf\xff\xff\xff\xff", "not a msgpack message"),
        (b"\xd6\xff\x00", "not a msgpack message"),
        (b"\xd7\xff" + b"\xff" * 8, "not a msgpack message"),
        (nested_bytes(100_000), "not a msgpack message"),
        (b"\x81\x01\x01", "not a msgpack message"),
        (msgpack.packb([1]), "expected a map, got list"),
        (msgpack.packb({}), "format version None"),
    ],
)
def test_what_is_no_message_is_named(body: bytes, part: str) -> None:
    with pytest.raises(DecodeError, match=part):
        decode(Workload, body)


@pytest.mark.parametrize("version", [FORMAT + 1, 0, -1, None, "1", True, 1.0, [], "x" * 10_000])
@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_version_is_refused(kind: Kind, version: Any) -> None:
    with pytest.raises(UnknownVersion) as caught:
        decode(kind, msgpack.packb(example(kind, v=version)))

    assert f"this release reads {FORMAT}" in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["v", "state", "kind", "key"])
def test_a_deeply_nested_value_does_no_harm(name: str) -> None:
    result = read_as(Report, msgpack.packb(example(Report, **{name: nested(50)})))

    assert isinstance(result, Report if name == "key" else DecodeError)


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_fields_are_ignored(kind: Kind) -> None:
    """A worker reads what the next release sends."""
    body = msgpack.packb(example(kind, added_later={"anything": [1, 2]}))

    assert decode(kind, body) == EXAMPLES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_with_a_default_may_be_missing(kind: Kind) -> None:
    optional = {f.name for f in fields(kind) if f.default is not MISSING}
    body = msgpack.packb({n: v for n, v in example(kind).items() if n not in optional})

    assert isinstance(decode(kind, body), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_field_is_named(kind: Kind) -> None:
    name = fields(kind)[0].name
    values = example(kind)
    del values[name]

    with pytest.raises(DecodeError, match=f"{kind.__name__.lower()} is incomplete.*{name}"):
        decode(kind, msgpack.packb(values))


@pytest.mark.parametrize(
    ("kind", "name", "value", "part"),
    [
        (Workload, "dispatch_id", 1, "expected str, got int"),
        (Workload, "body", [], "expected dict, got list"),
        (Workload, "key", {}, "expected list, got dict"),
        (Report, "generation", True, "expected int, got bool"),
        (Report, "generation", 1.0, "expected int, got float"),
        (Workload, "sent_at", "now", "expected float, got str"),
        (Report, "state", "napping", "unknown value 'napping'"),
        (Report, "state", 7, "expected State, got int"),
        (Presence, "draining", 1, "expected bool, got int"),
        (Presence, "queues", "default", "expected list, got str"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(kind: Kind, name: str, value: Any, part: str) -> None:
    with pytest.raises(DecodeError, match=f"field '{name}': {part}"):
        decode(kind, msgpack.packb(example(kind, **{name: value})))


def test_whole_seconds_are_seconds() -> None:
    """Some writers of msgpack make an integer of whatever is whole."""
    assert decode(Workload, msgpack.packb(example(Workload, sent_at=2))) == decode(
        Workload, msgpack.packb(example(Workload, sent_at=2.0))
    )


@pytest.mark.parametrize("kind", [Workload, Report])
def test_a_token_never_shows(kind: Kind) -> None:
    message = EXAMPLES[kind]

    assert b"secret-token" in encode(message)
    assert "secret-token" not in f"{message!r} {message}"


def test_a_token_never_shows_in_an_error() -> None:
    body = msgpack.packb({"v": 1, "body": {"token": "secret-token"}})

    assert "secret-token" not in str(read_as(Workload, body))


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (jwt(b'{"exp": 12}'), 12.0),
        (jwt(b'{"exp": 12.5}'), 12.5),
        (jwt(b'{"exp": "12"}'), 12.0),
        (jwt(b'{"exp": "soon"}'), None),
        (jwt(b'{"exp": null}'), None),
        (jwt(b'{"exp": 1' + b"0" * 400 + b"}"), None),
        (jwt(b"{}"), None),
        (jwt(b"[]"), None),
        (jwt(b"\xff"), None),
        (jwt(b"[" * 100_000), None),
        ("no.\u00e9.jwt", None),
        ("nodots", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_the_expiry_of_a_token_is_read_or_unknown(token: Any, expected: float | None) -> None:
    assert token_expiry(token) == expected


@given(st.dictionaries(TEXT | st.just("token"), JSON | TEXT.map(lambda text: f"a.{text}.c")))
def test_no_body_breaks_its_readers(body: dict[str, Any]) -> None:
    workload = Workload(dispatch_id="d", queue="q", kind="k", body=body, key=[], sender="s")

    assert isinstance(token_expiry(workload.token), float | None)
    assert isinstance(workload.log_path, str | None)
    assert workload.pool_slots >= 1


@given(JSON)
def test_any_claims_are_survived(claims: Any) -> None:
    assert isinstance(token_expiry(jwt(json.dumps(claims).encode())), float | None)


@pytest.mark.parametrize(
    ("body", "token"),
    [({"token": "a.b.c"}, "a.b.c"), ({"token": None}, ""), ({"token": 7}, ""), ({}, "")],
)
def test_the_token_of_a_workload(body: dict[str, Any], token: str) -> None:
    assert decode(Workload, msgpack.packb(example(Workload, body=body))).token == token


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"log_path": "a/1.log"}, "a/1.log"),
        ({"log_path": ""}, ""),
        ({"log_path": [1]}, None),
        ({}, None),
    ],
)
def test_the_log_path_of_a_workload(body: dict[str, Any], path: str | None) -> None:
    assert decode(Workload, msgpack.packb(example(Workload, body=body))).log_path == path


@pytest.mark.parametrize(
    ("body", "slots"),
    [
        *(({"ti": {"pool_slots": slots}}, slots) for slots in (1, 2, 3)),
        *(({"ti": {"pool_slots": odd}}, 1) for odd in (0, -1, -2, True, 2.0, "8", [8], None)),
        ({"ti": {}}, 1),
        ({"ti": None}, 1),
        ({"ti": []}, 1),
        ({"ti": [3]}, 1),
        ({}, 1),
    ],
)
def test_the_pool_slots_of_a_workload(body: dict[str, Any], slots: int) -> None:
    assert decode(Workload, msgpack.packb(example(Workload, body=body))).pool_slots == slots


def test_only_the_end_of_a_dispatch_is_final() -> None:
    """A new state needs a decision here which it is."""
    final = {State.SUCCESS, State.FAILED, State.DROPPED}
    passing = {State.CLAIMED, State.RUNNING, State.RELEASED, State.EXPIRED, State.RENEWED}

    assert {state for state in State if state.is_final} == final
    assert {state for state in State if not state.is_final} == passing

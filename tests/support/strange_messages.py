"""Bodies that no sender should send: for hypothesis, and to be built by hand."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import msgpack
from hypothesis import strategies as st

from nats_executor.errors import DecodeError
from nats_executor.wire.log_pages import Page, Question
from nats_executor.wire.messages import Kind, Presence, Report, State, Workload, decode, encode

__all__ = [
    "EXAMPLES",
    "KINDS",
    "ME",
    "SECRET",
    "VALUES",
    "as_map",
    "bodies",
    "changed",
    "nested",
    "read",
]

SECRET = "very-secret-token"
# The id of the worker that gets them.
ME = "me.1"
KINDS: list[type[Any]] = [Workload, Report, Presence, Question, Page]
EXAMPLES: dict[type[Any], Any] = {
    Workload: Workload(
        dispatch_id="d1", queue="default", kind=Kind.TASK, body={"token": SECRET, "ti": {}},
        key=["a", 1], sender="s",
    ),
    Report: Report(
        dispatch_id="d1", queue="default", state=State.CLAIMED, kind=Kind.TASK, key=["a", 1],
        worker="other.1", worker_name="other", token=SECRET,
    ),
    Presence: Presence(
        worker="other.1", name="other", host="h", pid=1, queues=["default"], concurrency=1,
        running=0, draining=False, started_at=1.0, at=1.0, version="1",
    ),
    Question: Question(dispatch_id="d1", offset=1, limit=1),
    Page: Page(runs=True, path="/logs/d1.log", size=1, data=b"x", refusal="none"),
}  # fmt: skip

# What msgpack can say and Python's JSON cannot, as well.
SCALARS: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**64 - 1)
    | st.sampled_from([2**63, 2**64 - 1, -(2**62)])
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
    | st.builds(msgpack.Timestamp, st.integers(0, 2**34 - 1), st.integers(0, 10**9 - 1))
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.binary(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def as_map(kind: type[Any], /, **changes: Any) -> dict[str, Any]:
    """Return a valid message as the map that travels, with some fields changed."""
    values: dict[str, Any] = msgpack.unpackb(encode(EXAMPLES[kind]), timestamp=0)
    return values | changes


def packed(values: dict[str, Any], without: set[str]) -> bytes:
    return bytes(msgpack.packb({k: v for k, v in values.items() if k not in without}))


def changed(kind: type[Any]) -> st.SearchStrategy[bytes]:
    """Messages with some fields of any value, and some missing."""
    names = st.sampled_from(["v", *(f.name for f in fields(kind))])
    # Most have the right type, or few would get past the first check.
    right = {name: st.just(value) for name, value in as_map(kind).items()}
    likely = {"state": st.sampled_from([*map(str, State)]), "worker": st.sampled_from([ME, "o.1"])}
    values = st.fixed_dictionaries({**right, **{k: v for k, v in likely.items() if k in right}})
    sizes = {"attempt": st.integers(-1, 9), "generation": st.integers(-1, 9) | st.just(2**53)}
    usual = st.fixed_dictionaries({}, optional={k: v for k, v in sizes.items() if k in right})
    wrong: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.dictionaries(
        names, VALUES, max_size=2
    )
    gone: st.SearchStrategy[set[str]] = st.just(set()) | st.just(set()) | st.sets(names, max_size=1)
    return st.builds(
        lambda *parts: packed({**parts[0], **parts[1], **parts[2]}, without=parts[3]),
        values,
        usual,
        wrong,
        gone,
    )


def damaged(kind: type[Any]) -> st.SearchStrategy[bytes]:
    """Messages of which some bytes were changed, lost or added."""

    def damage(body: bytes, wounds: list[tuple[int, int, bytes]]) -> bytes:
        for where, lost, added in wounds:
            at = where % (len(body) + 1)
            body = body[:at] + added + body[at + lost :]
        return body

    wound = st.tuples(st.integers(0, 999), st.integers(0, 3), st.binary(max_size=3))
    return st.builds(damage, st.just(encode(EXAMPLES[kind])), st.lists(wound, max_size=3))


def bodies(kind: type[Any]) -> st.SearchStrategy[bytes]:
    anything = st.builds(lambda value: bytes(msgpack.packb(value)), VALUES)
    return changed(kind) | damaged(kind) | changed(kind) | st.binary() | anything


def read(kind: type[Any], body: bytes) -> Any:
    """Decode; None for what is refused, and every other error escapes."""
    try:
        return decode(kind, body)
    except DecodeError:
        return None

"""Encodes messages, decodes and checks them: msgpack maps with a format version.

`Workload` travels from the executor to a worker, `Report` back, `Presence` is a worker's record
in the workers bucket, `Obeyed` its answer to an order, `Hold` and `Drain` are operators' notes. A
reader ignores fields it does not know, so releases may add fields; a change that an older reader
must not guess at raises `FORMAT`.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from nats_executor.errors import DecodeError, UnknownVersion
from nats_executor.text import shown
from nats_executor.wire.bounds import packed, unpacked
from nats_executor.wire.sizes import (
    ANSWER_BYTES,
    HOLD_BYTES,
    PRESENCE_BYTES,
    REPORT_BYTES,
    WORKLOAD_BYTES,
)

__all__ = [
    "LONGEST_LIST",
    "Drain",
    "Hold",
    "Kind",
    "Obeyed",
    "Presence",
    "Report",
    "ShutDown",
    "State",
    "Workload",
    "as_map",
    "decode",
    "encode",
    "from_map",
    "token_expiry",
]

FORMAT = 1
# The largest count. Counts grow, and msgpack ends at 64 bits.
LARGEST = 2**53
# Of names, ids or the parts of a key; a ping asks about 500 dispatches.
LONGEST_LIST = 1000
# Airflow's have about a thousand characters.
LONGEST_TOKEN = 64 * 1024

# Errors that reading a token from anyone can raise; the last two come from huge numbers and deep
# nesting.
TOKEN_ERRORS = (
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    RecursionError,
)


class Kind(StrEnum):
    """The type of a workload, by Airflow's own names; `PROBE` is this project's."""

    TASK = "ExecuteTask"
    CALLBACK = "ExecuteCallback"
    CONNECTION_TEST = "TestConnection"
    PROBE = "Probe"  # of `airflow nats ping`: it has no body, and nothing in Airflow


class State(StrEnum):
    """The state of a workload in a report."""

    CLAIMED = "claimed"  # a worker has it and nothing has started yet
    RUNNING = "running"  # Airflow's API server accepted the start, or the callback began
    RELEASED = "released"  # the claim was given up before a start; the next worker may claim it
    EXPIRED = "expired"  # its token died while it waited; an executor answers with the next one
    RENEWED = "renewed"  # the executor's answer: the new token is in the report
    SUCCESS = "success"  # the workload is over; for a task Airflow has its state already
    FAILED = "failed"  # it died or could not be run; `info` says why
    DROPPED = "dropped"  # Airflow no longer wants it; nothing ran and no event is owed

    @property
    def is_final(self) -> bool:
        """Whether no further report will follow for this dispatch id."""
        return self in {State.SUCCESS, State.FAILED, State.DROPPED}

    @property
    def is_held(self) -> bool:
        """Whether a worker has the workload in its hands."""
        return self in {State.CLAIMED, State.RUNNING}


def token_expiry(token: Any) -> float | None:
    """Return the `exp` claim of a token in epoch seconds, unverified; None if unreadable.

    Only the API server can judge a token. This saves a start that is sure to be refused.
    """
    try:
        if len(token) > LONGEST_TOKEN:
            return None
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except TOKEN_ERRORS:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One dispatch of an Airflow workload.

    Attributes:
        dispatch_id: the `external_executor_id`, new for every queueing.
        queue: Airflow's queue name, not its token.
        kind: Airflow's workload type; text, because a newer release may send one unknown here.
        body: Airflow's workload as JSON-like data; it carries a token, so `repr` leaves it out.
        key: its coordinates, or the one id that there is: for people, and for readers that do not
            track this dispatch. Airflow 3.4 may give two attempts the same.
        sender: the executor that published it.
        sent_at: seconds since the epoch, the executor's clock; for people and other readers: this
            project only writes it.
    """

    dispatch_id: str
    queue: str
    kind: str
    body: dict[str, Any] = field(repr=False)
    key: list[Any]
    sender: str
    sent_at: float = 0.0

    # The body may hold values of any type.

    @property
    def token(self) -> str:
        """The token for Airflow's API server, '' if there is none."""
        token = self.body.get("token")
        return token if isinstance(token, str) else ""

    @property
    def log_path(self) -> str | None:
        """The log file, relative to the worker's log folder."""
        path = self.body.get("log_path")
        return path if isinstance(path, str) else None

    @property
    def pool_slots(self) -> int:
        """The `pool_slots` of a task, 1 for what has none that makes sense."""
        instance = self.body.get("ti")
        slots = instance.get("pool_slots") if isinstance(instance, dict) else None
        return slots if type(slots) is int and slots >= 1 else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The last report about one dispatch, from a worker or, for a renewal, from the executor.

    Attributes:
        worker: the worker's id, unique for each of its starts; `worker_name` is what people see.
        attempt: the number of claims made for this dispatch, this one included.
        predecessors: the names of workers that claimed it before, the latest ones.
        generation: number of times that its token was renewed.
        token: the token of the last renewal, until the workload starts; the subject is readable by
            the same workers as the task.
        info: for a person: why it failed, was released or dropped.
        pid: the task process, once it runs.
        at: seconds since the epoch, the worker's clock.
        hops: only of a probe: the microseconds from delivery to claim, from there to the start of
            the process, and from there to its end.
    """

    dispatch_id: str
    queue: str
    state: State
    kind: str
    key: list[Any]
    worker: str
    worker_name: str
    sender: str = ""
    attempt: int = 1
    predecessors: list[str] = field(default_factory=list)
    generation: int = 0
    info: str = ""
    pid: int = 0
    at: float = 0.0
    token: str = field(default="", repr=False)
    hops: list[Any] = field(default_factory=list)

    @property
    def loss(self) -> str:
        """Say for people who read the task's history that its worker died."""
        running = f" while it ran process {self.pid}" if self.pid else ""
        return f"worker {self.worker_name} lost{running}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """A worker's record in the workers bucket, renewed with every heartbeat.

    Attributes:
        running: the slots that its workloads hold.
        bands: number of priority bands that it pulls from in each queue: the lowest ones.
        paused: the reason why it takes nothing at the moment, '' if it does.
        drained_by: the person who has drained it, '' if none has; then `draining` is true, too,
            and alone it says that the worker stops.
        drain_reason: the words of that person.
        version: of this distribution; `airflow` and `python` are those of the worker's Airflow and
            Python, '' from an earlier release of this project.
        lacks: only in its answer to a ping: which of the dispatches that the ping asks about are
            not here. A release that does not know the question denies none of them.
    """

    worker: str
    name: str
    host: str
    pid: int
    queues: list[str]
    concurrency: int
    running: int
    draining: bool
    started_at: float
    at: float
    version: str
    bands: int = 1
    paused: str = ""
    drained_by: str = ""
    drain_reason: str = ""
    airflow: str = ""
    python: str = ""
    lacks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """An operator's note on the pause of a queue; the pause itself is its consumers'.

    Attributes:
        until: its end in epoch seconds, as its consumers have it.
    """

    queue: str
    by: str
    at: float
    until: float
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """The order to a worker to take nothing more, and the note of it for its next start.

    Attributes:
        worker: the worker's name, which outlives its restart.
        by: the person who ordered it.
        at: epoch seconds; the same in all notes of one order, one for each of its queues.
    """

    worker: str
    by: str
    at: float
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutDown:
    """The order to a worker to drain and then to end, as a signal has it do.

    Attributes:
        by: the person who ordered it.
        is_now: tasks that run are ended, as by a second signal.
    """

    by: str
    reason: str = ""
    is_now: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Obeyed:
    """A worker's answer to an order, with what it is afterwards.

    Attributes:
        is_changed: False if it was as ordered already.
        refusal: the reason why it does not obey, '' if it does.
    """

    queues: list[str]
    concurrency: int
    running: int
    is_changed: bool = False
    refusal: str = ""


Message = TypeVar("Message")


def encode(message: Workload | Report | Presence | Hold | Drain | ShutDown | Obeyed) -> bytes:
    """Encode a message with its format version; raises `ValueError` for what is too deep."""
    return packed(as_map(message))


def as_map(message: Any) -> dict[str, Any]:
    """Return a message's fields, and the version of their format."""
    return {"v": FORMAT, **{name: getattr(message, name) for name, _ in layout(type(message))}}


def decode(kind: type[Message], body: bytes, *, most_bytes: int = 0) -> Message:
    """Decode and check a message of any kind, also of other modules, that anyone may have sent.

    Args:
        most_bytes: how large it may be, if that is not what the stream of its kind takes.

    Raises:
        UnknownVersion: its format version is not `FORMAT`.
        DecodeError: it is not msgpack, not a map, over a bound, or a field is missing or of the
            wrong type.
    """
    values = unpacked(body, most_bytes or SIZES.get(kind, ANSWER_BYTES))
    if not isinstance(values, dict):
        raise DecodeError(f"expected a map, got {type(values).__name__}")
    version = values.get("v")
    if type(version) is not int or version != FORMAT:
        raise UnknownVersion(f"format version {shown(version)}; this release reads {FORMAT}")
    return from_map(kind, values)


def from_map(kind: type[Message], values: dict[str, Any]) -> Message:
    """Check the fields of a message or of a part of one; raises `DecodeError`."""
    known = {
        name: checked(name, values[name], hint) for name, hint in layout(kind) if name in values
    }
    try:
        return kind(**known)
    except TypeError as exc:
        raise DecodeError(f"{kind.__name__.lower()} is incomplete: {exc}") from exc


# Of the kinds that streams keep; all others are answers and questions.
SIZES: dict[type[Any], int] = {
    Workload: WORKLOAD_BYTES,
    Report: REPORT_BYTES,
    Presence: PRESENCE_BYTES,
    Hold: HOLD_BYTES,
    Drain: HOLD_BYTES,
}
# Resolved once for each kind: it costs more than a decode.
LAYOUTS: dict[type[Any], list[tuple[str, Any]]] = {}


def layout(kind: type[Any]) -> list[tuple[str, Any]]:
    """Return the fields of a message with their annotations."""
    if kind not in LAYOUTS:
        hints = get_type_hints(kind)
        LAYOUTS[kind] = [(f.name, hints[f.name]) for f in fields(kind)]
    return LAYOUTS[kind]


def checked(name: str, value: Any, hint: Any) -> Any:
    """Return the value as its annotation wants it, or raise `DecodeError`."""
    if type(value) is hint and hint is not int:  # most are texts: it halves a decode's cost
        return value
    if type(None) in get_args(hint):
        return None if value is None else checked(name, value, get_args(hint)[0])
    if isinstance(hint, type) and issubclass(hint, StrEnum) and isinstance(value, str):
        try:
            return hint(value)
        except ValueError as exc:
            raise DecodeError(f"field {name!r}: unknown value {shown(value)}") from exc
    wanted = get_origin(hint) or hint
    if wanted is float and type(value) is int:
        return float(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise DecodeError(f"field {name!r}: expected {wanted.__name__}, got {type(value).__name__}")
    if wanted is list:
        check_list(name, value, hint)
    if wanted is int and not 0 <= value <= LARGEST:
        raise DecodeError(f"field {name!r}: {value} is not between 0 and {LARGEST}")
    return value


def check_list(name: str, value: list[Any], hint: Any) -> None:
    if len(value) > LONGEST_LIST:
        raise DecodeError(f"field {name!r}: more than {LONGEST_LIST} entries")
    if get_args(hint) == (str,) and not all(type(v) is str for v in value):
        raise DecodeError(f"field {name!r}: not a list of texts")
    if get_args(hint) == (int,) and not all(type(v) is int and 0 <= v <= LARGEST for v in value):
        raise DecodeError(f"field {name!r}: not a list of numbers from 0 to {LARGEST}")

"""What JetStream's answers mean: pure functions over their headers, JSON and ack subjects."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from nats_executor.errors import (
    BrokerError,
    BrokerUnavailable,
    MessageTooLarge,
    NotFound,
    StreamFull,
    SubjectOccupied,
    TopologyMismatch,
    WrongSequence,
)
from nats_executor.ports import ConsumerInfo, Stored
from nats_executor.quorum import no_quorum, too_few_servers
from nats_executor.sizes import WORKLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nats_executor.link import Answer

__all__ = [
    "BAND",
    "QUEUE",
    "AckSubject",
    "api_error",
    "batches",
    "consumer_info",
    "header_bytes",
    "refusal",
    "sequence_in",
    "silent",
    "stored",
    "timestamp",
    "unheard",
    "untaken",
]

# Error codes of nats-server, as `nats errors` lists them.
BY_CODE: dict[int, type[BrokerError]] = {
    10014: NotFound,  # consumer not found
    10037: NotFound,  # no message found
    10052: TopologyMismatch,  # a setting of the stream cannot be what the request wants
    10054: MessageTooLarge,  # over the stream's max_msg_size
    10058: TopologyMismatch,  # stream name already in use with a different configuration
    10059: NotFound,  # stream not found
    10065: TopologyMismatch,  # subjects overlap with an existing stream
    10071: WrongSequence,  # wrong last sequence
    10148: TopologyMismatch,  # consumer already exists
    10012: TopologyMismatch,  # consumer create: a setting that an update cannot change
    10099: TopologyMismatch,  # multiple non-filtered consumers not allowed on workqueue stream
    10100: TopologyMismatch,  # filtered consumer not unique on workqueue stream
}


NO_LEADER = 10008  # of the cluster's JetStream: "temporarily unavailable"
TOO_FEW_SERVERS = frozenset({10005, 10074})  # for a stream's replicas
STORE_FAILED = 10077
FULL = "start more workers, raise [nats_executor] max_stream_bytes or make room on the server"
# Tokens of an ack subject in its older form.
ACK_TOKENS = 9

# A queue's name in the metadata of its consumer; the consumer's own name may be a hash of it.
QUEUE = "airflow_queue"
BAND = "airflow_band"


def api_error(what: str, error: Mapping[str, Any], *, replicas: int = 0) -> BrokerError:
    """Return the exception for an error object of JetStream's API or of a publish ack.

    Args:
        replicas: of the stream that was to be made, if one was.
    """
    code = int(error.get("err_code", 0))
    if code == NO_LEADER:
        return no_quorum()
    if code in TOO_FEW_SERVERS and replicas:
        return too_few_servers(replicas, error)
    text = f"{what}: {error.get('description', 'unknown error')} (NATS error {code})"
    # This code covers all that a store can refuse; only the text tells which limit it was.
    if code == STORE_FAILED and "per subject" in text:
        return SubjectOccupied(text)
    if code in {10023, 10047, STORE_FAILED}:  # storage resources; the account's or a store's limit
        return StreamFull(f"{text}; {FULL}")
    return BY_CODE.get(code, BrokerUnavailable)(text)


def sequence_in(subject: str, msg: Answer) -> int:
    """Read the confirmation of a stored message; raises what its error code means."""
    ack = json.loads(msg.data)
    if error := ack.get("error"):
        raise api_error(subject, error)
    return int(ack["seq"])


def refusal(subject: str, outcome: Answer | BrokerError) -> BrokerError | None:
    """Return why a message was not stored, None if it was."""
    if isinstance(outcome, BrokerError):
        return outcome
    if outcome.headers and outcome.headers.get("Status") == "503":
        return untaken(subject)
    try:
        sequence_in(subject, outcome)
    except BrokerError as exc:
        return exc
    return None


def silent(stream: str) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"stream {stream} does not answer: it has no leader, or `airflow nats setup` was not run"
    )


def unheard(verb: str, domain: str | None) -> BrokerUnavailable:
    """Return why nobody answers JetStream's API, with what to look at."""
    if domain:
        return BrokerUnavailable(
            f"JetStream domain {domain!r} does not answer {verb}: this leaf node has no link to it,"
            " or [nats_executor] jetstream_domain is not its name"
        )
    return BrokerUnavailable(
        f"NATS has no JetStream that answers {verb}: enable it in the servers' configuration, for "
        "this account too; behind a leaf node set [nats_executor] jetstream_domain"
    )


def untaken(subject: str) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"no stream takes {subject}: it has no leader, or `airflow nats setup` was not run"
    )


def header_bytes(headers: Mapping[str, str] | None) -> int:
    """Return how long headers are on the wire: a version line, `name: value` lines, an end."""
    if not headers:
        return 0
    lines = sum(len(name.encode()) + len(value.encode()) + 4 for name, value in headers.items())
    return len("NATS/1.0\r\n") + lines + len("\r\n")


def stored(answer: Answer, largest: int = WORKLOAD_BYTES) -> Stored | None:
    """Read the answer to a direct get; None when there is no (further) message.

    A body is cut one byte after its bound: little to keep, and every reader sees that it is over.
    """
    headers = answer.headers or {}
    status = headers.get("Status", "")
    # 204 ends a batch, 404 means that there is none.
    if status in {"204", "404"}:
        return None
    if status:
        raise BrokerUnavailable(f"direct get: {status} {headers.get('Description', '')}")
    return Stored(
        subject=headers["Nats-Subject"],
        sequence=int(headers["Nats-Sequence"]),
        body=answer.data[: largest + 1],
        at=timestamp(headers["Nats-Time-Stamp"]),
    )


def timestamp(text: str) -> float:
    """Return a time of nats-server's JSON or headers in epoch seconds."""
    return datetime.fromisoformat(text).timestamp()


def consumer_info(entry: Mapping[str, Any]) -> ConsumerInfo:
    """Read one entry of CONSUMER.LIST.

    The settings keep the time of a pause that is over, so they alone do not tell.
    """
    metadata = entry["config"].get("metadata") or {}
    band = str(metadata.get(BAND, ""))
    paused_until = entry["config"].get("pause_until") if entry.get("paused") else None
    return ConsumerInfo(
        name=entry["name"],
        queue=metadata.get(QUEUE, entry["name"]),
        band=int(band) if band.isdecimal() else 0,
        pending=entry["num_pending"],
        in_flight=entry["num_ack_pending"],
        redelivered=entry["num_redelivered"],
        waiting=entry["num_waiting"],
        paused_until=timestamp(paused_until) if paused_until else 0.0,
    )


@dataclass(frozen=True, slots=True)
class AckSubject:
    """What a delivery's ack subject tells about it."""

    num_delivered: int
    stream_sequence: int
    consumer_sequence: int
    at: float

    @classmethod
    def parse(cls, subject: str) -> AckSubject:
        """Read `$JS.ACK.<stream>.<consumer>.<delivered>.<stream>.<consumer>.<ns>.<pending>`.

        The numbers are sequences. The newer form holds the domain and an account hash before the
        stream's name, and a token at the end.
        """
        tokens = subject.split(".")
        first = 4 if len(tokens) == ACK_TOKENS else 6
        delivered, stream, consumer, nanoseconds = (int(t) for t in tokens[first : first + 4])
        return cls(delivered, stream, consumer, nanoseconds / 1e9)


Item = TypeVar("Item")


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Cut a sequence into pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]

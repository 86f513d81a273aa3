"""Reads JetStream's answers: their headers, JSON and ack subjects. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nats_executor.broker.port import ConsumerInfo, Stored, StreamInfo, Usage
from nats_executor.broker.quorum import no_quorum, replication, too_few_servers
from nats_executor.errors import (
    BrokerError,
    BrokerUnavailable,
    LimitReached,
    MessageTooLarge,
    NotFound,
    StreamFull,
    SubjectOccupied,
    TopologyMismatch,
    WrongSequence,
)
from nats_executor.wire.names import BAND, QUEUE
from nats_executor.wire.sizes import WORKLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats_executor.broker.link import Received

__all__ = [
    "NO_LEADER",
    "AckSubject",
    "api_error",
    "as_timestamp",
    "consumer_info",
    "header_bytes",
    "sequence_in",
    "silent",
    "stored",
    "stream_info",
    "unheard",
    "untaken",
    "usage",
    "why_unstored",
]

NO_LEADER = 10008  # of the cluster's JetStream: "temporarily unavailable"
TOO_FEW_SERVERS = frozenset({10005, 10074})  # for a stream's replicas
STORE_FAILED = 10077
# Error codes of nats-server, as `nats errors` lists them.
BY_CODE: dict[int, type[BrokerError]] = {
    10002: StreamFull,  # resource limits exceeded for account
    10012: TopologyMismatch,  # consumer create: a setting that an update cannot change
    10014: NotFound,  # consumer not found
    10023: StreamFull,  # insufficient resources of the server
    10026: LimitReached,  # maximum consumers limit reached
    10027: LimitReached,  # maximum number of streams reached
    10037: NotFound,  # no message found
    10047: StreamFull,  # insufficient storage resources
    10052: TopologyMismatch,  # a setting of the stream cannot be what the request wants
    10054: MessageTooLarge,  # over the stream's max_msg_size
    10058: TopologyMismatch,  # stream name already in use with a different configuration
    10059: NotFound,  # stream not found
    10065: TopologyMismatch,  # subjects overlap with an existing stream
    10071: WrongSequence,  # wrong last sequence
    STORE_FAILED: StreamFull,  # a limit of the stream, or its disk
    10099: TopologyMismatch,  # multiple non-filtered consumers not allowed on workqueue stream
    10100: TopologyMismatch,  # filtered consumer not unique on workqueue stream
    10148: TopologyMismatch,  # consumer already exists
}
FULL = "start more workers, raise [nats_executor] max_stream_bytes or make room on the server"
# For an error at a limit that all streams share.
SHARED = (
    "`airflow nats check` shows what fills it, `airflow nats purge` empties that; or raise {} in "
    "the servers' configuration"
)
REMEDIES = {
    10002: SHARED.format("max_file of the account"),
    10023: SHARED.format("max_file_store"),
    10026: "raise max_consumers of the account in the servers' configuration: each queue has a "
    "consumer for each of its priority bands, and nats-server 2.15 and later allow 1000 where none "
    "is set",
    10027: "raise max_streams of the account in the servers' configuration: a deployment has "
    "6, and each team has as many",
    10047: FULL,
    # All else that this project sends is cut to fit.
    10054: f"a workload may have {WORKLOAD_BYTES} bytes: make it smaller",
    STORE_FAILED: FULL,
}
# Why a stream cannot have its size set aside, and what would have to be larger for that.
NO_ROOM = {
    10047: "max_file_store of the servers or max_file of the account",
    10028: "max_memory_store of the servers or max_memory of the account",
}
NO_ROOM_ANYWHERE = 10005  # in a cluster, where that error has other causes as well
SIZE_OPTIONS = {
    "_TASKS": "max_stream_bytes",
    "_RESULTS": "max_results_bytes",
    "_DEAD_LETTERS": "max_dead_letters_bytes",
    "_logs": "max_log_bucket_bytes",
}
# Where a server writes its own release into a stream's settings.
ANSWERING = "_nats.ver"
# Tokens of an ack subject in its older form.
ACK_TOKENS = 9


def api_error(
    what: str, error: Mapping[str, Any], *, replicas: int = 0, size: int = 0
) -> BrokerError:
    """Return the exception for an error object of JetStream's API or of a publish ack.

    Args:
        replicas: of the stream that was to be made, if one was.
        size: its `max_bytes`.
    """
    code = int(error.get("err_code", 0))
    if code == NO_LEADER:
        return no_quorum()
    if size > 0 and is_for_want_of_room(error):
        return no_room(what, size, error)
    if code in TOO_FEW_SERVERS and replicas:
        return too_few_servers(replicas, error)
    text = f"{what}: {error.get('description', 'unknown error')} (NATS error {code})"
    # This code covers all that a store can refuse; only the text tells which limit it was.
    if code == STORE_FAILED and "per subject" in text:
        return SubjectOccupied(text)
    kind = BY_CODE.get(code, BrokerUnavailable)
    return kind(f"{text}; {REMEDIES[code]}" if code in REMEDIES else text)


def is_for_want_of_room(error: Mapping[str, Any]) -> bool:
    """Whether a stream was refused because its size cannot be set aside."""
    code, text = error.get("err_code"), str(error.get("description"))
    return code in NO_ROOM or (code == NO_ROOM_ANYWHERE and "insufficient storage" in text)


def no_room(what: str, size: int, error: Mapping[str, Any]) -> StreamFull:
    """Return what to do when a stream's size cannot be set aside."""
    stream = what.rpartition(".")[2]
    options = [o for suffix, o in SIZE_OPTIONS.items() if stream.endswith(suffix)]
    option = f"[nats_executor] {options[0]} = {size}: " if options else ""
    remedy = "set a smaller number, or " if options else ""
    limits = NO_ROOM.get(int(error.get("err_code", 0)), NO_ROOM[10047])
    return StreamFull(
        f"{option}NATS has no room to set {size} bytes aside for stream {stream} "
        f"({error.get('description')}, NATS error {error.get('err_code')}); {remedy}raise "
        f"{limits}, which counts every replica"
    )


def sequence_in(subject: str, msg: Received) -> int:
    """Read the confirmation of a stored message; raises what its error code means."""
    ack = json.loads(msg.data)
    if error := ack.get("error"):
        raise api_error(subject, error)
    return int(ack["seq"])


def why_unstored(subject: str, outcome: Received | BrokerError) -> BrokerError | None:
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
    """Return why JetStream's API does not answer, with what to check."""
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


def stored(answer: Received, largest: int = WORKLOAD_BYTES) -> Stored | None:
    """Read the answer to a direct get; None when there is no (further) message.

    A body is cut one byte after its bound: every reader sees that it is too large.
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
        headers=headers,
    )


def timestamp(text: str) -> float:
    """Return a time of nats-server's JSON or headers in epoch seconds."""
    return datetime.fromisoformat(text).timestamp()


def as_timestamp(at: float) -> str:
    """Return epoch seconds as nats-server's JSON has times."""
    return datetime.fromtimestamp(at, UTC).isoformat()


def stream_info(stream: str, response: Mapping[str, Any]) -> StreamInfo:
    """Read the answer to STREAM.INFO."""
    state, config = response["state"], response["config"]
    return StreamInfo(
        stream,
        state["messages"],
        state["bytes"],
        state["last_seq"],
        time=timestamp(response["ts"]),
        created=timestamp(response["created"]),
        first_at=timestamp(state["first_ts"]),
        last_at=timestamp(state["last_ts"]),
        first_sequence=state["first_seq"],
        replicas=config["num_replicas"],
        replication=replication(response),
        max_bytes=config.get("max_bytes", -1),
        server_version=(config.get("metadata") or {}).get(ANSWERING, ""),
    )


def usage(response: Mapping[str, Any]) -> Usage:
    """Read the answer to INFO; an account whose limits go by replicas has several of them.

    Messages in memory count as well: either kind may have a limit.
    """
    tiers = list((response.get("tiers") or {}).values()) or [response]
    fullest = max(
        (
            Usage(tier.get(kind, 0), limit_in(tier, f"max_{kind}"))
            for tier in tiers
            for kind in ("storage", "memory")
        ),
        key=lambda u: share_of(u.used, u.limit),
    )
    streams, most = max(
        ((tier.get("streams", 0), limit_in(tier, "max_streams")) for tier in tiers),
        key=lambda counted: share_of(*counted),
    )
    consumers = [limit for t in tiers if (limit := limit_in(t, "max_consumers")) > 0]
    return fullest._replace(
        streams=streams,
        max_streams=most,
        max_consumers=min(consumers, default=-1),
        has_tiers=bool(response.get("tiers")),
    )


def limit_in(tier: Mapping[str, Any], name: str) -> int:
    return int((tier.get("limits") or {}).get(name, -1))


def share_of(used: int, limit: int) -> float:
    return used / limit if limit > 0 else 0.0


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
        delivered=entry["delivered"]["consumer_seq"],
    )


@dataclass(frozen=True, slots=True)
class AckSubject:
    """The facts about a delivery that are in its ack subject."""

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

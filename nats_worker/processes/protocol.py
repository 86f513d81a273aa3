"""Encodes what the worker's main process and its fork server send to each other.

Requests go to the fork server as length-prefixed msgpack over a stream socket, because a body may
exceed what one datagram can hold. Events come back as one msgpack map for each packet of a
SEQPACKET socket, because the fork server and all its supervisors write to the same end: the
kernel keeps packets whole and in order. Nothing of this reaches a command line, the environment
or a disk: a body carries a token.

Requests (`op`): `run` with `id`, `body` (msgpack of Airflow's workload), `team`,
`delivery_seconds`, `reach_seconds`, `shown_as`, `workloads_per_supervisor`, `dag_zygotes` and
`start_by`; `retire_zygotes`, after which no process keeps a parsed Dag file for tasks to come;
`self_test` with `id` and `team`, whose report has a finding a line; `probe` with `id`, whose
process does nothing; `cleanup_bundles`; `serve_logs`. The end of the stream means: kill everything
and exit. The fork server passes a `run` on to a supervisor that is free, over a channel of the
two; one byte from there says that it is free, the channel's end that it may exit.

Events (`event`): `ready` once Airflow is imported; `forked` with `id` and the `pid` of the
supervisor that was forked for it or has been free; `asked` with `id`, before the API server is
asked to accept the start; `started` with `id` and the task process's `pid`; `finished` with `id`
and `report`; `exited` with `id` and `status`, the supervisor's `waitpid` status, 0 while it lives
on; `zygotes` with the number that is `ready`, that was `built`, of `starts` from one, and the
reasons against those that were `refused`.
"""

from __future__ import annotations

import struct
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgpack

from nats_worker.processes.exit_report import Ending, ExitReport

if TYPE_CHECKING:
    from socket import socket

__all__ = [
    "FREE",
    "MAX_EVENT_BYTES",
    "Event",
    "Op",
    "pack",
    "pack_report",
    "pack_request",
    "receive_request",
    "unpack",
    "unpack_report",
]


class Op(StrEnum):
    """A request: what the main process asks of its fork server."""

    RUN = "run"
    SELF_TEST = "self_test"
    PROBE = "probe"
    CLEANUP_BUNDLES = "cleanup_bundles"
    SERVE_LOGS = "serve_logs"
    RETIRE_ZYGOTES = "retire_zygotes"


class Event(StrEnum):
    """The words by which the fork server and its supervisors tell of events."""

    READY = "ready"
    FORKED = "forked"
    ASKED = "asked"
    STARTED = "started"
    FINISHED = "finished"
    EXITED = "exited"
    ZYGOTES = "zygotes"


# A report's text is cut far below this; a packet over the socket's buffer could not be sent.
MAX_EVENT_BYTES = 65_536
MAX_INFO_CHARACTERS = 4_000
# A supervisor says this to its fork server when it can take another workload.
FREE = b"\0"
LENGTH = struct.Struct("!I")


def pack(message: dict[str, Any]) -> bytes:
    """Encode an event, or the body of a workload."""
    body: bytes = msgpack.packb(message)
    return body


def unpack(body: bytes) -> dict[str, Any]:
    """Decode what `pack` made; both ends are of one release, so nothing is checked."""
    message: dict[str, Any] = msgpack.unpackb(body, strict_map_key=False)
    return message


def pack_request(message: dict[str, Any]) -> bytes:
    """Encode a request with its length in front."""
    body = pack(message)
    return LENGTH.pack(len(body)) + body


def receive_request(requests: socket) -> dict[str, Any] | None:
    """Return the next request of a blocking socket, or None at the end of the stream."""
    header = receive_exactly(requests, LENGTH.size)
    body = header and receive_exactly(requests, LENGTH.unpack(header)[0])
    return unpack(body) if body else None


def receive_exactly(source: socket, size: int) -> bytes:
    """Return `size` bytes, or nothing if the stream ends before."""
    received = bytearray()
    while len(received) < size:
        part = source.recv(size - len(received))
        if not part:
            return b""
        received += part
    return bytes(received)


def pack_report(dispatch_id: str, report: ExitReport) -> bytes:
    """Encode the `finished` event, with the report's text cut to what a packet can hold."""
    fields = asdict(report) | {"info": report.info[:MAX_INFO_CHARACTERS]}
    return pack({"event": Event.FINISHED, "id": dispatch_id, "report": fields})


def unpack_report(fields: dict[str, Any]) -> ExitReport:
    """Decode the `report` of a `finished` event."""
    return ExitReport(**fields | {"ending": Ending(fields["ending"])})

"""Defines what a worker answers to the question what it runs at this moment. Pure.

An answer holds no token and no body, so that everyone who looks after workers may ask. `fitting.py`
cuts it to the size of an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from nats_executor.errors import DecodeError
from nats_executor.wire.bounds import packed
from nats_executor.wire.messages import as_map, decode, from_map

__all__ = ["Carried", "Description", "Phase", "decode_description", "encode_description"]


class Phase(StrEnum):
    """The phases of a delivery that a worker has in hand. Most come in this order."""

    WAITING = "waiting"  # for as many slots as it needs; not claimed yet
    LOOKING = "looking"  # its history tells whether it may run here
    CLAIMED = "claimed"  # its claim is stored, and nothing has started
    STARTING = "starting"  # its process is being made, or waits for Airflow to accept the start
    RUNNING = "running"
    RENEWING = "renewing"  # its token has expired: it goes back until an executor renews it
    ENDING = "ending"  # its process is gone; its last report and its ack are on their way


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """One delivery that a worker has in hand. A part that cannot be read is None.

    Attributes:
        kind: Airflow's workload type, '' if the workload cannot be read.
        map_index: None for a task that is not mapped.
        id: of the task instance, which Airflow changes with each try, or of the callback.
        phase: one of `Phase`; text, because a newer release may send one that is unknown here.
        since: when that phase began, in epoch seconds by the worker's clock.
        attempt: the number of this worker's claim; it counts from the claim on.
        pid: the task process, 0 until it runs.
    """

    dispatch_id: str
    queue: str
    kind: str
    phase: str
    since: float
    dag: str | None = None
    run: str | None = None
    task: str | None = None
    map_index: int | None = None
    try_number: int | None = None
    id: str | None = None
    attempt: int = 1
    pid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A worker's answer.

    Attributes:
        at: its clock, in epoch seconds, as all times here are.
        connected_at: when its connection to NATS was made, the last time.
        version: of this distribution.
        memory_bytes: memory of the worker and its tasks, with shared pages counted once; 0 if
            the kernel does not tell.
        memory_used_bytes: used part of the limit, by others as well; both are 0 if not known.
        memory_limit_bytes: the limit that is closest, of a cgroup or the machine.
        memory_of: `cgroup` or `machine`, whichever has that limit.
        carried: deliveries in hand; the first one is in its phase for longest.
        left_out: number of further ones that the answer had no room for.
    """

    worker: str
    name: str
    at: float
    started_at: float
    connected_at: float
    version: str
    airflow: str
    python: str
    memory_bytes: int = 0
    memory_used_bytes: int = 0
    memory_limit_bytes: int = 0
    memory_of: str = ""
    carried: list[Carried] = field(default_factory=list)
    left_out: int = 0


def encode_description(description: Description) -> bytes:
    """Encode an answer."""
    carried = [as_map(one) for one in description.carried]
    return packed(as_map(description) | {"carried": carried})


def decode_description(body: bytes) -> Description:
    """Decode and check an answer, which anyone may have sent.

    Raises:
        UnknownVersion: its format version is another one.
        DecodeError: it, or something that it lists, is not as it should be.
    """
    description = decode(Description, body)
    carried = [carried_in(value) for value in description.carried]
    return replace(description, carried=carried)


def carried_in(value: Any) -> Carried:
    if not isinstance(value, dict):
        raise DecodeError(f"field 'carried': expected maps, got {type(value).__name__}")
    return from_map(Carried, value)

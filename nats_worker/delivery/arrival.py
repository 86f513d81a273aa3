"""Reads the workload of a delivery, as far as this release can run it. Pure."""

from __future__ import annotations

from nats_executor.errors import DecodeError
from nats_executor.text import shown
from nats_executor.wire.messages import Kind, Workload, decode

__all__ = ["workload_in"]

# Airflow's own are below 1500; a report that held any more might be too large to publish.
LONGEST_KEY = 10_000


def workload_in(body: bytes, dispatch_id: str) -> Workload:
    """Decode a message.

    Args:
        dispatch_id: that of its subject.

    Raises:
        DecodeError: this release cannot run it.
    """
    workload = decode(Workload, body)
    if workload.dispatch_id != dispatch_id:
        raise DecodeError(f"the message says it is {shown(workload.dispatch_id)}")
    if workload.kind not in set(Kind):
        raise DecodeError(f"unknown workload type {shown(workload.kind)}")
    if len(str(workload.key)) > LONGEST_KEY:
        raise DecodeError("its key is too long for a report")
    return workload

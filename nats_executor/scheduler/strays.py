"""Reads out of a message in a queue which attempt of a task it is for. No I/O, no clock."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from nats_executor.errors import DecodeError
from nats_executor.scheduler.ledger import Dispatch
from nats_executor.wire.messages import Kind, Workload, decode

if TYPE_CHECKING:
    from nats_executor.broker.port import Stored
    from nats_executor.settings import Settings

__all__ = ["stray_of"]


def stray_of(message: Stored, settings: Settings, *, before: float) -> Dispatch | None:
    """Return the dispatch of a task's message that may be a stray, None for any other message.

    A callback or a connection test has no row among the task instances, and what cannot be read
    is the worker's to bury. A message in a band that is no longer used is left to its worker, too.

    Args:
        before: the message must have been stored before this time, by the server's clock.
    """
    if message.at >= before:
        return None
    try:
        sent = decode(Workload, message.body)
        subject = str(uuid.UUID(sent.body["ti"]["id"]))
    except (DecodeError, KeyError, TypeError, ValueError, AttributeError):
        return None
    if sent.kind != Kind.TASK:
        return None
    for lane in settings.lanes(sent.queue):
        if settings.names.task(lane.queue, sent.dispatch_id, lane.band) == message.subject:
            key = sent.dispatch_id  # of no ledger
            return Dispatch(key, key, lane.queue, Kind.TASK, subject, lane.band)
    return None

"""Reads the notes of who drained which worker, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nats_executor.errors import DecodeError
from nats_executor.text import presentable
from nats_executor.wire.messages import Drain, decode
from nats_executor.wire.names import token
from nats_executor.wire.sizes import HOLD_BYTES

if TYPE_CHECKING:
    from nats_executor.broker.port import Broker, Stored
    from nats_executor.wire.names import Names

__all__ = ["LONGEST_PERSON", "LONGEST_REMARK", "Note", "in_drained_words", "note_in", "seen_notes"]

LONGEST_PERSON = 250
LONGEST_REMARK = 500
# A key says that somebody has drained its worker, whatever is written there.
UNREADABLE = Drain(worker="", by="unknown", at=0.0, reason="NATS has a note that cannot be read")


class Note(NamedTuple):
    """A note that a worker is drained, and the key under which it stands."""

    subject: str
    drain: Drain

    @property
    def worker(self) -> str:
        """The token of the worker's name."""
        return self.subject.rpartition(".")[2]


async def seen_notes(broker: Broker, names: Names) -> list[Note]:
    """Return the notes of all drains, of workers that are gone, too."""
    if await broker.stream_info(names.holds_stream) is None:
        return []
    found = await broker.scan(names.holds_stream, names.worker_holds(), largest=HOLD_BYTES)
    return [note for message in found if (note := note_in(message))]


def note_in(message: Stored) -> Note | None:
    """Read a note; None for one that was deleted, by NATS's own tools.

    One that cannot be read drains its worker, too: only operators may write there, a later release
    may have written it, and a worker that takes nothing is seen and is easy to undrain.
    """
    if not message.body:
        return None
    try:
        drain = decode(Drain, message.body)
    except DecodeError:
        drain = UNREADABLE
    note = Note(message.subject, drain)
    return note if token(drain.worker) == note.worker else note._replace(drain=UNREADABLE)


def in_drained_words(by: str, reason: str) -> str:
    """Say who drained a worker, and why."""
    why = f" ({presentable(reason)})" if reason else ""
    return f"drained by {presentable(by)}{why}"

"""Looks up many messages of a stream at once, batch by batch and within bounds (direct gets).

A stream may hold any number of messages of any size. So the server bounds each batch, a body that
is too large is cut as it comes, and `scan` stops after so many messages.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, NamedTuple

from nats_executor.batches import batches
from nats_executor.broker.link import MESSAGES_PER_TURN
from nats_executor.broker.replies import silent, stored
from nats_executor.errors import BrokerError, BrokerUnavailable
from nats_executor.retrying import Once
from nats_executor.wire.sizes import MOST_RECORD_BYTES, MOST_RECORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.broker.link import Link, Received
    from nats_executor.broker.port import Config, Stored

__all__ = ["BATCH", "GET_WINDOW", "Gets"]

log = logging.getLogger(__name__)

# Requests under way at once in a bulk operation.
GET_WINDOW = 512
# Bytes of one batched direct get; a server ends it with the message that exceeds them. Far below
# `max_pending`, at which the server closes the connection as too slow.
BATCH_BYTES = 4_000_000
# Messages of one batched direct get; the server allows up to 1024.
BATCH = 1000


class Batch(NamedTuple):
    """The answer to one batched get.

    Attributes:
        left: how many messages there are beyond it.
        size: of the bodies as they came, before they were cut.
    """

    messages: list[Stored]
    left: int
    size: int


class Gets:
    """The direct gets of one connection."""

    def __init__(self, link: Link, api: str, timeout: float) -> None:
        self._link = link
        self._api = api
        self._timeout = timeout
        self._cut = Once()  # subjects under which there was too much

    async def last_of_each(
        self, stream: str, subjects: Sequence[str], largest: int
    ) -> list[Stored]:
        """As `port.Broker.last_of_each`."""
        found: list[Stored] = []
        for window in batches(subjects, GET_WINDOW):
            asked = list(window)
            while asked:
                page = await self.page(stream, {"multi_last": asked}, largest)
                found += page.messages
                here = {message.subject for message in page.messages}
                # 2.11 counts one too few of what is left.
                is_cut = page.left or page.size > BATCH_BYTES / 2
                asked = [subject for subject in asked if subject not in here] if is_cut else []
        return found

    async def scan(self, stream: str, subject: str, largest: int) -> list[Stored]:
        """As `port.Broker.scan`."""
        found: list[Stored] = []
        size, start = 0, 1
        while True:
            request = {"next_by_subj": subject, "seq": start, "batch": BATCH}
            page = await self.page(stream, request, largest)
            for message in page.messages:
                size += len(message.body)
                if len(found) >= MOST_RECORDS or size > MOST_RECORD_BYTES:
                    self._note_cut(stream, subject, len(found))
                    return found
                found.append(message)
            if not page.left:
                return found
            start = page.messages[-1].sequence + 1

    def _note_cut(self, stream: str, subject: str, count: int) -> None:
        """Log once for each subject that there is more than a look takes in."""
        if self._cut.is_new(subject):
            text = "stream %s has more under %s than one look takes; next: the first %d count"
            log.warning(f"{text}; remedy: see who writes there", stream, subject, count)  # noqa: G004

    async def page(self, stream: str, request: Config, largest: int) -> Batch:
        """Return what one batched direct get (nats-server 2.11) answers."""
        answers: asyncio.Queue[Received | BrokerError] = asyncio.Queue()
        page = Batch([], 0, 0)
        subject = f"{self._api}.DIRECT.GET.{stream}"
        body = json.dumps({"max_bytes": BATCH_BYTES} | request).encode()
        with self._link.awaiting(subject, answers.put_nowait) as reply:
            await self._link.send(subject, body, reply=reply)
            while True:
                try:
                    if answers.empty():
                        async with asyncio.timeout(self._timeout):
                            answer = await answers.get()
                    else:  # most have come with the one before: a timer each would be for nothing
                        answer = answers.get_nowait()
                except TimeoutError:
                    raise BrokerUnavailable(
                        f"stream {stream} does not answer a batched get"
                    ) from None
                if isinstance(answer, BrokerError):
                    raise answer
                if (answer.headers or {}).get("Status") == "503":
                    raise silent(stream)
                message = stored(answer, largest)
                if message is None:
                    left = int((answer.headers or {}).get("Nats-Num-Pending", "0"))
                    return page._replace(left=left)
                page.messages.append(message)
                page = page._replace(size=page.size + len(answer.data))
                if not len(page.messages) % MESSAGES_PER_TURN:
                    await asyncio.sleep(0)

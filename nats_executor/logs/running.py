"""Reads the logs of running workloads from their workers, for the API server.

A report names the worker of a dispatch, too. But it may hold a task's token, so the API server may
not read reports. It asks the workers that have presence records.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from nats_executor.batches import batches
from nats_executor.errors import (
    AccessDenied,
    BrokerError,
    BrokerUnavailable,
    DecodeError,
    NatsExecutorError,
)
from nats_executor.fleet.liveness import records_under
from nats_executor.logs.connection import Complaints, PerProcess, ProcessConnection
from nats_executor.logs.remarks import LINE_BYTES, decoded, remark, stream_of
from nats_executor.text import presentable
from nats_executor.wire.log_pages import PAGE_BYTES, Page, Question, encode_log_message
from nats_executor.wire.log_parts import beginning
from nats_executor.wire.messages import decode
from nats_executor.wire.names import Verb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence

    from nats_executor.settings import Settings
    from nats_executor.wire.messages import Presence

__all__ = ["TaskLogs"]

log = logging.getLogger(__name__)

# A page of the UI waits for it, and asks again after some seconds.
BUDGET_SECONDS = 3.0
PAGE_ANSWER_SECONDS = 1.0
# Of one log: each look at a page reads it again.
SHOWN_BYTES = 4 * 1024 * 1024
# The beginning moves in such steps, so that lines do not change their numbers with every look.
STEP_BYTES = SHOWN_BYTES // 2
# For a server whose `max_payload` is below a page.
SMALL_PAGE_BYTES = 16 * 1024
PAGES_AT_ONCE = 4
# To ask many thousands of workers in one step would hold the loop.
WORKERS_AT_ONCE = 500
# How many dispatches are remembered with their workers.
KNOWN_RUNNERS = 1000

# What is wrong, and what happens next.
NOT_THERE = "no task log over NATS", "the log server"
BROKEN_OFF = "a task log over NATS broke off", "showing what came before"

# Of one question to a worker, and in memory at a time; each has the whole budget.
PIECE_BYTES = PAGES_AT_ONCE * PAGE_BYTES

LogAnswer = tuple[list[str], list[str]]
"""Where it is from, and the text. Without the first, Airflow asks the host's log server as well."""
LogStreams = tuple[list[str], list["Iterator[str]"]]
"""The same, but the text line by line."""


CoroutineResult = TypeVar("CoroutineResult")


class Runner(NamedTuple):
    """A worker that runs a dispatch, and what it says of its log."""

    worker: Presence
    page: Page


class Look(NamedTuple):
    """A log at this moment, before its text is read.

    Attributes:
        remark: what is wrong with it, or is not shown, '' if nothing is.
        worker: who has the text, None if there is none to show.
        start: the first byte that is shown; `end` is the one after the last.
    """

    source: str
    remark: str = ""
    worker: Presence | None = None
    start: int = 0
    end: int = 0


class TaskLogs:
    """Reads logs from any thread of any process; the connection is opened at the first question."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._settings = settings
        self._readers = PerProcess(self._open)
        self._complaints = Complaints()

    def _open(self) -> Reader:
        return Reader(self._settings())

    def read(self, dispatch_id: str | None, queue: str) -> LogAnswer:
        """Return what is there of a log as whole texts, or why it is not. Never raises."""
        sources, parts = self.stream(dispatch_id, queue)
        return sources, ["".join(f"{line}\n" for line in part) for part in parts]

    def stream(self, dispatch_id: str | None, queue: str) -> LogStreams:
        """Return what is there of a log, which is read while it is shown, or why it is not.

        Never raises, nor do the streams; each ends where the log did when it was asked for.
        """
        if not dispatch_id:
            return [], []
        is_away = False
        try:
            reader = self._readers.here()
            try:
                look = reader.ask(lambda: reader.look(dispatch_id, queue))
            finally:
                is_away = reader.is_away
        except Exception as exc:  # noqa: BLE001 - the rest of the page shows without it
            text = self._complaint(exc, *NOT_THERE, is_away=is_away)
            # Deployments whose API server cannot use NATS have log servers.
            return [], [stream_of(f"NATS could not be asked for this log: {text}")]
        self._complaints.end_outage()
        parts = [stream_of(look.remark)] if look.remark else []
        if look.worker is not None:
            parts.append(self._text(reader, dispatch_id, look.worker, look))
        return [look.source], parts

    def _text(
        self, reader: Reader, dispatch_id: str, worker: Presence, look: Look
    ) -> Iterator[str]:
        """Yield the lines, with little of them in memory, and what keeps the rest from it."""
        try:
            pieces = (
                reader.ask(partial(reader.piece, worker, dispatch_id, start, look.end))
                for start in range(look.start, look.end, PIECE_BYTES)
            )
            for line in whole_lines(pieces, is_beginning=not look.start):
                yield decoded(line)
        except Exception as exc:  # noqa: BLE001 - what was shown before remains
            text = self._complaint(exc, *BROKEN_OFF, is_away=reader.is_away)
            name = presentable(worker.name)
            yield remark(f"worker {name} cannot show the rest of this log now: {text}")

    def _complaint(self, exc: Exception, what: str, next_step: str, *, is_away: bool) -> str:
        """Log once why NATS was no help, and return it for the page."""
        text = str(exc) or type(exc).__name__
        if self._complaints.is_news(text, is_away=is_away):
            trace = None if isinstance(exc, NatsExecutorError) else exc
            log.warning("%s: %s; next: %s", what, text, next_step, exc_info=trace)
        return text

    def close(self) -> None:
        self._readers.close()


class Reader(ProcessConnection):
    """Asks workers, and remembers which of them runs what."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, budget_seconds=BUDGET_SECONDS)
        self._page_bytes = PAGE_BYTES
        self._workers: OrderedDict[str, Presence] = OrderedDict()

    async def look(self, dispatch_id: str, queue: str) -> Look:
        silent: list[str] = []
        since = self.require_broker().connected_since
        found = await self._find(dispatch_id, queue, silent)
        if found is None:
            if self.require_broker().connected_since != since:
                raise BrokerUnavailable("the connection to NATS was lost")
            text = missing(silent)
            return Look(text, text)
        worker, page = found
        name, path = presentable(worker.name), presentable(page.path)
        source = f"{path} on worker {name}, read over NATS"
        if page.refusal:
            refusal = presentable(page.refusal)
            return Look(source, f"worker {name} does not show this log: {refusal}")
        start = beginning(page.size, most=SHOWN_BYTES, step=STEP_BYTES)
        left_out = (
            f"the first {start} bytes are left out here; all of it is in {path} on worker {name}"
        )
        return Look(source, left_out if start else "", worker, start, page.size)

    # Which worker

    async def _find(self, dispatch_id: str, queue: str, silent: list[str]) -> Runner | None:
        """Ask the worker of last time; then those of the queue.

        Workers of other queues are not asked, because what they say of this queue proves nothing.
        """
        if known := self._workers.get(dispatch_id):
            found = await self._first_that_runs([known], dispatch_id, [])
            if found is not None:
                return found
        broker, names = self.require_broker(), self.settings.names
        # Workers of the release before have records without a queue.
        for subject in (names.presences(queue), names.older_presences()):
            records = await records_under(broker, names, subject)
            for group in batches([record.presence for record in records], WORKERS_AT_ONCE):
                if found := await self._first_that_runs(group, dispatch_id, silent):
                    self._remember(dispatch_id, found.worker)
                    return found
        return None

    def _remember(self, dispatch_id: str, worker: Presence) -> None:
        # Only what is needed to ask it again: a record may be large.
        self._workers[dispatch_id] = replace(worker, queues=[], lacks=[], paused="")
        if len(self._workers) > KNOWN_RUNNERS:
            self._workers.popitem(last=False)

    async def _first_that_runs(
        self, workers: Sequence[Presence], dispatch_id: str, silent: list[str]
    ) -> Runner | None:
        """Ask all at once; return the first that runs it, and add the names of the silent ones."""

        async def ask(worker: Presence) -> Runner | None:
            try:
                return Runner(worker, await self._ask(worker, Question(dispatch_id=dispatch_id)))
            except AccessDenied:
                raise
            except BrokerError:
                silent.append(presentable(worker.name))
                return None

        async with all_of(ask(worker) for worker in workers) as asking:
            for answer in asyncio.as_completed(asking):
                found = await answer
                if found is not None and found.page.runs:
                    return found
        return None

    async def _ask(self, worker: Presence, question: Question) -> Page:
        subject = self.settings.names.control(worker.worker, Verb.LOG)
        body = await self.require_broker().request(
            subject, encode_log_message(question), timeout=PAGE_ANSWER_SECONDS
        )
        try:
            return decode(Page, body)
        except DecodeError as exc:
            raise BrokerError(f"an answer that cannot be read: {exc}") from exc

    # Its text

    async def piece(self, worker: Presence, dispatch_id: str, start: int, end: int) -> bytes:
        """Return the bytes from `start` on, `PIECE_BYTES` of them at most."""
        end = min(end, start + PIECE_BYTES)
        try:
            return await self._bytes(worker, dispatch_id, start, end, self._page_bytes)
        except BrokerUnavailable:
            if self._page_bytes == SMALL_PAGE_BYTES:
                raise
        # An answer that the server does not take is no answer.
        data = await self._bytes(worker, dispatch_id, start, end, SMALL_PAGE_BYTES)
        self._page_bytes = SMALL_PAGE_BYTES
        return data

    async def _bytes(
        self, worker: Presence, dispatch_id: str, start: int, end: int, page_bytes: int
    ) -> bytes:
        """Read a piece of a log page by page, a few of them at once."""
        limit = asyncio.Semaphore(PAGES_AT_ONCE)

        async def page(offset: int) -> bytes:
            length = min(page_bytes, end - offset)
            question = Question(dispatch_id=dispatch_id, offset=offset, limit=length)
            async with limit:
                answer = await self._ask(worker, question)
            if answer.refusal:
                raise BrokerError(presentable(answer.refusal))
            return answer.data[:length]

        async with all_of(map(page, range(start, end, page_bytes))) as pages:
            return b"".join(await asyncio.gather(*pages))


@contextlib.asynccontextmanager
async def all_of(
    coroutines: Iterable[Coroutine[Any, Any, CoroutineResult]],
) -> AsyncIterator[list[asyncio.Task[CoroutineResult]]]:
    """Run them all at once, and cancel those that are not done at the end.

    Not a `TaskGroup`: that would wait for the rest once one worker says that it runs the dispatch,
    and put each error into a group.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def whole_lines(pieces: Iterable[bytes], *, is_beginning: bool) -> Iterator[bytes]:
    """Yield the whole lines of a log, and no part of a line at either end.

    The next look has the last line whole. A log that is one line so far is shown as it is.
    """
    half = b""
    is_whole, is_first = is_beginning, True
    for piece in pieces:
        for line in io.BytesIO(half + piece):
            half = b""
            if not line.endswith(b"\n") and len(line) < LINE_BYTES:
                half = line
                continue
            if is_whole:
                yield line.removesuffix(b"\n")
                is_first = False
            is_whole = True
    if half and is_beginning and is_first:
        yield half


def missing(silent: Sequence[str]) -> str:
    names = ", ".join(sorted(silent)[:10]) + (" and others" if len(silent) > 10 else "")  # noqa: PLR2004
    of_them = f"; no answer from {names}" if silent else ""
    return f"no worker says that it runs this task{of_them}: it has ended, or its worker is gone"

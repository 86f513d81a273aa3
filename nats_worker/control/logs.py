"""Answers questions for the logs of the workloads that run here, from files below one folder.

Anyone may ask for anything. So the path comes from the workload, `logs/files.py` follows it without
a single symbolic link, and only a regular file is read, a piece at a time.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from nats_executor.errors import DecodeError
from nats_executor.logs.files import LogFile, Refused, describe
from nats_executor.wire.log_pages import PAGE_BYTES, Page, Question, encode_log_message
from nats_executor.wire.messages import decode
from nats_executor.wire.names import Verb

if TYPE_CHECKING:
    from collections.abc import Collection

    from nats_executor.broker.port import Broker
    from nats_worker.delivery.errand import Errand
    from nats_worker.delivery.record import DispatchRecord
    from nats_worker.state import WorkerState

__all__ = ["serve_log"]

# Threads that read, at most. One that hangs with its disk cannot be ended.
READERS = 2
# An answer takes no longer than that.
READ_SECONDS = 2.0


async def serve_log(broker: Broker, state: WorkerState, errands: Collection[Errand]) -> None:
    """Answer for as long as the connection lives.

    Args:
        errands: what this worker carries, which changes all the time.
    """
    subject = state.settings.names.control(state.id, Verb.LOG)
    await broker.serve(subject, LogReader(state.plan.log_folder, errands).answer)


class LogReader:
    """Knows where the logs of the worker's workloads are, and has a few threads to read them."""

    def __init__(self, folder: str, errands: Collection[Errand]) -> None:
        self._folder = folder
        self._errands = errands
        self._readers = asyncio.Semaphore(READERS)

    async def answer(self, body: bytes) -> bytes:
        """Return the encoded `Page` for an encoded `Question`; never raises."""
        try:
            page = await self.look_up(decode(Question, body))
        except DecodeError as exc:
            page = Page(refusal=str(exc))
        return encode_log_message(page)

    async def look_up(self, question: Question) -> Page:
        record = self._find(question.dispatch_id)
        if record is None or record.workload is None:
            return Page(refusal="it does not run here")
        relative = record.workload.log_path
        if relative is None:
            return Page(runs=True, refusal="it has no log file")
        path = os.path.join(self._folder, relative)  # noqa: PTH118 - text from anyone, for people
        try:
            return await self._read(relative, path, question)
        except Refused as exc:
            return Page(runs=True, path=path, refusal=str(exc))

    def _find(self, dispatch_id: str) -> DispatchRecord | None:
        records = (errand.record for errand in self._errands)
        # There may be another record of it, of a redelivery that has no process.
        of_it = (r for r in records if r.run is not None and r.dispatch_id == dispatch_id)
        return next(of_it, None)

    async def _read(self, relative: str, path: str, question: Question) -> Page:
        """Read in a thread, so that a slow disk does not stop the worker."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._readers.acquire()
                reading = asyncio.create_task(
                    asyncio.to_thread(
                        read_page, self._folder, relative, question.offset, question.limit
                    )
                )
                reading.add_done_callback(self._have_read)
                size, data = await asyncio.shield(reading)
        except TimeoutError:
            raise Refused("its disk does not answer") from None
        return Page(runs=True, path=path, size=size, data=data)

    def _have_read(self, reading: asyncio.Task[tuple[int, bytes]]) -> None:
        self._readers.release()
        if not reading.cancelled():
            reading.exception()  # its error has been answered, or its question is out of time


def read_page(folder: str, relative: str, offset: int, limit: int) -> tuple[int, bytes]:
    """Return a file's size and up to `limit` bytes of it, no more than `PAGE_BYTES`.

    Raises:
        Refused: there is no such file below the folder, or it cannot be read.
    """
    try:
        with LogFile(folder, relative) as file:
            data = os.pread(file.fd, min(limit, PAGE_BYTES), offset)
            return os.fstat(file.fd).st_size, data
    except FileNotFoundError:
        raise Refused("there is no log file yet") from None
    except OSError as exc:
        raise Refused(describe(exc)) from exc

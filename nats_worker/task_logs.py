"""Answers questions for the logs of the workloads that run here, from files below one folder.

Anybody may ask anything, and a workload may put anything in the place of its log file. So the path
comes from the workload, is followed without a single symbolic link, and only a regular file is
read, a piece at a time.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from nats_executor.errors import DecodeError
from nats_executor.log_pages import PAGE_BYTES, VERB, Page, Question, encode
from nats_executor.messages import decode, shown

if TYPE_CHECKING:
    from collections.abc import Collection

    from nats_executor.names import Names
    from nats_executor.ports import Broker
    from nats_worker.record import Record

__all__ = ["Desk", "Refused", "read_page", "serve_log"]

# Threads that read, at most. One that hangs with its disk cannot be ended.
READERS = 2
# Nobody waits longer than that for an answer.
READ_SECONDS = 2.0
# What opening a symbolic link means, at the end of a path and in the midst of it.
LINKS = frozenset({errno.ELOOP, errno.ENOTDIR})


class Refused(Exception):
    """A log that cannot be shown; says why, for whoever asked."""


async def serve_log(
    broker: Broker, names: Names, worker: str, folder: str, records: Collection[Record]
) -> None:
    """Answer for as long as the connection lives.

    Args:
        records: what this worker carries, which changes all the time.
    """
    await broker.serve(names.control(worker, VERB), Desk(folder, records).answer)


class Desk:
    """Knows where the logs of the worker's workloads are, and has a few threads to read them."""

    def __init__(self, folder: str, records: Collection[Record]) -> None:
        self._folder = folder
        self._records = records
        self._readers = asyncio.Semaphore(READERS)

    async def answer(self, body: bytes) -> bytes:
        """Return the encoded `Page` for an encoded `Question`; never raises."""
        try:
            page = await self.look_up(decode(Question, body))
        except DecodeError as exc:
            page = Page(refusal=str(exc))
        return encode(page)

    async def look_up(self, question: Question) -> Page:
        record = self._find(question.dispatch_id)
        if record is None or record.workload is None:
            return Page(refusal="it does not run here")
        relative = record.workload.body.get("log_path")
        if not isinstance(relative, str):
            return Page(runs=True, refusal="it has no log file")
        path = os.path.join(self._folder, relative)  # noqa: PTH118 - text from anyone, for people
        try:
            return await self._read(relative, path, question)
        except Refused as exc:
            return Page(runs=True, path=path, refusal=str(exc))

    def _find(self, dispatch_id: str) -> Record | None:
        # There may be another record of it, of a redelivery that has no process.
        of_it = (r for r in self._records if r.run is not None and r.dispatch_id == dispatch_id)
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
            reading.exception()  # somebody has waited for it, or nobody does any more


def read_page(folder: str, relative: str, offset: int, limit: int) -> tuple[int, bytes]:
    """Return a file's size and up to `limit` bytes of it, no more than `PAGE_BYTES`.

    Raises:
        Refused: there is no such file below the folder, or it cannot be read.
    """
    try:
        file = open_below(folder, relative)
    except FileNotFoundError:
        raise Refused("there is no log file yet") from None
    except OSError as exc:
        is_link = exc.errno in LINKS
        raise Refused("a symbolic link is in its path" if is_link else describe(exc)) from exc
    except ValueError as exc:
        raise Refused(f"{shown(relative)} is no path") from exc
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise Refused("it is no regular file")
        return about.st_size, os.pread(file, min(limit, PAGE_BYTES), offset)
    except OSError as exc:
        raise Refused(describe(exc)) from exc
    finally:
        os.close(file)


def open_below(folder: str, relative: str) -> int:
    """Open a file step by step, so that nobody can put a link into a path that was checked."""
    *parents, name = parts_of(relative)
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for parent in parents:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            below = os.open(parent, flags, dir_fd=here)
            os.close(here)
            here = below
        # A pipe without a writer would make it wait.
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
    finally:
        os.close(here)


def parts_of(relative: str) -> tuple[str, ...]:
    path = PurePosixPath(relative)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise Refused(f"{shown(relative)} is not below the log folder")
    return path.parts


def describe(exc: OSError) -> str:
    return f"it cannot be read: {exc.strerror or exc}"

"""Keeps the logs of ended tasks in NATS, as Airflow's remote logs under `nats://`.

A worker's supervisor stores a log, or has it stored, when the task has ended. The API server reads
it. Airflow finds the class `StoredLogs` by the scheme, in the provider's metadata.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib
import io
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf

from nats_executor.batches import batches
from nats_executor.errors import BrokerError, BrokerUnavailable, ConfigError, NatsExecutorError
from nats_executor.logs import store
from nats_executor.logs.connection import Complaints, PerProcess, ProcessConnection
from nats_executor.logs.files import LogFile
from nats_executor.logs.remarks import LINE_BYTES, decoded, remark, stream_of
from nats_executor.logs.store import UPLOAD_SECONDS
from nats_executor.options import LOG_SCHEME
from nats_executor.settings import Settings
from nats_executor.text import presentable
from nats_executor.wire.log_parts import Part, log_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nats_executor.logs.store import StoredParts

__all__ = ["StoredLogs", "leave_to", "of_team", "require_bare"]

log = logging.getLogger(__name__)

# How long a megabyte of a log may take while many pages are open.
WINDOW_SECONDS = 10.0
# Of one page of the UI. A part is one file, and only a sensor that comes back to another worker
# each time has more of them.
MOST_PARTS = 200
# Of all parts of a page, in memory at a time.
MOST_CHUNKS = 64

Shown = tuple[list[str], list["Iterator[str]"]]
"""Where it is from, and each part line by line."""
StoreLog = Callable[[str, str, int], None]
"""Stores the file of an open descriptor as a log of a queue; raises what keeps it from that."""


@dataclass(slots=True)
class UploadRules:
    """How this process stores logs; one for all, as Airflow makes `StoredLogs` without arguments.

    Attributes:
        store: stores a log where this process has no login for NATS; None if it stores logs itself.
        team: whose workloads it runs; logs of a team are not stored.
    """

    store: StoreLog | None = None
    team: str | None = None


UPLOADS = UploadRules()


def leave_to(store: StoreLog | None) -> None:
    """Have another process store logs, or with None this one."""
    UPLOADS.store = store


def of_team(team: str | None) -> None:
    """Say whose workloads this process runs."""
    UPLOADS.team = team


def require_bare(folder: str) -> None:
    """Raise `ConfigError` unless a remote log folder in NATS is given as it has to be."""
    if folder.rstrip("/") != f"{LOG_SCHEME}:":
        address = "'***'" if "@" in folder else repr(folder)
        raise ConfigError(
            f"[logging] remote_base_log_folder = {address}: write {LOG_SCHEME}:// and nothing more;"
            " the servers, the login and the bucket's name come from [nats_executor]"
        )


class StoredLogs:
    """Stores logs and reads them: a `RemoteLogStreamIO`, as Airflow calls it.

    Args:
        folder: where Airflow writes task logs.
        deletes: whether a file goes once it is stored.
    """

    processors: tuple[Any, ...] = ()

    def __init__(self, folder: Path, *, deletes: bool) -> None:
        self._folder = folder
        self._deletes = deletes
        self._connections = PerProcess(
            lambda: ProcessConnection(self._settings, budget_seconds=WINDOW_SECONDS)
        )
        self._complaints = Complaints()

    @classmethod
    def from_config(cls) -> StoredLogs:
        """Read `[logging]`; logs an error, because Airflow logs one of this at level INFO only."""
        try:
            require_bare(conf.get_mandatory_value("logging", "remote_base_log_folder"))
        except ConfigError as exc:
            log.error("no task logs in NATS: %s", exc)  # noqa: TRY400 - the text says it all
            raise
        folder = Path(conf.get_mandatory_value("logging", "base_log_folder")).expanduser()
        return cls(folder, deletes=conf.getboolean("logging", "delete_local_logs", fallback=False))

    @functools.cached_property
    def _settings(self) -> Settings:
        """Read once: Airflow takes milliseconds for it."""
        return Settings.load(conf)

    # A worker's side

    def prepare(self) -> None:
        """Do before the forks what is the same for every upload; opens no connection."""
        if UPLOADS.store is None:
            importlib.import_module("nats_executor.broker.connection")
            _ = self._settings

    def upload(self, path: os.PathLike[str] | str, ti: Any = None) -> None:
        """Store a log file whose task or callback has ended; never raises.

        Args:
            ti: None for a callback.
        """
        if UPLOADS.team:
            return
        file = self._folder / path
        try:
            with LogFile(self._folder, self._relative(file)) as opened:
                self._store(log_queue(ti), log_of(self._relative(file)), opened.fd)
                self._complaints.end_outage()
                if self._deletes:
                    opened.delete()
        except FileNotFoundError:
            return  # it wrote nothing
        except Exception as exc:  # noqa: BLE001 - the task has ended, and its log is where it was
            self._tell_that_it_stays(file, exc)

    def _tell_that_it_stays(self, file: Path, exc: Exception) -> None:
        """Log each file for people who look for it, and the reason once in an outage."""
        is_ours = isinstance(exc, NatsExecutorError)
        if self._complaints.is_news(str(exc), is_away=isinstance(exc, BrokerUnavailable)):
            trace = None if is_ours else exc
            log.warning("%s is not in NATS and stays here: %s", file, exc, exc_info=trace)
        else:
            log.info("%s is not in NATS and stays here, too", file)

    def _relative(self, file: Path) -> str:
        if ".." in file.parts or not file.is_relative_to(self._folder):
            raise NatsExecutorError(f"it is not below [logging] base_log_folder {self._folder}")
        return file.relative_to(self._folder).as_posix()

    def _store(self, queue: str, path: str, file: int) -> None:
        if UPLOADS.store is not None:
            UPLOADS.store(queue, path, file)
        else:
            # It leaves no thread behind, because a supervisor forks its next task.
            asyncio.run(self._connect_and_store(queue, path, file))

    async def _connect_and_store(self, queue: str, path: str, file: int) -> None:
        # Imported here: every Airflow process loads this module, and most store nothing.
        from nats_executor.broker.connection import connect

        with os.fdopen(file, "rb", closefd=False) as opened:
            async with connect(self._settings, role="task log") as broker:
                await store.keep(
                    broker, self._settings.names, queue, path, opened, seconds=UPLOAD_SECONDS
                )

    # The API server's side

    def read(self, relative_path: str, ti: Any) -> tuple[list[str], list[str]]:
        """Return a log as whole texts; Airflow prefers `stream`."""
        sources, parts = self.stream(relative_path, ti)
        return sources, ["\n".join(part) for part in parts]

    def stream(self, relative_path: str, ti: Any) -> Shown:
        """Return what is stored of a log, or why that cannot be read. Never raises."""
        queue, path = log_queue(ti), log_of(relative_path)
        try:
            connection = self._connections.here()
            names = connection.settings.names
            found = connection.ask(
                lambda: store.find(connection.require_broker(), names, queue, path)
            )
        except Exception as exc:  # noqa: BLE001 - the rest of the page shows without it
            return [], [stream_of(self._complaint(exc))]
        self._complaints.end_outage()
        return self._shown(connection, queue, path, found)

    def _shown(
        self, connection: ProcessConnection, queue: str, path: str, found: StoredParts
    ) -> Shown:
        place = f"{presentable(path)} in NATS bucket {connection.settings.names.logs_bucket}"
        shown = found.parts[-MOST_PARTS:]
        sources = [f"{place}: part {part.id}, {part.size} bytes" for part in shown]
        # Airflow reads all of them side by side.
        at_once = max(1, min(store.CHUNKS_AT_ONCE, MOST_CHUNKS // max(1, len(shown))))
        parts = [self._text(connection, queue, path, part, at_once) for part in shown]
        if len(shown) < len(found.parts):
            parts.append(stream_of(f"only the last {MOST_PARTS} parts of {place} are shown"))
        if found.unreadable:
            parts.append(stream_of(f"{found.unreadable} parts of {place} cannot be read"))
        return sources, parts

    def _text(
        self, connection: ProcessConnection, queue: str, path: str, part: Part, at_once: int
    ) -> Iterator[str]:
        """Yield the lines of a part, with little of it in memory, and what is wrong with it.

        Args:
            at_once: chunks.
        """
        if part.start:
            yield remark(f"the first {part.start} bytes of this log were not stored")
        digest = hashlib.sha256()
        missing = 0
        half = b""  # of a line that goes on in the next chunk
        for numbers in batches(part.numbers, at_once):
            try:
                bodies = self._chunks(connection, queue, path, part, numbers)
            except Exception as exc:  # noqa: BLE001 - what was shown before remains
                yield from unless_empty(half)
                yield remark(self._complaint(exc))
                return
            for number, body in zip(numbers, bodies, strict=True):
                if body is None:
                    missing += part.length(number)
                    continue
                digest.update(body)
                lines = io.BytesIO(half + body)
                half = b""
                for entry in lines:
                    if entry.endswith(b"\n") or len(entry) > LINE_BYTES:
                        yield from unless_empty(entry.removesuffix(b"\n"))
                    else:
                        half = entry
        yield from unless_empty(half)
        if missing:
            yield remark(
                f"{missing} bytes of this log are gone: the bucket was full, or they were too old"
            )
        elif digest.digest() != part.digest:
            yield remark("this log is not what its worker has stored: its digest is another one")

    def _chunks(
        self,
        connection: ProcessConnection,
        queue: str,
        path: str,
        part: Part,
        numbers: Sequence[int],
    ) -> list[bytes | None]:
        names = connection.settings.names
        return connection.ask(
            lambda: store.chunks(connection.require_broker(), names, queue, path, part, numbers)
        )

    def _complaint(self, exc: Exception) -> str:
        """Log once why NATS was no help, and return it for the page."""
        text = str(exc) or type(exc).__name__
        connection = self._connections.here()
        if self._complaints.is_news(text, is_away=connection.is_away):
            trace = None if isinstance(exc, BrokerError) else exc
            log.warning("no stored task log: %s", text, exc_info=trace)
        return f"NATS could not be asked for this log: {text}"


def log_queue(ti: Any) -> str:
    """Return the queue that a log belongs to.

    A callback has no task instance (Airflow 3.4 asks with None, in `path_log_reader.py`) and no
    queue, in 3.3 and 3.4: it runs in the default one, so that one's workers store its log.
    """
    return (ti and ti.queue) or conf.get_mandatory_value("operators", "default_queue")


def unless_empty(line: bytes) -> Iterator[str]:
    if line:
        yield decoded(line)

"""Keeps the logs of ended tasks in NATS: what Airflow calls a remote log, `nats://`.

A worker's supervisor has a log stored when its task has ended, the API server reads it. Airflow
finds this class by the scheme, in the provider's metadata.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib
import io
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf

from nats_executor.batches import batches
from nats_executor.errors import BrokerError, BrokerUnavailable, ConfigError, NatsExecutorError
from nats_executor.logs import store
from nats_executor.logs.connection import Complaints, Line, Lines
from nats_executor.logs.files import LogFile
from nats_executor.logs.store import UPLOAD_SECONDS
from nats_executor.options import LOG_SCHEME
from nats_executor.settings import Settings
from nats_executor.text import presentable
from nats_executor.wire.log_parts import Part, log_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nats_executor.logs.store import Found

__all__ = ["StoredLogs", "leave_to", "of_team", "require_bare"]

log = logging.getLogger(__name__)

# What a megabyte of a log may take, while many look at theirs.
WINDOW_SECONDS = 10.0
# Of one page of the UI; a part is one file, so more of them are those of a sensor that comes back
# to ever new workers.
MOST_PARTS = 200
# Of all parts of a page, in memory at a time.
MOST_CHUNKS = 64
# The longest that one line is taken for; what has no end is cut there.
LINE_BYTES = 1024 * 1024

Shown = tuple[list[str], list["Iterator[str]"]]
"""Where it is from, and each part line by line."""
Upload = Callable[[str, str, int], None]
"""Stores the file of an open descriptor as a log of a queue; raises what keeps it from that."""

SERVED: set[str] = set()
UPLOADERS: list[Upload] = []


def leave_to(upload: Upload) -> None:
    """Have another process store logs: this one has no login for NATS."""
    UPLOADERS[:] = [upload]


def of_team(team: str | None) -> None:
    """Say whose workloads this process runs."""
    SERVED.clear()
    if team:
        SERVED.add(team)


def require_bare(folder: str) -> None:
    """Raise `ConfigError` unless a remote log folder in NATS is given as it has to be."""
    if folder.rstrip("/") != f"{LOG_SCHEME}:":
        address = "'***'" if "@" in folder else repr(folder)
        raise ConfigError(
            f"[logging] remote_base_log_folder = {address}: write {LOG_SCHEME}:// and nothing more;"
            " the servers, the login and the bucket's name come from [nats_executor]"
        )


class StoredLogs:
    """What Airflow calls a `RemoteLogStreamIO`.

    Args:
        folder: where Airflow writes task logs.
        deletes: whether a file goes once it is stored.
    """

    processors: tuple[Any, ...] = ()

    def __init__(self, folder: Path, *, deletes: bool) -> None:
        self._folder = folder
        self._deletes = deletes
        self._lines = Lines(lambda: Line(self._settings, budget_seconds=WINDOW_SECONDS))
        self._complaints = Complaints()

    @classmethod
    def from_config(cls) -> StoredLogs:
        """Be what `[logging]` says; Airflow notes an error here at level INFO, hence our own."""
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

    # The side of whoever writes logs

    def prepare(self) -> None:
        """Do what is the same for every upload, before the forks; opens nothing."""
        if not UPLOADERS:
            importlib.import_module("nats_executor.broker.connection")
            _ = self._settings

    def upload(self, path: os.PathLike[str] | str, ti: Any = None) -> None:
        """Store a log file whose task or callback has ended; never raises.

        Args:
            ti: None for a callback.
        """
        if SERVED:
            return
        file = self._folder / path
        try:
            with LogFile(self._folder, self._relative(file)) as opened:
                self._store(queue_of(ti), log_of(self._relative(file)), opened.fd)
                self._complaints.end_outage()
                if self._deletes:
                    opened.delete()
        except FileNotFoundError:
            return  # it wrote nothing
        except Exception as exc:  # noqa: BLE001 - the task has ended, and its log is where it was
            self._tell_that_it_stays(file, exc)

    def _tell_that_it_stays(self, file: Path, exc: Exception) -> None:
        """Log each file, for the person who looks for it, and the reason once in an outage."""
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
        if UPLOADERS:
            UPLOADERS[0](queue, path, file)
        else:
            # It returns with no thread left: a supervisor forks its next task.
            asyncio.run(self._connect_and_store(queue, path, file))

    async def _connect_and_store(self, queue: str, path: str, file: int) -> None:
        # Here, as every Airflow process loads this module, and most store nothing.
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
        queue, path = queue_of(ti), log_of(relative_path)
        try:
            line = self._lines.mine()
            names = line.settings.names
            found = line.ask(lambda: store.find(line.require_broker(), names, queue, path))
        except Exception as exc:  # noqa: BLE001 - the rest of the page shows without it
            return [], [iter_of(self._complaint(exc))]
        self._complaints.end_outage()
        return self._shown(line, queue, path, found)

    def _shown(self, line: Line, queue: str, path: str, found: Found) -> Shown:
        place = f"{presentable(path)} in NATS bucket {line.settings.names.logs_bucket}"
        shown = found.parts[-MOST_PARTS:]
        sources = [f"{place}: part {part.id}, {part.size} bytes" for part in shown]
        # Airflow reads all of them side by side.
        at_once = max(1, min(store.WINDOW, MOST_CHUNKS // max(1, len(shown))))
        parts = [self._text(line, queue, path, part, at_once) for part in shown]
        if len(shown) < len(found.parts):
            parts.append(iter_of(f"only the last {MOST_PARTS} parts of {place} are shown"))
        if found.unreadable:
            parts.append(iter_of(f"{found.unreadable} parts of {place} cannot be read"))
        return sources, parts

    def _text(self, line: Line, queue: str, path: str, part: Part, at_once: int) -> Iterator[str]:
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
                bodies = self._chunks(line, queue, path, part, numbers)
            except Exception as exc:  # noqa: BLE001 - what was shown before remains
                yield from text_of(half)
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
                        yield from text_of(entry.removesuffix(b"\n"))
                    else:
                        half = entry
        yield from text_of(half)
        if missing:
            yield remark(
                f"{missing} bytes of this log are gone: the bucket was full, or they were too old"
            )
        elif digest.digest() != part.digest:
            yield remark("this log is not what its worker has stored: its digest is another one")

    def _chunks(
        self, line: Line, queue: str, path: str, part: Part, numbers: Sequence[int]
    ) -> list[bytes | None]:
        names = line.settings.names
        return line.ask(
            lambda: store.chunks(line.require_broker(), names, queue, path, part, numbers)
        )

    def _complaint(self, exc: Exception) -> str:
        """Say in the log of the API server, once, and return for people why NATS was no help."""
        text = str(exc) or type(exc).__name__
        line = self._lines.mine()
        if self._complaints.is_news(text, is_away=line.is_away):
            trace = None if isinstance(exc, BrokerError) else exc
            log.warning("no stored task log: %s", text, exc_info=trace)
        return f"NATS could not be asked for this log: {text}"


def queue_of(ti: Any) -> str:
    """Return the queue that a log belongs to.

    A callback has no task instance (Airflow 3.4 asks with None, in `path_log_reader.py`) and no
    queue, in 3.3 and 3.4: it runs in the default one, so that one's workers store its log.
    """
    return (ti and ti.queue) or conf.get_mandatory_value("operators", "default_queue")


def text_of(line: bytes) -> Iterator[str]:
    if line:
        yield line.decode(errors="replace")


def iter_of(text: str) -> Iterator[str]:
    """Yield one line of ours; Airflow takes a generator only."""
    yield remark(text)


def remark(text: str) -> str:
    """Return a line of ours as Airflow writes a task's log."""
    return json.dumps({"event": text, "level": "warning", "logger": __name__})

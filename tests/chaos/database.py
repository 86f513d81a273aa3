"""Stands in for Airflow's metadata database: one SQLite file that every process opens.

`workloads` holds what Airflow's `task_instance` and `callback` tables do, as far as an executor
and the execution API need it; `history` every change of a row, and `executions` what really ran:
the two from which the end of a run is judged. Times are `time.monotonic()`, which all processes of
a machine share.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["FINAL", "Behaviour", "Database", "Entry", "Execution", "Job", "Row"]

BUSY_SECONDS = 30.0
FINAL = frozenset({"success", "failed"})

SCHEMA = """
CREATE TABLE IF NOT EXISTS workloads (
  number INTEGER PRIMARY KEY, ti_id TEXT UNIQUE NOT NULL, behaviour TEXT NOT NULL,
  queue TEXT NOT NULL, length REAL NOT NULL, state TEXT NOT NULL, try_number INTEGER NOT NULL,
  max_tries INTEGER NOT NULL, dispatch TEXT, queued_by INTEGER, pid INTEGER NOT NULL DEFAULT 0,
  last_heartbeat REAL NOT NULL DEFAULT 0, revoke INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS by_state ON workloads (state, number);
CREATE TABLE IF NOT EXISTS history (
  seq INTEGER PRIMARY KEY, number INTEGER NOT NULL, try_number INTEGER NOT NULL,
  what TEXT NOT NULL, dispatch TEXT, teller TEXT NOT NULL, at REAL NOT NULL, info TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS by_time ON history (what, at);
CREATE TABLE IF NOT EXISTS executions (
  seq INTEGER PRIMARY KEY, number INTEGER NOT NULL, try_number INTEGER NOT NULL,
  dispatch TEXT NOT NULL, worker INTEGER NOT NULL, supervisor INTEGER NOT NULL,
  pid INTEGER NOT NULL, started_at REAL NOT NULL, ended_at REAL, outcome TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS by_dispatch ON executions (dispatch);
CREATE INDEX IF NOT EXISTS by_number ON executions (number);
CREATE TABLE IF NOT EXISTS jobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, pid INTEGER NOT NULL,
  heartbeat REAL NOT NULL, has_ended INTEGER NOT NULL DEFAULT 0, running INTEGER NOT NULL DEFAULT 0,
  ledger INTEGER NOT NULL DEFAULT 0);
"""


class Behaviour:
    """What a workload does; also the id of its Dag, so that a worker knows before it asks."""

    PLAIN = "plain"  # sleeps and succeeds
    FAILING = "failing"  # sleeps and fails; it has no retries
    POISON = "poison"  # kills the worker's main process before it starts; it has no retries
    OLD_TOKEN = "old-token"  # its token has expired when it is sent
    CALLBACK = "callback"  # not a task: nothing but the claim keeps it from running twice


@dataclass(frozen=True, slots=True)
class Row:
    """One workload, as the database has it now."""

    number: int
    ti_id: str
    behaviour: str
    queue: str
    length: float
    state: str
    try_number: int
    max_tries: int
    dispatch: str | None
    queued_by: int | None
    pid: int = 0
    last_heartbeat: float = 0.0
    revoke: int = 0

    @property
    def is_over(self) -> bool:
        return self.state in FINAL

    @property
    def is_callback(self) -> bool:
        return self.behaviour == Behaviour.CALLBACK


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of a workload's row."""

    seq: int
    number: int
    try_number: int
    what: str
    dispatch: str | None
    teller: str
    at: float
    info: str


@dataclass(frozen=True, slots=True)
class Execution:
    """One task process; `outcome` is running, done or killed."""

    seq: int
    number: int
    try_number: int
    dispatch: str
    worker: int
    supervisor: int
    pid: int
    started_at: float
    ended_at: float | None
    outcome: str


@dataclass(frozen=True, slots=True)
class Job:
    """One life of a scheduler, and what its executor held at its last heartbeat."""

    id: int
    name: str
    pid: int
    heartbeat: float
    has_ended: int
    running: int
    ledger: int


class Database:
    """One connection; a thread needs its own."""

    def __init__(self, path: Path, *, teller: str) -> None:
        self.teller = teller
        self.connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        # A crash of the machine is no fault that a run survives.
        self.connection.execute("PRAGMA synchronous=OFF")

    def create(self) -> None:
        self.connection.executescript(SCHEMA)

    def close(self) -> None:
        self.connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the one write lock for the length of the context."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def do(self, statement: str, *values: Any) -> list[Any]:
        return self.connection.execute(statement, values).fetchall()

    # Reading

    def rows(self, where: str = "1", *values: Any) -> list[Row]:
        """Return the workloads that meet a condition of this module's own making."""
        return [Row(*r) for r in self.do(f"SELECT * FROM workloads WHERE {where}", *values)]

    def row(self, number: int) -> Row:
        [row] = self.rows("number = ?", number)
        return row

    def executions(self, where: str = "1", *values: Any) -> list[Execution]:
        found = self.do(f"SELECT * FROM executions WHERE {where} ORDER BY seq", *values)
        return [Execution(*r) for r in found]

    def history(self) -> list[Entry]:
        return [Entry(*r) for r in self.do("SELECT * FROM history ORDER BY seq")]

    def jobs(self) -> list[Job]:
        return [Job(*r) for r in self.do("SELECT * FROM jobs ORDER BY id")]

    def counts(self) -> dict[str, int]:
        return dict(self.do("SELECT state, COUNT(*) FROM workloads GROUP BY state"))

    # Changing a row; each within the caller's transaction

    def note(self, row: Row, what: str, info: str = "") -> None:
        self.do(
            "INSERT INTO history (number, try_number, what, dispatch, teller, at, info)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            row.number, row.try_number, what, row.dispatch, self.teller, time.monotonic(), info,
        )  # fmt: skip

    def submit(self, behaviour: str, queue: str, length: float, max_tries: int) -> int:
        [(number,)] = self.do(
            "INSERT INTO workloads (ti_id, behaviour, queue, length, state, try_number, max_tries)"
            " VALUES (?, ?, ?, ?, 'scheduled', 1, ?) RETURNING number",
            str(uuid.uuid4()), behaviour, queue, length, max_tries,
        )  # fmt: skip
        self.note(self.row(number), "submitted")
        return int(number)

    def set_state(self, row: Row, state: str, info: str = "") -> None:
        self.do("UPDATE workloads SET state = ? WHERE number = ?", state, row.number)
        self.note(row, state, info)

    def next_try(self, row: Row, what: str, info: str, *, is_free: bool) -> None:
        """Have a row scheduled again under a new id, as Airflow does for each further try.

        Args:
            is_free: it costs none of its retries.
        """
        self.note(row, what, info)
        self.do(
            "UPDATE workloads SET state = 'scheduled', ti_id = ?, try_number = try_number + 1,"
            " max_tries = max_tries + ?, dispatch = NULL, queued_by = NULL, pid = 0, revoke = 0"
            " WHERE number = ?",
            str(uuid.uuid4()), int(is_free), row.number,
        )  # fmt: skip

    def retry_or_fail(self, row: Row, info: str) -> None:
        if row.try_number <= row.max_tries:
            self.next_try(row, "retry", info, is_free=False)
        else:
            self.set_state(row, "failed", info)

    # Schedulers

    def register(self, name: str, pid: int) -> int:
        with self.transaction():
            [(job,)] = self.do(
                "INSERT INTO jobs (name, pid, heartbeat) VALUES (?, ?, ?) RETURNING id",
                name, pid, time.monotonic(),
            )  # fmt: skip
        return int(job)

    def beat(self, job: int, running: int, ledger: int) -> None:
        self.do(
            "UPDATE jobs SET heartbeat = ?, running = ?, ledger = ? WHERE id = ?",
            time.monotonic(), running, ledger, job,
        )  # fmt: skip

    def leave(self, job: int) -> None:
        self.do("UPDATE jobs SET has_ended = 1, running = 0, ledger = 0 WHERE id = ?", job)

    def queue_up(self, job: int, limit: int) -> list[Row]:
        """Assign scheduled workloads to a scheduler, each with a new dispatch id."""
        queued = []
        with self.transaction():
            for row in self.rows("state = 'scheduled' ORDER BY number LIMIT ?", limit):
                # Airflow assigns none to a callback: there the executor uses the callback's own.
                dispatch = row.ti_id if row.is_callback else str(uuid.uuid4())
                self.do(
                    "UPDATE workloads SET state = 'queued', dispatch = ?, queued_by = ?"
                    " WHERE number = ?",
                    dispatch, job, row.number,
                )  # fmt: skip
                queued.append(self.row(row.number))
                self.note(queued[-1], "queued")
        return queued

    def take_orphans(self, job: int, *, dead_after: float) -> list[Row]:
        """Assign the tasks of dead schedulers to this one, which is about to judge them."""
        orphaned = (
            "behaviour != 'callback' AND state IN ('queued', 'running', 'restarting')"
            " AND queued_by IN (SELECT id FROM jobs WHERE has_ended OR heartbeat < ?)"
            " AND queued_by != ?"
        )
        with self.transaction():
            orphans = self.rows(orphaned, time.monotonic() - dead_after, job)
            self.assign(job, [row.number for row in orphans])
        return orphans

    def assign(self, job: int, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.do("UPDATE workloads SET queued_by = ? WHERE number = ?", job, number)

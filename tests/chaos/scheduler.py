"""One scheduler: the real executor, driven by the loop and the rules of Airflow's scheduler.

Run as `python -m tests.chaos.scheduler NAME DIRECTORY`. The rules for events and adoption are
those of `airflow/jobs/scheduler_job_runner.py` in 3.3.2.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

from airflow.models.callback import CallbackKey
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState

from nats_executor import NatsExecutor
from nats_executor.scheduler import compat
from tests.chaos import rows
from tests.chaos.database import Database, Row
from tests.chaos.workloads import instance, key_of, number_in, workload_of

__all__: list[str] = []

log = logging.getLogger("tests.chaos.scheduler")

LOOP_SECONDS = 0.1
BEAT_SECONDS = 0.5
ADOPT_SECONDS = 2.0
# Airflow's `scheduler_health_check_threshold` is 30 s.
DEAD_SECONDS = 3.0
# Airflow's `task_instance_heartbeat_timeout` is 300 s. It is the last resort, and a run counts
# whatever had to wait for it.
SILENT_SECONDS = float(os.environ["CHAOS_SILENT_SECONDS"])
# Airflow queues this many for each loop (`max_tis_per_query`).
AT_ONCE = 16
PARALLELISM = 64


class Scheduler:
    """A life of one scheduler."""

    def __init__(self, name: str, database: Database) -> None:
        self.database = database
        self.executor = NatsExecutor(parallelism=PARALLELISM)
        self.job = database.register(name, os.getpid())
        database.teller = f"{name} (job {self.job})"
        self.executor.job_id = self.job
        self.next_beat = self.next_adoption = 0.0

    def run(self) -> None:
        """Loop until SIGTERM, which is a `sys.exit(0)` in Airflow too."""
        rows.stand_in(self.database)
        self.executor.start()
        try:
            while True:
                self.adopt()
                self.queue_up()
                self.revoke()
                self.fail_silent()
                self.executor.heartbeat()
                self.handle_events()
                self.beat()
                time.sleep(LOOP_SECONDS)
        finally:
            self.executor.end()
            self.database.leave(self.job)

    def beat(self) -> None:
        if time.monotonic() >= self.next_beat:
            self.next_beat = time.monotonic() + BEAT_SECONDS
            self.database.beat(
                self.job, len(self.executor.running), len(self.executor._events.ledger)
            )

    def queue_up(self) -> None:
        """Assign, commit, and hand over: it dies between any two of these as Airflow's would."""
        limit = min(AT_ONCE, self.executor.slots_available)
        if limit > 0 and self.database.do("SELECT 1 FROM workloads WHERE state = 'scheduled'"):
            for row in self.database.queue_up(self.job, limit):
                self.executor.queue_workload(workload_of(row), session=Mock())

    def revoke(self) -> None:
        """Take back what the driver wants to have stuck in the queue, as Airflow's sweep does."""
        stuck = "revoke AND state = 'queued' AND queued_by = ?"
        if not self.database.do(f"SELECT 1 FROM workloads WHERE {stuck}", self.job):
            return
        # What the executor refuses to give back is asked for again in the next loop.
        with self.database.transaction(), contextlib.suppress(NotImplementedError):
            for row in self.database.rows(stuck, self.job):
                self.executor.revoke_task(ti=instance(row))
                self.database.note(row, "revoked")
                self.database.do(
                    "UPDATE workloads SET state = 'scheduled', dispatch = NULL, queued_by = NULL,"
                    " revoke = 0 WHERE number = ?",
                    row.number,
                )

    def fail_silent(self) -> None:
        """Give up tasks without heartbeats, as Airflow does in the end."""
        silent = (
            "state IN ('running', 'restarting') AND behaviour != 'callback' AND queued_by = ?"
            " AND last_heartbeat < ?"
        )
        for row in self.database.rows(silent, self.job, time.monotonic() - SILENT_SECONDS):
            self.database.note(row, "silent")
            key = compat.key_of_task(instance(row), cast("Any", key_of(row)))
            self.executor.change_state(key, TaskInstanceState.FAILED)

    # Events

    def handle_events(self) -> None:
        """Handle what has ended by the rules of `process_executor_events`."""
        self.executor._task_event_logs.clear()
        events = self.executor.get_event_buffer()
        if not events:
            return
        with self.database.transaction():
            for key, (state, info) in events.items():
                if isinstance(key, CallbackKey):
                    self.handle_callback(key, str(state.value), str(info or ""))
                else:
                    self.handle_task(key, str(state.value), str(info or ""))

    def handle_callback(self, key: CallbackKey, state: str, info: str) -> None:
        # The scheduler that has it in its ledger tells; the same state once more changes nothing.
        for row in self.database.rows("ti_id = ? AND state != ?", key.id, state):
            self.database.set_state(row, state, info)

    def handle_task(self, key: Any, state: str, info: str) -> None:
        if isinstance(key, TaskInstanceKey):
            row = self.database.row(number_in(key))
        elif found := self.database.rows("ti_id = ?", str(key)):
            [row] = found
        else:
            return  # Airflow 3.4 knows attempts by their ids; this one is over
        if state in {"queued", "running"}:
            self.database.do("UPDATE workloads SET dispatch = ? WHERE number = ?", info, row.number)
            return
        self.database.note(row, f"event: {state}", info)
        is_old = isinstance(key, TaskInstanceKey) and row.try_number != key.try_number
        if is_old or row.is_over or row.queued_by != self.job:
            return
        if self.executor.has_task(instance(row)):
            return  # queued again meanwhile
        if row.state == "restarting" and state == "success":
            self.database.next_try(row, "again", "it was cleared", is_free=True)
        else:
            self.database.retry_or_fail(row, f"state mismatch, {state} of a {row.state}: {info}")

    # Adoption

    def adopt(self) -> None:
        """Take over from dead schedulers, as `adopt_or_reset_orphaned_tasks` does.

        The rows are assigned first: Airflow holds their locks instead, which SQLite has not.
        """
        if time.monotonic() < self.next_adoption:
            return
        self.next_adoption = time.monotonic() + ADOPT_SECONDS
        orphans = self.database.take_orphans(self.job, dead_after=DEAD_SECONDS)
        if not orphans:
            return
        rejected = self.executor.try_adopt_task_instances([instance(row) for row in orphans])
        refused: set[int] = {ti.row.number for ti in rejected}
        log.info("adopted %d task instances, reset %d", len(orphans) - len(refused), len(refused))
        with self.database.transaction():
            for row in orphans:
                if row.number in refused:
                    self.reset(self.database.row(row.number), row)
                else:
                    self.database.note(row, "adopted")

    def reset(self, row: Row, judged: Row) -> None:
        """Schedule it again under a new id, unless it has moved on since it was judged."""
        if (row.ti_id, row.is_over) == (judged.ti_id, False):
            self.database.next_try(row, "reset", f"from {row.state}", is_free=True)


def main(name: str, directory: str) -> None:
    logging.basicConfig(
        format="%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        level=logging.INFO,
        force=True,
    )

    def leave(*_: Any) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    with contextlib.closing(Database(Path(directory) / "database", teller=name)) as database:
        Scheduler(name, database).run()


if __name__ == "__main__":
    main(*sys.argv[1:])

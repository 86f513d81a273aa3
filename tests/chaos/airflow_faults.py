"""Faults of what stands in for Airflow: schedulers, API server, and the workloads themselves."""

from __future__ import annotations

import signal
import time
import uuid
from typing import TYPE_CHECKING

from tests.chaos.api import ask
from tests.chaos.blow import NoVictim
from tests.chaos.database import Behaviour
from tests.chaos.injections import Span
from tests.chaos.plan import Kind
from tests.chaos.recovery import left_by, moved_on, starts_again, went_on

if TYPE_CHECKING:
    from tests.chaos.blow import Blow

__all__ = [
    "api_away",
    "api_frozen",
    "api_misbehaves",
    "cleared",
    "poison",
    "revoked",
    "scheduler_ended",
]

MANNERS = {Kind.API_SLOW: "late", Kind.API_MUTE: "mute", Kind.API_BEHIND_PROXY: "proxy"}


def scheduler_ended(blow: Blow) -> None:
    living = [s for s in blow.stage.schedulers if s.is_kept and s.is_alive]
    scheduler = blow.pick(living)
    jobs = [job.id for job in blow.database.jobs() if job.pid == scheduler.pid]
    blow.hit(f"{scheduler.name} (job {jobs})")
    if blow.fault.kind is Kind.SCHEDULER_REPLACED:
        blow.injection.victim += f", now of {blow.stage.change_release(scheduler)}"
    is_kill = blow.fault.kind is Kind.SCHEDULER_KILLED
    scheduler.end(signal.SIGKILL if is_kill else signal.SIGTERM)
    blow.recovers(left_by(jobs))
    blow.last()
    scheduler.start()


def api_away(blow: Blow) -> None:
    blow.hit("the API server")
    blow.stage.api.end(signal.SIGKILL)
    blow.last()
    blow.stage.api.start()
    api_is_back(blow)


def api_frozen(blow: Blow) -> None:
    blow.hit("the API server")
    blow.stage.api.signal(signal.SIGUSR1)
    blow.last()
    blow.stage.api.signal(signal.SIGUSR2)
    api_is_back(blow)


def api_misbehaves(blow: Blow) -> None:
    """Have it carry out what it is asked, and answer late, never, or with a proxy's error."""
    blow.hit("the API server")
    address = str(blow.stage.directory / "api")
    ask(address, op="behave", manner=MANNERS[blow.fault.kind])
    blow.last()
    ask(address, op="behave", manner="")
    api_is_back(blow)


def api_is_back(blow: Blow) -> None:
    now = time.monotonic()
    blow.injector.api_outages.append(Span(0, blow.injection.began, now))
    blow.recovers(starts_again(now), since=now)


def poison(blow: Blow) -> None:
    with blow.database.transaction():
        number = blow.database.submit(Behaviour.POISON, "default", 0.05, max_tries=0)
    blow.hit(f"w{number}")
    blow.recovers(lambda database: database.row(number).is_over)


def revoked(blow: Blow) -> None:
    queued = "state = 'queued' AND NOT revoke AND behaviour = 'plain'"
    row = blow.find(lambda: blow.database.rows(queued))
    started = blow.database.executions("number = ?", row.number)
    blow.hit(f"w{row.number}")
    blow.database.do("UPDATE workloads SET revoke = 1 WHERE number = ?", row.number)
    blow.recovers(moved_on(row.number, after=len(started)))


def cleared(blow: Blow) -> None:
    execution = blow.find(blow.victims.clearable)
    with blow.database.transaction():
        row = blow.database.row(execution.number)
        if row.state != "running":
            raise NoVictim
        blow.hit(f"w{row.number}")
        blow.database.note(row, "cleared")
        blow.database.do(
            "UPDATE workloads SET state = 'restarting', ti_id = ? WHERE number = ?",
            str(uuid.uuid4()), row.number,
        )  # fmt: skip
    blow.recovers(went_on([execution]))

"""Runs every fault with every executor and tells what became of the tasks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nats_executor.local.process import LocalError
from tests.bench.faults.acts import ACTS, surroundings
from tests.bench.faults.report import Report, judge
from tests.bench.faults.stage import SLOTS, FaultyAirflow, FaultySession
from tests.bench.faults.table import FAULTS
from tests.bench.needs import Missing, missing
from tests.bench.shared_airflow import RunFailed
from tests.bench.sides import CELERY, SIDES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.bench.faults.report import Outcome
    from tests.bench.faults.table import Fault
    from tests.bench.sample import Task
    from tests.bench.sides import Side

__all__ = ["measure"]

BEGIN_SECONDS = 180.0
# Above each wait of Airflow's that ends the loss of a task: twice the heartbeat timeout, three
# times `task_queued_timeout`, with the time for all tries.
END_SECONDS = 420.0
LOOK_SECONDS = 0.5


def measure(
    task: Task, faults: Sequence[str], executors: Sequence[str], report: Report
) -> Iterator[str]:
    """Add what is found to a report; yields the name of each fault that is done."""
    sides = [side for side in SIDES if side.name in executors]
    for side in [side for side in sides if missing(side.name)]:
        sides.remove(side)
        for name in faults:
            report.missing[name][side.name] = missing(side.name)
    with FaultyAirflow(task, sides) as airflow:
        for number in range(task.rounds):
            for name in faults:
                fault = FAULTS[name]
                for side in sides:
                    if side.name not in fault.lacks:
                        task.say(f"round {number + 1}: {name}, {side.name}")
                        add(report, airflow, side, fault)
                yield name


def add(report: Report, airflow: FaultyAirflow, side: Side, fault: Fault) -> None:
    """Run a fault once; what fails here costs no other its row."""
    try:
        outcome = outcome_of(airflow, side, fault)
    except (LocalError, Missing, RunFailed, TimeoutError, OSError) as exc:
        airflow.task.say(f"  not run: {exc}")
        report.missing[fault.name][side.name] = str(exc)
    else:
        report.outcomes.append(outcome)
        airflow.task.say(
            f"  {outcome.failed} failed, {outcome.lost} lost of {outcome.tasks}, "
            f"{outcome.extra_tries} extra tries, {outcome.extra_begins} extra begins, "
            f"{outcome.seconds or float('inf'):.0f} s; {', '.join(outcome.restarted)}"
        )
    finally:
        airflow.line.back = 0.0
        airflow.ensure_brokers()


def outcome_of(airflow: FaultyAirflow, side: Side, fault: Fault) -> Outcome:
    airflow.begun.unlink(missing_ok=True)
    if side is CELERY:
        airflow.forget_messages()
    session = FaultySession(airflow, side, fault)
    with surroundings(session), session:
        if fault.is_first:
            ACTS[fault.name](session)
        of = airflow.begin(fault.dag, airflow.require_alive)
        busy = wait_for(session, lambda: is_busy(airflow, of), BEGIN_SECONDS)
        if not busy and not fault.is_first:
            airflow.give_up(of)
            raise RunFailed(f"{fault.dag}: no task began within {BEGIN_SECONDS:g} s")
        began = time.monotonic()
        if not fault.is_first:
            ACTS[fault.name](session)
        is_over = wait_for(session, lambda: is_well(session, of), END_SECONDS)
        seconds = time.monotonic() - began if is_over else None
        rows, begins = airflow.states(of), airflow.begins()
        if not is_over:
            airflow.give_up(of)
    restarted = tuple(session.restarted)
    return judge(fault.name, side.name, rows, begins, seconds=seconds, restarted=restarted)


def is_busy(airflow: FaultyAirflow, of: dict[str, str]) -> bool:
    """Whether every slot has a task that has begun."""
    tasks = len(airflow.states(of))
    return airflow.begins() >= min(SLOTS, max(1, tasks - 1))


def is_well(session: FaultySession, of: dict[str, str]) -> bool:
    """Whether the run is over, and whatever was broken is mended."""
    return session.is_healed() and session.airflow.state(of) in {"success", "failed"}


def wait_for(session: FaultySession, is_so: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition while what ends is started again; False when it took too long."""
    deadline = time.monotonic() + seconds
    while not is_so():
        session.heal()
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True

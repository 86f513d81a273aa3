"""Measure a whole Airflow: tasks per second, what a slot is busy with, the cost of a worker.

Each round starts, one after the other and in another order each time, a scheduler and a worker
for every contender; database, API server, dag processor and Dags are the same for all
(`shared_airflow.py` has the settings). A small run warms each one up before anything is timed.

- `e2e_tasks_per_s_*`, `e2e_vs_local_4_slots`: mapped tasks that do nothing; their number by the
  time from the first `queued_dttm` to the last `end_date` in the database.
- `slot_efficiency_1s`: tasks of one second; ideal time (tasks / slots) by the time measured so.
- `worker_cpu_per_task`: user and system seconds of every process of the worker, those that have
  ended included, over the 4-slot run of tasks that do nothing, by the number of its tasks.
- `worker_idle_pss`, `worker_busy_pss`: the proportional set size of all processes of a worker
  with 16 slots, in MB, at rest: after its start, and after 500 tasks. Workers run as they do by
  default, with the server for their task logs.
- `worker_growth`: the same after 5,000 tasks, by that after 500.
- `slot_release_ms`: from the last Python that a task process runs (an `atexit` function that
  its task has registered) until its slot is free: in our worker until the intake may pull for
  it, in Celery's until the result is stored and the pool process is about to take the next one,
  in the EdgeExecutor's until the worker counts the slot as free.
  What the kernel needs to end the process is in it. Every task is one sample.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from tests.bench.sample import Sample
from tests.bench.shared_airflow import SharedAirflow
from tests.bench.sides import CELERY, EDGE, LOCAL, NATS, SIDES
from tests.bench.works import Work, carried_out

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bench.sample import Task
    from tests.bench.session import Session

__all__ = ["KEYS", "measure"]

E2E_4, E2E_16 = "e2e_tasks_per_s_4_slots", "e2e_tasks_per_s_16_slots"
VS_LOCAL, EFFICIENCY = "e2e_vs_local_4_slots", "slot_efficiency_1s"
RELEASE, CPU = "slot_release_ms", "worker_cpu_per_task"
IDLE, BUSY, GROWTH = "worker_idle_pss", "worker_busy_pss", "worker_growth"
KEYS = frozenset({E2E_4, E2E_16, VS_LOCAL, EFFICIENCY, RELEASE, CPU, IDLE, BUSY, GROWTH})
FEW, MANY = 4, 16
# 32 to warm up, 200 that are timed and 270: a few more than 500.
RUNS_TO_5000 = 5


def measure(task: Task) -> Iterator[Sample]:
    """Yield the samples of every round.

    Raises:
        Missing: what every contender needs is not installed.
        Unmeasured: some session has failed; all others are measured by then.
    """
    yield from carried_out(task, WORKS, lambda here: SharedAirflow(task, here))


def with_few_slots(session: Session, keys: frozenset[str]) -> Iterator[Sample]:
    name = session.side.name
    session.run("warm")
    if keys & {E2E_4, VS_LOCAL, CPU}:
        if CPU in keys:
            run, cpu = session.run_with_cpu("noops")
            yield Sample(CPU, name, cpu / run.tasks)
        else:
            run = session.run("noops")
        for key in sorted(keys & {E2E_4, VS_LOCAL}):
            yield Sample(key, name, run.tasks_per_second)
    if EFFICIENCY in keys:
        run = session.run("seconds")
        yield Sample(EFFICIENCY, name, run.tasks / session.slots / run.seconds)


def with_many_slots(session: Session, keys: frozenset[str]) -> Iterator[Sample]:
    name = session.side.name
    if IDLE in keys:
        yield Sample(IDLE, name, session.pss_megabytes())
    if not keys - {IDLE}:
        return
    session.run("warm")
    run = session.run("noops")
    if E2E_16 in keys:
        yield Sample(E2E_16, name, run.tasks_per_second)
    if not keys & {BUSY, GROWTH}:
        return
    session.run("to_500")
    busy = session.pss_megabytes()
    if BUSY in keys:
        yield Sample(BUSY, name, busy)
    if GROWTH in keys:
        for _ in range(RUNS_TO_5000):
            session.run("to_5000")
        yield Sample(GROWTH, name, session.pss_megabytes() / busy)


def releases(session: Session, _: frozenset[str]) -> Iterator[Sample]:
    session.run("warm")
    for path in notes_of(session):  # of the contender before
        path.unlink(missing_ok=True)
    run = session.run("ends")
    session.wait_until(
        lambda: len(release_times(session)) == run.tasks, f"all {run.tasks} slots to be free"
    )
    found = sorted(release_times(session))
    name = session.side.name
    session.airflow.task.say(
        f"  {RELEASE} {name}: p50 {found[len(found) // 2]:.3g}, max {found[-1]:.3g}"
    )
    for value in found:
        yield Sample(RELEASE, name, value)


def notes_of(session: Session) -> tuple[Path, Path]:
    return session.airflow.notes / "ended", session.airflow.notes / "freed"


def release_times(session: Session) -> list[float]:
    """Return the milliseconds of every task whose end and whose slot's release are noted."""
    ended, freed = (notes(path) for path in notes_of(session))
    return [(freed[ti] - ended[ti]) / 1e6 for ti in ended.keys() & freed.keys()]


def notes(path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    with suppress(FileNotFoundError):  # not written yet
        for line in path.read_text().splitlines():
            ti, at = line.split()
            found[ti] = int(at)
    return found


EVERYBODY = frozenset(SIDES)
WITH_WORKERS = frozenset({NATS, CELERY, EDGE})
WORKS = (
    Work(
        with_few_slots,
        FEW,
        {
            E2E_4: EVERYBODY,
            VS_LOCAL: frozenset({NATS, LOCAL}),
            EFFICIENCY: EVERYBODY,
            CPU: WITH_WORKERS,
        },
    ),
    Work(
        with_many_slots,
        MANY,
        {E2E_16: EVERYBODY, IDLE: WITH_WORKERS, BUSY: WITH_WORKERS, GROWTH: WITH_WORKERS},
    ),
    Work(releases, FEW, {RELEASE: WITH_WORKERS}, is_timed=True, is_each_task=True),
)

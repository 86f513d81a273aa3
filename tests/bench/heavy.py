"""Measure tasks of a Dag file with two seconds of imports, in a whole Airflow with 4 slots.

- tasks/s: as `e2e_tasks_per_s_4_slots`, of 100 mapped tasks that do nothing.
- `start-*`: from the start date of a task, which Airflow's supervisor sends to the API server,
  to the first line of the task's own code. Every task but the first one is a sample.

`nats` has the release's default of `[nats_executor] dag_zygotes`, `nats-off`, `nats-auto` and
`nats-on` have that value, where the release has the setting.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.bench.report import percentile
from tests.bench.sample import Sample
from tests.bench.shared_airflow import RunFailed, SharedAirflow
from tests.bench.sides import NATS_ZYGOTES, SIDES
from tests.bench.works import Work, carried_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.sample import Task
    from tests.bench.session import Session

__all__ = ["KEY", "Started", "later_starts", "measure"]

KEY = "heavy_dag"
SLOTS = 4
DAGS = Path(__file__).parent / "heavy_dags"


class Started(NamedTuple):
    """When a task began: seconds of Unix time.

    Attributes:
        date: the start date that Airflow's supervisor gave it.
        code: the first line of its own code.
    """

    date: float
    code: float


def measure(task: Task) -> Iterator[Sample]:
    """Yield the samples of every round; raises what `carried_out` does."""
    yield from carried_out(task, WORKS, lambda here: HeavyAirflow(task, here, DAGS))


class HeavyAirflow(SharedAirflow):
    """Its dag processor parses each file once, as it would take part of each run's time else."""

    def more_settings(self) -> dict[str, object]:
        return {
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 86_400,
            # The defaults are 30 and 50 seconds, which a busy machine may need for the imports.
            "CORE__DAGBAG_IMPORT_TIMEOUT": 300,
            "DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": 300,
        }


def of_heavy_dag(session: Session, _: frozenset[str]) -> Iterator[Sample]:
    name, path = session.side.name, session.airflow.notes / "started"
    session.run("warm")
    path.unlink(missing_ok=True)  # of the contender before
    run = session.run("heavy")
    yield Sample(KEY, name, run.tasks_per_second)
    found = starts(path.read_text())
    if len(found) != run.tasks:
        raise RunFailed(f"heavy: {len(found)} of {run.tasks} tasks noted their start")
    later = later_starts(found)
    shown = [f"p{p} {percentile(later, p / 100):.3g}" for p in (50, 99) if later]
    session.airflow.task.say(f"  {KEY} {name}: {run.tasks_per_second:.3g}, {' '.join(shown)} ms")
    for value in later:
        yield Sample(KEY, f"start-{name}", value)


def starts(text: str) -> list[Started]:
    rows = [line.split() for line in text.splitlines()]
    return [Started(float(row[1]), float(row[2])) for row in rows]


def later_starts(found: list[Started]) -> list[float]:
    """Return the milliseconds from date to code of all but the task that began first."""
    return [1000 * (one.code - one.date) for one in sorted(found)[1:]]


WORKS = (Work(of_heavy_dag, SLOTS, {KEY: frozenset({*SIDES, *NATS_ZYGOTES})}, is_each_task=True),)

"""Measure what holds a slot besides its task's own code, in a whole Airflow with this executor.

The Dag `seconds` runs on four slots, as for `slot_efficiency_1s`: 200 tasks of one second. Marks in
Airflow's functions, those of `layers`, say where each supervisor was; the figures are means, so
that they add up. One and a half minutes on two cores:

    .venv/bin/python -m tests.bench.held
    .venv/bin/python -m tests.bench.held -o json --slots 8
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from nats_executor.local.process import LocalError
from tests.bench.marks import marking_python, read_marks
from tests.bench.needs import Missing
from tests.bench.running import INTERRUPTED, forget_foreign, handle_stop, run_directory, task_for
from tests.bench.session import Session
from tests.bench.shared_airflow import RunFailed, SharedAirflow
from tests.bench.sides import NATS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.bench.marks import Mark
    from tests.bench.sample import Task

__all__ = ["main", "parts", "turns"]

MARKED = replace(NATS, stopwatch="tests.bench.marked_worker")
TASK_SECONDS = 1.0


def turns(marks: Iterable[Mark]) -> list[list[Mark]]:
    """Return each supervisor's marks from the begin of one task to that of its next one.

    What a supervisor did last has no end, and how it came to its first task is not in it.
    """
    by_pid: dict[int, list[Mark]] = defaultdict(list)
    for mark in marks:
        if mark.name.startswith("supervisor:"):
            by_pid[mark.pid].append(mark)
    found = []
    for own in by_pid.values():
        begins = [n for n, mark in enumerate(own) if mark.name == "supervisor:supervise_task>"]
        found += [own[begin : end + 1] for begin, end in pairwise(begins)]
    return found


def parts(turn: list[Mark]) -> dict[str, float]:
    """Return what a turn consists of, in milliseconds.

    Raises:
        ValueError: it is not that of a plain short task, which asks the API server three times.
    """
    at = {mark.name.removeprefix("supervisor:"): mark.wall for mark in turn[:-1]}
    asked = [mark.wall for mark in turn if mark.name == "supervisor:request>"]
    answered = [mark.wall for mark in turn if mark.name == "supervisor:request<"]
    if len(asked) != 3 or len(answered) != 3:
        raise ValueError(f"{len(asked)} requests and {len(answered)} answers, not 3")
    run, fields, state = (end - begin for begin, end in zip(asked, answered, strict=True))
    begin, end = turn[0].wall, turn[-1].wall
    before = asked[0] - begin
    after = at["_monitor_subprocess<"] - answered[2]
    next_one = end - at["_monitor_subprocess<"]
    task = end - begin - TASK_SECONDS - before - run - fields - state - after - next_one
    seconds = {
        "API client, log file, fork of the task": before,
        "API call /run": run,
        "API call /rtif": fields,
        "API call /state": state,
        "the task's process: Dag file, context, the rest": task,
        "the task's process ends": after,
        "report, slot, pull, claim, next task": next_one,
        "all": end - begin - TASK_SECONDS,
    }
    return {name: 1000 * value for name, value in seconds.items()}


def measure(task: Task, slots: int) -> dict[str, float]:
    """Run the Dag and return the mean of each part, in milliseconds, and the efficiency."""
    marks, python = marking_python(task.directory)
    with SharedAirflow(task, [NATS]) as airflow:
        airflow.deployment.env["BENCH_PYTHON"] = str(python)
        with Session(airflow, MARKED, slots, is_timed=True) as session:
            session.run("warm")
            marks.write_text("")
            run = session.run("seconds")
    found = [parts(turn) for turn in turns(read_marks(marks))]
    means = {name: statistics.mean(one[name] for one in found) for name in found[0]}
    return means | {"efficiency": run.tasks * TASK_SECONDS / slots / run.seconds}


def table(figures: dict[str, float]) -> str:
    lines = ["| besides the task's own second | ms |", "|---|---|"]
    lines += [f"| {name} | {ms:.1f} |" for name, ms in figures.items() if name != "efficiency"]
    return "\n".join([*lines, "", f"slot efficiency: {figures['efficiency']:.3f}"])


def main() -> int:
    """Measure and print; the exit code is 0, 1 after a failure, 130 after an interrupt."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.held",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--slots", type=int, default=4, help="of the worker (default 4)")
    parser.add_argument("-o", choices=("table", "json"), default="table", help="output format")
    parser.set_defaults(rounds=1, scale=1.0)
    options = parser.parse_args()
    forget_foreign()
    handle_stop(signal.default_int_handler)
    try:
        with run_directory() as directory:
            task = task_for(options, directory, "held", frozenset())
            figures = measure(task, options.slots)
    except (LocalError, Missing, RunFailed, TimeoutError, ValueError) as exc:
        sys.stderr.write(f"not measured: {exc}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; everything is stopped\n")
        return INTERRUPTED
    sys.stdout.write(json.dumps(figures, indent=2) if options.o == "json" else table(figures))
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

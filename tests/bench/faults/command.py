"""The part of `python -m tests.bench` that `--faults` asks for."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.environment import environment
from tests.bench.faults.report import Report, as_json, as_table, exit_code, recalled
from tests.bench.faults.table import FAULTS
from tests.bench.goals import EVERYBODY
from tests.bench.report import dumped, heading
from tests.bench.running import (
    INTERRUPTED,
    forget_foreign,
    handle_stop,
    keep,
    run_directory,
    task_for,
)

if TYPE_CHECKING:
    import argparse

__all__ = ["main", "recalled", "show"]

OUTPUT = Path("build/bench-faults.json")


def main(options: argparse.Namespace) -> int:
    """Break what was asked for, write down what became of the tasks, and show it."""
    from tests.bench.faults.run import measure  # late: `--help` and `--from` need no Airflow

    forget_foreign()
    where = environment(rounds=options.rounds, scale=options.scale)
    faults, executors = options.fault or list(FAULTS), options.executor or list(EVERYBODY)
    report = Report()
    handle_stop(signal.default_int_handler)
    with run_directory() as directory:
        task = task_for(options, directory, "faults", frozenset())
        try:
            for _ in measure(task, faults, executors, report):
                keep(options.output or OUTPUT, dumped(as_json(where, report)))
        except KeyboardInterrupt:
            sys.stderr.write("interrupted; everything is stopped\n")
            return INTERRUPTED
    return show(options, where, report)


def show(options: argparse.Namespace, where: dict[str, Any], report: Report) -> int:
    """Print a report as `--format` asks, draw it where `--plots` asks; returns the exit code."""
    document = as_json(where, report)
    is_json = options.format == "json"
    sys.stdout.write(dumped(document) if is_json else heading(where) + as_table(report))
    if options.plots:
        from tests.bench.plots import draw_faults

        sys.stderr.write(f"drawn: {draw_faults(document, options.plots)}\n")
    return exit_code(report)

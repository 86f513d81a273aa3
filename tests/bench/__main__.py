"""The benchmark: `python -m tests.bench`, or `make bench`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import signal
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.environment import environment
from tests.bench.faults import command as faults
from tests.bench.faults.table import FAULTS
from tests.bench.goals import EVERYBODY, KEYS
from tests.bench.needs import Missing, Unmeasured, missing
from tests.bench.report import as_json, as_table, dumped, exit_code, heading, results
from tests.bench.running import (
    INTERRUPTED,
    forget_foreign,
    handle_stop,
    keep,
    run_directory,
    task_for,
)
from tests.bench.sample import Sample, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

OUTPUT = Path("build/bench.json")

DESCRIPTION = """\
Measure this executor beside the CeleryExecutor (Redis, PostgreSQL), the EdgeExecutor and the
LocalExecutor: same machine, same run, alternating. With --faults, tell what becomes of tasks when
something breaks. Progress goes to stderr, the table to stdout, every figure to a
file."""

EPILOG = """\
examples:
  make bench                                      everything, an hour or two
  make bench ARGS="--scale 0.05 --rounds 1"       a trial of a few minutes; its figures mean little
  make bench ARGS="--only dispatch_per_s_10k --only adopt_10k_s"
  make bench ARGS="--plots docs/explanation/performance"    and draw the pictures of that page
  make bench ARGS="--from build/bench.json"       show the last run again, measure nothing
  make bench ARGS="--list"                        the keys, with what they have to reach
  make bench ARGS="--faults"                      what breaks, and what becomes of tasks, hours
  make bench ARGS="--fault worker_killed --executor nats --rounds 1"    one cell of that table

exit codes: 0 every goal is met; 1 one is missed; 2 none is missed, but something that was asked for
could not be measured, and a line says why; 130 Ctrl-C
"""


@dataclass
class Run:
    """What was measured so far."""

    asked: list[str]
    samples: list[Sample] = field(default_factory=list)
    missing: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))

    def measure(self, make_task: Callable[[str, frozenset[str]], Task]) -> Iterator[str]:
        """Run one module after the other; yields the name of each one that is done."""
        for name in dict.fromkeys(KEYS[key].module for key in self.asked):
            keys = frozenset(key for key in self.asked if KEYS[key].module == name)
            self.note_missing_contenders(keys)
            task = make_task(name, keys)
            try:
                module = importlib.import_module(f"tests.bench.{name}")
                with contextlib.closing(module.measure(task)) as samples:
                    self.samples.extend(samples)
            except Unmeasured as exc:
                for key in keys & exc.reasons.keys():
                    self.missing[key].update(exc.reasons[key])
            except Missing as exc:
                self.note_failure(keys, str(exc))
            except Exception as exc:  # noqa: BLE001 - one measurement must not cost the others
                text = f"{type(exc).__name__}: {exc}"
                task.say(f"failed: {text}")
                self.note_failure(keys, text)
            yield name

    def note_missing_contenders(self, keys: frozenset[str]) -> None:
        for key in keys:
            for contender in KEYS[key].contenders:
                if reason := missing(contender):
                    self.missing[key][contender] = reason

    def note_failure(self, keys: frozenset[str], reason: str) -> None:
        """Say it of every contender, as its figures may lack rounds."""
        for key in keys:
            for contender in KEYS[key].contenders or ("nats",):
                self.missing[key].setdefault(contender, reason)


def main() -> int:
    """Measure what was asked for, write it down and say whether it is enough."""
    options = parse()
    if options.faults or options.fault:
        return faults.main(options)
    asked = options.only or list(KEYS)
    if options.list:
        sys.stdout.write(listing(asked))
        return 0
    if options.from_file:
        document = json.loads(options.from_file.read_text())
        if "faults" in document:
            return faults.show(options, document["environment"], faults.recalled(document))
        return show(options, *recalled(document))
    forget_foreign()
    document = {"environment": environment(rounds=options.rounds, scale=options.scale)}
    run = Run(asked)
    # Also where a shell that starts this in the background has SIGINT ignored.
    handle_stop(signal.default_int_handler)
    with run_directory() as directory:
        try:
            for _ in run.measure(lambda name, keys: task_for(options, directory, name, keys)):
                write(options.output or OUTPUT, document["environment"], run)
        except KeyboardInterrupt:
            sys.stderr.write("interrupted; everything is stopped\n")
            return INTERRUPTED
    return show(options, document["environment"], run)


def show(options: argparse.Namespace, where: dict[str, Any], run: Run) -> int:
    whole = results(run.samples, run.asked, run.missing)
    document = as_json(where, whole)
    sys.stdout.write(dumped(document) if options.format == "json" else heading(where))
    if options.format == "table":
        sys.stdout.write(as_table(whole))
    if options.plots:
        from tests.bench.plots import draw

        for path in draw(document, options.plots):
            sys.stderr.write(f"drawn: {path}\n")
    return exit_code(whole)


def write(path: Path, where: dict[str, Any], run: Run) -> None:
    """Write down what is there so far, so that an interruption costs one module only."""
    measured = {sample.key for sample in run.samples} | run.missing.keys()
    asked = [key for key in run.asked if key in measured]
    keep(path, dumped(as_json(where, results(run.samples, asked, run.missing))))


def recalled(document: dict[str, Any]) -> tuple[dict[str, Any], Run]:
    """Return the environment and the run that a file tells of."""
    run = Run(list(document["keys"]))
    for key, entry in document["keys"].items():
        run.missing[key] = dict(entry["missing"])
        for contender, figures in entry["contenders"].items():
            run.samples += [Sample(key, contender, value) for value in figures["samples"]]
    return document["environment"], run


def listing(asked: Sequence[str]) -> str:
    lines = []
    for name in asked:
        key = KEYS[name]
        lines.append(f"{name}: {key.what} ({key.unit})")
        lines += [f"  {goal.text}" for goal in key.goals] or ["  stated"]
    return "\n".join(lines) + "\n"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", action="append", default=[], choices=tuple(KEYS), metavar="KEY",
        help="measure this key, and others so named, instead of all; --list names them",
    )  # fmt: skip
    parser.add_argument("--rounds", type=positive, default=3, help="of each contender (default 3)")
    parser.add_argument(
        "--scale", type=share, default=1.0, help="share of the full size, for a trial (default 1)"
    )
    parser.add_argument("-o", "--format", choices=("table", "json"), default="table")
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help="where all figures go, whatever is shown (default build/bench.json, with --faults "
        "build/bench-faults.json)",
    )  # fmt: skip
    parser.add_argument(
        "--from", dest="from_file", type=Path, metavar="FILE", help="show a run that was written"
    )
    parser.add_argument("--faults", action="store_true", help="break things instead, every fault")
    parser.add_argument(
        "--fault", action="append", default=[], choices=tuple(FAULTS), metavar="FAULT",
        help="this fault alone, and others so named",
    )  # fmt: skip
    parser.add_argument(
        "--executor", action="append", default=[], choices=EVERYBODY, metavar="NAME",
        help=f"with --faults: these alone, of {', '.join(EVERYBODY)}",
    )  # fmt: skip
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw PNG files into it")
    parser.add_argument("--list", action="store_true", help="show keys and goals, measure nothing")
    return parser.parse_args()


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def share(text: str) -> float:
    if not 0 < (number := float(text)) <= 1:
        raise argparse.ArgumentTypeError("above 0 and at most 1")
    return number


if __name__ == "__main__":
    sys.exit(main())

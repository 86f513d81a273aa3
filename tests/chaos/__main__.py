"""The chaos driver: `python -m tests.chaos`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.chaos.invariants import violations
from tests.chaos.plan import Kind, kinds_for, make_plan
from tests.chaos.report import as_json, as_text, dispatches
from tests.chaos.stage import PACES, ChaosStage
from tests.chaos.storm import Course, Storm
from tests.support.release import ReleaseMissing, last_release

if TYPE_CHECKING:
    from collections.abc import Iterator

VIOLATED, NOT_THERE, INTERRUPTED = 1, 2, 130
# What two cores finish beside the faults, with some room.
WORKLOADS_PER_SECOND = 25
# Of logs that are gone with their directory, where a rule was violated.
MOST_LOG_LINES = 100

DESCRIPTION = """\
Run a real NATS, three schedulers' executors and five workers through a seeded storm of faults,
and check at the end that nothing was lost and nothing ran twice."""

EPILOG = """\
examples:
  python -m tests.chaos                          a minute of faults, seed chosen and printed
  python -m tests.chaos --seed 7 --seconds 600   ten minutes, the same faults each time
  python -m tests.chaos --servers 3              a cluster of three, streams with three copies
  python -m tests.chaos --airflow --seconds 120  schedulers, API server, PostgreSQL and Dags
  python -m tests.chaos --mix                    an upgrade: the last release and this code at once
  python -m tests.chaos --mix v0.1.0             the same with that tag or commit
  python -m tests.chaos --drains 100             1,000 tasks while their workers are replaced
  python -m tests.chaos --only 'worker killed' --only 'broker away'
  python -m tests.chaos --seed 7 --keep          keep logs and database to look into

exit codes: 0 nothing was violated; 1 something was, one line says what; 2 --mix has no code;
130 Ctrl-C
"""


def main() -> int:
    """Make a plan, play it, judge what is left, and say so."""
    options = parse()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    sys.stderr.write(f"repeat with --seed {seed}\n")
    if options.airflow:
        return play_airflow(options, seed)
    if options.drains:
        return play_drains(options, seed)
    plan = make_plan(
        seed,
        seconds=options.seconds,
        servers=options.servers,
        only=options.only,
        is_mixed=bool(options.mix),
    )
    workloads = options.workloads or int(options.seconds * WORKLOADS_PER_SECOND)
    began = time.monotonic()
    # Also where a shell that starts this in the background has SIGINT ignored.
    handle_stop(signal.default_int_handler)
    with run_directory(keep=options.keep) as directory:
        try:
            stage = ChaosStage(
                directory, servers=options.servers, settings=options.settings, mix=options.mix
            )
        except ReleaseMissing as exc:
            sys.stderr.write(f"error: --mix {options.mix}: {exc}\n")
            return NOT_THERE
        if stage.earlier:
            sys.stderr.write(f"some members have the code of {stage.earlier.name} at first\n")
        try:
            stage.start()
            storm = Storm(stage, Course(seed, options.seconds, workloads, plan))
            storm.run()
            evidence = storm.evidence()
        except KeyboardInterrupt:
            sys.stderr.write("interrupted; stopping everything\n")
            return INTERRUPTED
        finally:
            handle_stop(signal.SIG_IGN)
            stage.close()
        found = violations(evidence)
        seconds = time.monotonic() - began
        place = str(directory) if options.keep else ""
        whole = as_json(seed, evidence, found, seconds=seconds, place=place)
        (directory / "report.json").write_text(whole)
        said = log_lines(directory / "logs", dispatches(found, evidence))
    text = as_text(seed, evidence, found, seconds=seconds, place=place)
    sys.stdout.write(whole if options.output == "json" else "\n".join([*said, text]))
    return VIOLATED if found else 0


def log_lines(directory: Path, dispatch_ids: set[str]) -> list[str]:
    """Return what the members' logs say of some dispatches, in the order of time."""
    found = [
        f"{line} [{log.stem}]"
        for log in directory.glob("*.log")
        for line in log.read_text(errors="replace").splitlines()
        if any(dispatch_id in line for dispatch_id in dispatch_ids)
    ]
    return sorted(found)[:MOST_LOG_LINES]


def play_airflow(options: argparse.Namespace, seed: int) -> int:
    """Do it with a whole Airflow, whose tasks take far longer to start, and judge its rows."""
    from tests.airflow.chaos import run_airflow_chaos
    from tests.airflow.chaos_report import as_json, as_text

    # As Ctrl-C: whatever was started ends on the way out.
    handle_stop(signal.default_int_handler)
    with run_directory(keep=options.keep) as directory:
        try:
            result = run_airflow_chaos(seed, options.seconds, directory=directory, say=say)
        except KeyboardInterrupt:
            sys.stderr.write("interrupted; everything is stopped\n")
            return INTERRUPTED
    sys.stdout.write(as_json(result) if options.output == "json" else as_text(result))
    return VIOLATED if result.violations else 0


def play_drains(options: argparse.Namespace, seed: int) -> int:
    """Replace real workers, one after the other, and judge what became of their tasks."""
    from tests.faults.drains import Course, as_json, as_text, run_drains
    from tests.support.nats_server import NatsServer

    course = Course(seed, options.drains)
    handle_stop(signal.default_int_handler)
    with run_directory(keep=options.keep) as directory:
        server = NatsServer(directory / "nats")
        try:
            outcome = asyncio.run(run_drains(course, server.start().url, directory, say))
        except KeyboardInterrupt:
            sys.stderr.write("interrupted; everything is stopped\n")
            return INTERRUPTED
        finally:
            server.kill()
    as_asked = as_json if options.output == "json" else as_text
    sys.stdout.write(as_asked(course, outcome))
    return VIOLATED if outcome.violations else 0


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def handle_stop(how: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, how)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_storm(parser)
    parser.add_argument(
        "--airflow",
        action="store_true",
        help="two schedulers of a whole Airflow on PostgreSQL and fewer tasks, instead",
    )
    parser.add_argument(
        "--drains",
        type=int,
        metavar="NUMBER",
        help="so many SIGTERMs to real workers with short tasks, ten for each, instead",
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--keep", action="store_true", help="keep the directory with the logs")
    options = parser.parse_args()
    if options.mix and (options.airflow or options.drains):
        parser.error("--mix is for the driver without --airflow and --drains")
    return options


def add_storm(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what happens."""
    parser.add_argument("--seed", type=int, help="of faults and workloads; a random one without it")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="length of the fault phase (default 60)"
    )
    parser.add_argument(
        "--workloads",
        type=int,
        help=f"to submit in this time (default {WORKLOADS_PER_SECOND} a second, fewer if they pile"
        " up)",
    )
    parser.add_argument(
        "--servers", type=int, choices=(1, 3), default=1, help="size of the NATS cluster"
    )
    parser.add_argument(
        "--settings",
        choices=tuple(PACES),
        default="quick",
        help="of the product: short times, so that much happens (quick), or its own defaults",
    )
    parser.add_argument(
        "--mix",
        nargs="?",
        const=last_release(),
        default="",
        metavar="RELEASE",
        help="start some schedulers and workers with the code of this tag or commit, and replace"
        " them by the other one's to and fro; without a name the last release (%(const).12s)",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        type=Kind,
        metavar="FAULT",
        help="this kind of fault, and others so named, instead of all: "
        + ", ".join(sorted({*kinds_for(1, is_mixed=True), *kinds_for(3)})),
    )


@contextlib.contextmanager
def run_directory(*, keep: bool) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        yield directory
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

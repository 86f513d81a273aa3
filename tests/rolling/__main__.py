"""The rolling restart: `python -m tests.rolling`."""

from __future__ import annotations

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.rolling.course import Course, run_rolling
from tests.rolling.report import as_json, as_text

VIOLATED, INTERRUPTED = 1, 130

DESCRIPTION = """\
Run a whole Airflow on PostgreSQL (two schedulers, two API servers behind a balancer, three
workers, three NATS servers with streams of three copies) under a steady load of tasks without
retries. Restart all of it, one after the other: with SIGTERM, then with SIGKILL (no workers: what
those run is lost with them), then one worker after the other. Check at the end that every task
succeeded at its first try and ran once."""

EPILOG = """\
examples:
  python -m tests.rolling                        ten minutes, seed chosen and printed
  python -m tests.rolling --seed 7 --seconds 90 --every 8
                                                 a short one, the same restarts each time
  python -m tests.rolling --longest-wait 5       a wait in the queue of more than 5 s counts, too
  python -m tests.rolling --rate 2               half the load, for a machine that is busy
  python -m tests.rolling -o json --keep         figures as JSON; keep logs to look into

exit codes: 0 nothing was violated; 1 something was, one line says what; 130 Ctrl-C
"""


def main() -> int:
    """Restart everything, and say what it has cost."""
    options = parse()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    say(f"repeat with --seed {seed}")
    course = Course(
        seed=seed,
        seconds=options.seconds,
        every=options.every,
        rate=options.rate,
        longest_wait=options.longest_wait,
    )
    # Also where a shell that starts this in the background has SIGINT ignored.
    handle_stop(signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="rolling-"))
    try:
        result = run_rolling(course, directory, say)
    except KeyboardInterrupt:
        say("interrupted; everything is stopped")
        return INTERRUPTED
    finally:
        handle_stop(signal.SIG_IGN)
        if options.keep:
            say(f"logs are in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    as_asked = as_json if options.output == "json" else as_text
    sys.stdout.write(as_asked(course, result))
    return VIOLATED if result.violations else 0


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def handle_stop(how: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, how)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.rolling",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, help="of the restarts' order; a random one without it")
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="length of the load (default 600)"
    )
    parser.add_argument(
        "--every",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="from one restart to the next (default 20); later if the one before is not back yet",
    )
    parser.add_argument(
        "--rate", type=float, default=4.0, metavar="TASKS", help="tasks in a second (default 4)"
    )
    parser.add_argument(
        "--longest-wait",
        type=float,
        metavar="SECONDS",
        help="no task may be queued for longer, or than three seconds more across the kill of a"
        " NATS server; without it waits are only shown: they depend on the machine",
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--keep", action="store_true", help="keep the directory with the logs")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""Measures what one worker's login costs everybody else: `python -m tests.attacks.readers`.

A worker of queue `a` writes a flood, to streams without limits of their own; then each part that
reads it does so in a process of its own. Printed are the memory of that process before and at its
peak, the longest time for which its event loop was held, and the seconds until it was done.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.attacks.burdens import MAX_PAYLOAD, run
from tests.attacks.victims import VICTIMS
from tests.support.user_stage import KINDS, ONE_ACCOUNT, UserStage, open_user_stage

ROWS: dict[str, tuple[str, ...]] = {
    "nothing": tuple(VICTIMS),
    "one report of 8 MB": ("scheduler follows reports",),
    "40 reports of 8 MB": ("scheduler follows reports",),
    "100,000 reports": ("scheduler follows reports",),
    "40 presence records of 8 MB": (
        "scheduler looks who is alive",
        "scheduler reads its metrics",
        "airflow nats check",
        "another worker of queue a starts",
        "page of a running task's log",
    ),
    "100,000 presence records": (
        "scheduler reads its metrics",
        "airflow nats check",
        "page of a running task's log",
    ),
    "40 log records of 8 MB": ("page of a stored log",),
    "100,000 log records": ("page of a stored log",),
    "500 log parts of 1 MB": ("page of a stored log",),
}
WIDTHS = (28, 30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=KINDS, default=ONE_ACCOUNT)
    parser.add_argument("--flood", choices=ROWS, action="append", help="only this one")
    args = parser.parse_args()
    say(line("flood", "victim", "MB before", "MB at peak", "loop held", "seconds"))
    for name in args.flood or ROWS:
        with (
            tempfile.TemporaryDirectory() as directory,
            open_user_stage(Path(directory), args.mode, config=MAX_PAYLOAD) as user_stage,
        ):
            run(user_stage, name)
            for victim in ROWS[name]:
                say(measured(user_stage, args.mode, name, victim))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def measured(user_stage: UserStage, mode: str, flood: str, victim: str) -> str:
    urls = [server.url for server in user_stage.servers]
    command = [sys.executable, "-m", "tests.attacks.victims", victim, mode, *urls]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return line(flood, victim, f"ended: {done.returncode} {done.stderr[-300:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    numbers = (found[key] for key in ("before", "peak", "stall", "seconds"))
    return line(flood, victim, *map(str, numbers)) + f"  {found['note'][:100]}"


def line(flood: str, victim: str, *cells: str) -> str:
    return f"{flood:{WIDTHS[0]}}  {victim:{WIDTHS[1]}}  " + "  ".join(f"{c:>10}" for c in cells)


if __name__ == "__main__":
    main()

"""Try all that a release needs: `make release-check`, `ARGS=--list`, `ARGS="--only STEP"`."""

from __future__ import annotations

import argparse
import functools
import sys
import time
from typing import TYPE_CHECKING

from tests.release.airflows import all_releases, checked
from tests.release.report import Line, Step, exit_code, failed, table
from tests.release.running import Refused
from tests.release.steps import STEPS, built

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.release.report import Outcome


def beside(release: str) -> Iterator[Outcome]:
    yield from checked(release, built())


def steps() -> list[Step]:
    """Return what is quick first; an Airflow takes minutes."""
    airflows = [
        Step(
            f"airflow-{name}",
            f"install and use it beside Airflow {name}",
            functools.partial(beside, name),
        )
        for name in all_releases()
    ]
    return [*STEPS[:-1], *airflows, STEPS[-1]]


def lines(step: Step) -> Iterator[Line]:
    """Yield a line for each outcome; what a step does not get over is its last one."""
    outcomes = step.run()
    while True:
        began = time.monotonic()
        try:
            outcome = next(outcomes, None)
        except Refused as exc:
            outcome, outcomes = failed(str(exc)), iter(())
        if outcome is None:
            return
        yield Line(step.name, outcome, time.monotonic() - began)


def main() -> int:
    known = steps()
    parser = argparse.ArgumentParser(
        prog="make release-check",
        description=__doc__,
        epilog="exit codes: 0 all passed; 1 a check failed; 2 none failed, one could not be made",
    )
    names = [step.name for step in known]
    parser.add_argument("--only", action="append", choices=names, help="this step; may be repeated")
    parser.add_argument(
        "--let-unchecked-pass", action="store_true", help="0 in the place of exit code 2"
    )
    parser.add_argument("--list", action="store_true", help="name the steps")
    options = parser.parse_args()
    if options.list:
        sys.stdout.writelines(f"{step.name:16} {step.what}\n" for step in known)
        return 0
    chosen = [step for step in known if not options.only or step.name in options.only]
    began = time.monotonic()
    found: list[Line] = []
    for number, step in enumerate(chosen, 1):
        tell(began, f"{step.name} ({number} of {len(chosen)}): {step.what}")
        for line in lines(step):
            found.append(line)
            tell(began, f"  {line.outcome.state}: {line.outcome.text} ({line.seconds:.0f} s)")
    sys.stdout.write(f"\n{table(found)}\n")
    code = exit_code(found)
    return 0 if code == 2 and options.let_unchecked_pass else code


def tell(began: float, text: str) -> None:
    sys.stdout.write(f"{time.monotonic() - began:7.1f} s  {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

"""Run suites or a program, and write into `tests/tested.json` what ran on which versions.

`python -m tests.tools.tested [--as WHAT] COMMAND...`, with the Python under test. Without a name
pytest's run leaves a row for each suite, which is a folder of `tests`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import platform
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.support.nats_server import server_version
from tests.tools.boundaries import ROOT
from tests.tools.document_tested import PAGE, RECORD, Row, as_json, document, replaced, rows_of

__all__ = ["counts", "main"]

# All other codes: interrupted, a wrong option, no test at all.
PYTEST_IS_THROUGH = (0, 1)
# What a run itself writes.
OWN_CHANGES = (f":!{RECORD}", f":!{PAGE}")


def main() -> int:
    """Run the command as it is; nothing is written when it was cut short."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--as", dest="what", metavar="WHAT", help="the row's name in the table")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if Path(options.command[0]).name == "pytest":
        code, found = run_tests(options.command, options.what)
    else:
        code = subprocess.run(options.command, check=False).returncode
        found = {options.what: (int(code == 0), int(code != 0), 0)}
    record = ROOT / RECORD
    rows = rows_of(record.read_text())
    for what, results in found.items():
        rows = replaced(rows, row_of(what, *results))
    record.write_text(as_json(rows))
    (ROOT / PAGE).write_text(document(rows))
    return code


def run_tests(command: list[str], what: str | None) -> tuple[int, dict[str, tuple[int, int, int]]]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        code = subprocess.run([*command, f"--junitxml={report}"], check=False).returncode
        return code, counts(report.read_text(), what) if code in PYTEST_IS_THROUGH else {}


def counts(report: str, what: str | None = None) -> dict[str, tuple[int, int, int]]:
    """Return how many passed, failed and were skipped of each suite, from JUnit's XML.

    An error counts as a failure.
    """
    found: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for case in ET.fromstring(report).iter("testcase"):  # noqa: S314 - pytest wrote it just now
        # A module that could not be imported has no class, and its own name.
        names = (case.get("classname") or case.get("name") or "").split(".")
        ends = {child.tag for child in case}
        column = 1 if ends & {"failure", "error"} else 2 if "skipped" in ends else 0
        found[what or "/".join(names[:2])][column] += 1
    return {suite: (passed, failed, skipped) for suite, (passed, failed, skipped) in found.items()}


def row_of(what: str, passed: int, failed: int, skipped: int) -> Row:
    return Row(
        airflow=version("apache-airflow"),
        python=platform.python_version(),
        server=".".join(str(part) for part in server_version()),
        what=what,
        passed=passed,
        failed=failed,
        skipped=skipped,
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        commit=commit(),
    )


def commit() -> str:
    """Return the commit, with `+` when the code that ran is not exactly that one's."""
    head = git("rev-parse", "--short=9", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *OWN_CHANGES)
    return f"{head}+" if changed else head


def git(*arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=ROOT, text=True).strip()


if __name__ == "__main__":
    sys.exit(main())

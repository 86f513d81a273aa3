"""Run a suite or a program, and write into `tests/tested.json` what ran on which versions.

`python -m tests.tools.tested WHAT COMMAND...`, with the Python of the environment under test, WHAT
being the row's name in the table.
"""

from __future__ import annotations

import datetime as dt
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from tests.support.nats_server import server_version
from tests.tools.boundaries import ROOT
from tests.tools.document_tested import PAGE, RECORD, Row, as_json, document, replaced, rows_of

__all__ = ["counts", "main"]

# All other codes: interrupted, a wrong option, no test at all.
PYTEST_IS_THROUGH = (0, 1)


def main() -> int:
    """Run the command as it is; nothing is written when it was cut short."""
    what, *command = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        is_pytest = Path(command[0]).name == "pytest"
        more = [f"--junitxml={report}"] if is_pytest else []
        code = subprocess.run([*command, *more], check=False).returncode
        if is_pytest and code not in PYTEST_IS_THROUGH:
            return code
        found: dict[str, Any] = of_program(code)
        if report.exists():
            found = counts(report.read_text())
    record = ROOT / RECORD
    rows = replaced(rows_of(record.read_text()), Row(what=what, **versions(), **found))
    record.write_text(as_json(rows))
    (ROOT / PAGE).write_text(document(rows))
    return code


def counts(report: str) -> dict[str, int]:
    """Add up what pytest's report in JUnit's form says; an error counts as a failure."""
    suites = [suite.attrib for suite in ET.fromstring(report).iter("testsuite")]  # noqa: S314
    total, failed, errors, skipped = (
        sum(int(suite[name]) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    )
    failed += errors
    return {"passed": total - failed - skipped, "failed": failed, "skipped": skipped}


def of_program(code: int) -> dict[str, int]:
    return {"passed": int(code == 0), "failed": int(code != 0), "skipped": 0}


def versions() -> dict[str, Any]:
    return {
        "airflow": version("apache-airflow"),
        "python": platform.python_version(),
        "server": ".".join(str(part) for part in server_version()),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "commit": commit(),
    }


def commit() -> str:
    """Return the commit, with `+` when the code that ran is not exactly that one's."""
    head = git("rev-parse", "--short=9", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *OWN_CHANGES)
    return f"{head}+" if changed else head


# What a run itself writes.
OWN_CHANGES = (f":!{RECORD}", f":!{PAGE}")


def git(*arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=ROOT, text=True).strip()


if __name__ == "__main__":
    sys.exit(main())

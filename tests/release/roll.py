"""Give the changelog the section of the release: `make roll`, with `ARGS=--dry-run` to look.

That section is the one switch: `make docs pictures` then writes the pages that install from PyPI.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import sys
import tomllib

from tests.release.changelog import NotRolled, compatibility, notes, rolled
from tests.tools.boundaries import ROOT
from tests.tools.document_tested import RECORD, rows_of

__all__ = ["files", "install_faults", "main", "version"]

# In README alone, one line puts the package beside an Airflow.
INSTALL = re.compile(
    r"(?m)^\$ .*\bpip install .*(?:airflow-nats-executor|airflow_nats_executor-).*$"
)


def version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def install_faults(readme: str) -> list[str]:
    """Return what keeps the install line from being switched at one place."""
    count = len(INSTALL.findall(readme))
    return [] if count == 1 else [f"README.md has {count} lines that install the package, not one"]


def files(date: str) -> dict[str, str]:
    """Return the new text of each file that a release changes."""
    rows = rows_of((ROOT / RECORD).read_text())
    changelog = (ROOT / "CHANGELOG.md").read_text()
    return {
        "CHANGELOG.md": rolled(changelog, version(), date, compatibility(rows)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="make roll", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="say what would change, no more")
    parser.add_argument("--date", default=dt.datetime.now(dt.UTC).date().isoformat())
    parser.add_argument("--notes", action="store_true", help="print the release's section alone")
    options = parser.parse_args()
    try:
        if options.notes:
            sys.stdout.write(notes((ROOT / "CHANGELOG.md").read_text(), version()))
            return 0
        new = files(options.date)
    except NotRolled as fault:
        sys.stderr.write(f"{fault}\n")
        return 1
    for name, text in new.items():
        path = ROOT / name
        is_new = text != path.read_text()
        would = "would write" if options.dry_run else "wrote"
        sys.stdout.write(f"{would if is_new else 'nothing to change in'} {name}\n")
        if is_new and not options.dry_run:
            path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Write docs/reference/tested-versions.md from the record of what ran: `make docs`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from packaging.version import Version

__all__ = ["PAGE", "RECORD", "Row", "as_json", "document", "replaced", "rows_of"]

RECORD = "tests/tested.json"
PAGE = "docs/reference/tested-versions.md"

HEAD = """\
# Versions that were tested

`make test-next`, `make test-airflow`, `make test-pythons` and `make test-matrix` write this page. A
row shows the last run that was not cut short by `ARGS`, with its day and its commit. `+` stands for
changes that were not committed yet. A test is skipped where the machine lacks what it needs, or
where it is about another version. Of `tests/faults`, each Airflow and each Python runs what is
about callbacks.

`make test` runs every test on the versions that `requirements.lock` pins. CI does that for every
change, and runs a part of `make test-next`; neither leaves a row here. Python 3.14 was not tried.

| Airflow | Python | nats-server | what ran | passed | failed | skipped | when | commit |
|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The last run of one suite, or of one program, on one set of versions."""

    airflow: str
    python: str
    server: str
    what: str
    passed: int
    failed: int
    skipped: int
    date: str
    commit: str

    @property
    def subject(self) -> tuple[str, ...]:
        """What a later run replaces this one by; patch releases of Python are one."""
        return (self.airflow, minor(self.python), self.server, self.what)


def minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def rows_of(record: str) -> list[Row]:
    return [Row(**row) for row in json.loads(record)]


def replaced(rows: list[Row], new: Row) -> list[Row]:
    """Return the rows with a new one in the place of its predecessor, in the page's order."""
    others = [row for row in rows if row.subject != new.subject]
    return sorted([*others, new], key=order)


def order(row: Row) -> tuple[Version, Version, Version, str]:
    return (Version(row.airflow), Version(row.python), Version(row.server), row.what)


def as_json(rows: list[Row]) -> str:
    """Return the record, a row a line, so that a run changes one line of it."""
    lines = ",\n".join(json.dumps(asdict(row)) for row in rows)
    return f"[\n{lines}\n]\n"


def document(rows: list[Row]) -> str:
    return HEAD + "".join(
        f"| {r.airflow} | {r.python} | {r.server} | {r.what} | {r.passed:,} | {r.failed} "
        f"| {r.skipped} | {r.date} | `{r.commit}` |\n"
        for r in rows
    )


if __name__ == "__main__":
    page, record = map(Path, sys.argv[1:])
    page.write_text(document(rows_of(record.read_text())))

"""Roll the changelog: what is unreleased becomes the section of a release."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.tools.document_tested import Row

__all__ = ["NotRolled", "compatibility", "notes", "rolled"]

HEAD = "## [Unreleased]\n"
FIRST = "The first release will be 0.1.0.\n\n"
SECTION = re.compile(r"(?ms)^## \[(?P<name>[^\]]+)\][^\n]*\n(?P<body>.*?)(?=^## \[|\Z)")


class NotRolled(Exception):
    """The changelog cannot become that of this release; says why."""


def compatibility(rows: Iterable[Row]) -> str:
    """Return the line that says what the record of tests knows: final releases, then others."""
    ran = [row for row in rows if row.passed and not row.failed]
    if not ran:
        raise NotRolled("tests/tested.json has no run without a failure; run `make test-next`")
    return (
        f"Tested with Airflow {listed(row.airflow for row in ran)}, "
        f"Python {listed('.'.join(row.python.split('.')[:2]) for row in ran)}, "
        f"nats-server {listed(row.server for row in ran)}."
    )


def listed(versions: Iterable[str]) -> str:
    return ", ".join(sorted(set(versions), key=Version))


def sections(text: str) -> dict[str, str]:
    return {found["name"]: found["body"] for found in SECTION.finditer(text)}


def notes(text: str, version: str) -> str:
    """Return what the changelog says of one release."""
    try:
        return sections(text)[version].strip() + "\n"
    except KeyError as exc:
        raise NotRolled(f"CHANGELOG.md has no section [{version}]; run `make roll`") from exc


def rolled(text: str, version: str, date: str, tested: str) -> str:
    """Return the changelog with the unreleased lines under the release, and nothing unreleased."""
    known = sections(text)
    if version in known:
        raise NotRolled(f"CHANGELOG.md has a section [{version}] already; raise the version")
    body = known.get("Unreleased", "").replace(FIRST, "")
    if not re.search(r"(?m)^- \S", body):
        raise NotRolled("CHANGELOG.md has nothing under [Unreleased]; write what users notice")
    before, _, after = text.partition(HEAD)
    after = after.removeprefix(known["Unreleased"])
    return f"{before}{HEAD}\n## [{version}] - {date}\n\n{tested}\n\n{body.lstrip()}{after}"

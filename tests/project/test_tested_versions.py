"""The table of tested versions: what a run writes, and that the page and README say no more."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.tools import tested
from tests.tools.boundaries import ROOT
from tests.tools.document_tested import PAGE, RECORD, Row, as_json, document, replaced, rows_of

if TYPE_CHECKING:
    from pathlib import Path

SUITE = Row(
    airflow="3.3.1", python="3.11.7", server="2.15.1", what="contract",
    passed=1200, failed=0, skipped=3, date="2026-11-30", commit="8036b4e11",
)  # fmt: skip
OLDER = Row(
    airflow="3.3.0", python="3.11.7", server="2.15.1", what="contract",
    passed=1, failed=0, skipped=0, date="2026-11-29", commit="8036b4e11",
)  # fmt: skip
REPORT = """\
<testsuites><testsuite name="pytest" errors="1" failures="1" skipped="1" tests="5" time="1.5">
<testcase classname="tests.cli.test_auth" name="test_one" time="0.1" />
<testcase classname="tests.cli.test_auth.TestClass" name="test_two"><skipped /></testcase>
<testcase classname="tests.worker.processes.test_pool" name="test_three"><failure /></testcase>
<testcase classname="tests.worker.processes.test_pool" name="test_four" />
<testcase classname="" name="tests.worker.test_run" time="0.0"><error /></testcase>
</testsuite></testsuites>
"""


def test_a_later_run_takes_the_place_of_the_earlier_one() -> None:
    """A patch release of Python is no other Python."""
    again = Row(
        airflow="3.3.1", python="3.11.9", server="2.15.1", what="contract",
        passed=1201, failed=0, skipped=2, date="2026-12-01", commit="000000001",
    )  # fmt: skip

    assert replaced([SUITE], OLDER) == [OLDER, SUITE]
    assert replaced([OLDER, SUITE], again) == [OLDER, again]


def test_the_record_is_read_as_it_was_written() -> None:
    assert rows_of(as_json([OLDER, SUITE])) == [OLDER, SUITE]
    assert len(as_json([OLDER, SUITE]).splitlines()) == 4


def test_the_numbers_of_each_suite_are_those_of_pytests_report() -> None:
    """What could not be imported or set up has failed."""
    assert tested.counts(REPORT) == {"tests/cli": (1, 0, 1), "tests/worker": (1, 2, 0)}
    assert tested.counts(REPORT, "all of it") == {"all of it": (2, 2, 1)}


@pytest.mark.parametrize(("code", "row"), [(0, "| 1 | 0 | 0 |"), (3, "| 0 | 1 | 0 |")])
def test_a_program_leaves_a_row_with_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, row: str
) -> None:
    for name in (RECORD, PAGE):
        (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / RECORD).write_text(as_json([OLDER]))
    monkeypatch.setattr(tested, "ROOT", tmp_path)
    monkeypatch.setattr(tested, "git", lambda *_: "")
    program = [sys.executable, "-c", f"raise SystemExit({code})"]
    monkeypatch.setattr(sys, "argv", ["tested", "--as", "the demo", *program])

    assert tested.main() == code

    assert f"| the demo {row}" in (tmp_path / PAGE).read_text()
    assert len(rows_of((tmp_path / RECORD).read_text())) == 2


def test_the_page_is_what_the_record_says() -> None:
    rows = rows_of((ROOT / RECORD).read_text())

    assert (ROOT / PAGE).read_text() == document(rows)
    assert rows == replaced(rows[1:], rows[0])  # in order, and no two of one subject


def named() -> dict[str, list[str]]:
    """Return what README says is supported: releases of Airflow, Python and nats-server."""
    text = re.sub(r"\s+", " ", (ROOT / "README.md").read_text())
    found = re.search(
        r"Airflow (3\.\d+) and (3\.\d+) \(pre-releases\), Python 3\.(\d+) to 3\.(\d+), "
        r"nats-server ([\d.]+) or later.*?nats-server from ([\d.]+) on works",
        text,
    )
    assert found
    old, new, first, last, server, oldest = found.groups()
    pythons = [f"3.{minor}" for minor in range(int(first), int(last) + 1)]
    return {"airflow": [old, new], "python": pythons, "server": [oldest, server]}


@pytest.mark.parametrize("part", ["airflow", "python", "server"])
def test_every_version_that_readme_names_was_tested(part: str) -> None:
    """And nothing failed in any of the rows of such a version."""
    rows = rows_of((ROOT / RECORD).read_text())

    for version in named()[part]:
        own = [row for row in rows if f"{getattr(row, part)}.".startswith(f"{version}.")]
        assert own, version
        assert [row for row in own if row.failed] == []

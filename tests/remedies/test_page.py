"""The page about troubles has every line that tests hold the product to."""

from __future__ import annotations

import re

from tests.remedies.lines import EXAMPLES, LINES
from tests.tools.boundaries import ROOT

PAGE = ROOT / "docs" / "how-to" / "troubleshooting.md"
SOURCES = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]


def shown() -> list[str]:
    """The lines in the page, each a block of its own in the first column."""
    tables = re.findall(r"(?m)^\| what you see \|.*\n((?:\|.*\n)+)", PAGE.read_text())
    rows = re.findall(r"(?m)^\| (.*?) \| .* \| .* \|$", "".join(tables))
    return [re.sub(r"^`` ?(.*?) ?``$|^`(.*)`$", r"\1\2", row) for row in rows]


def test_the_page_has_every_line_and_no_other() -> None:
    wanted = {template.format(**EXAMPLES) for template in LINES.values()}

    assert set(shown()) == wanted


def test_every_line_is_what_a_test_waits_for() -> None:
    unused = [name for name in LINES if not any(f'LINES["{name}"]' in text for text in SOURCES)]

    assert unused == []

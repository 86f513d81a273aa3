"""docs/reference/limits.md has the figures of the record, and the bounds of the code."""

from __future__ import annotations

import json
import re

from tests.limits.measures import MEASURES
from tests.tools.boundaries import ROOT
from tests.tools.document_limits import PAGE, RECORD, TABLES, document

PAGE_TEXT = (ROOT / PAGE).read_text()
RECORD_TEXT = (ROOT / RECORD).read_text()


def test_the_page_is_current() -> None:
    """`make docs` writes its tables."""
    assert document(PAGE_TEXT, RECORD_TEXT) == PAGE_TEXT


def test_what_can_be_measured_was_and_is_shown() -> None:
    steps = json.loads(RECORD_TEXT)["steps"]
    shown = set(re.findall(r"<!-- (\w+): written by", PAGE_TEXT))

    assert steps.keys() == MEASURES.keys() == TABLES.keys()
    assert shown == {*MEASURES, "machine", "bounds"}
    for name, measure in MEASURES.items():
        assert [step["size"] for step in steps[name]] == list(measure.sizes), name


def test_a_step_that_failed_is_shown_with_its_reason() -> None:
    record = json.loads(RECORD_TEXT)
    record["steps"]["teams"] = [{"size": 50, "load": 1.0, "failed": "TimeoutError: too long"}]

    assert "| 50 | TimeoutError: too long |" in document(PAGE_TEXT, json.dumps(record))

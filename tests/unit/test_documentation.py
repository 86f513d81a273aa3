"""The generated pages are those of this code."""

from __future__ import annotations

from tests.tools.boundaries import ROOT
from tests.tools.document_configuration import document


def test_the_configuration_page_is_current() -> None:
    """`make docs` writes it."""
    assert (ROOT / "docs/configuration.md").read_text() == document()

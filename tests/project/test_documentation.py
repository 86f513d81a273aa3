"""The generated pages are those of this code."""

from __future__ import annotations

import ast
import re

from tests.tools import (
    document_commands,
    document_events,
    document_metrics,
    document_permissions,
)
from tests.tools.boundaries import ROOT, modules
from tests.tools.document_configuration import document


def test_the_configuration_page_is_current() -> None:
    """`make docs` writes it."""
    assert (ROOT / "docs/reference/configuration.md").read_text() == document()


def test_the_page_of_permissions_is_current() -> None:
    assert (ROOT / "docs/reference/permissions.md").read_text() == document_permissions.document()


def test_the_page_of_commands_is_current() -> None:
    assert (ROOT / "docs/reference/commands.md").read_text() == document_commands.document()


def test_the_page_of_metrics_is_current() -> None:
    assert (ROOT / "docs/reference/metrics.md").read_text() == document_metrics.document()


def test_the_page_of_events_is_current() -> None:
    assert (ROOT / "docs/reference/events.md").read_text() == document_events.document()


def test_every_event_comes_from_the_table() -> None:
    """A name that is written in its place would be missing in the page."""
    events = [
        (module.name, ast.unparse(keyword.value))
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] in {"Log", "log_task_event"}
        for keyword in node.keywords
        if keyword.arg == "event"
    ]

    assert len(events) >= 7
    names = r"(SAID|WAITS|BY_ORDER\[.+\])\.name|order_event\(action\.command\)"
    assert [found for found in events if not re.fullmatch(names, found[1])] == [
        ("nats_executor.scheduler.compat", "event")  # which passes a caller's on
    ]


def test_every_test_that_a_page_names_is_there() -> None:
    text = "".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    named = set(re.findall(r"`(test_\w+)`", text))
    files = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    defined = {name for source in files for name in re.findall(r"def (test_\w+)\(", source)}

    assert len(named) > 40
    assert named - defined == set()

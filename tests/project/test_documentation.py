"""The generated pages are those of this code."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess

from nats_executor.wire.names import Names
from tests.tools import (
    document_commands,
    document_events,
    document_messages,
    document_metrics,
    document_permissions,
    document_subjects,
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


def test_the_page_of_messages_is_current() -> None:
    """A field that nothing is said of has no row: the page cannot be made."""
    assert (ROOT / "docs/reference/messages.md").read_text() == document_messages.document()


def test_the_page_has_every_message() -> None:
    """Each class of `wire` that something encodes or decodes, or that is a part of one."""
    wire = [module for module in modules() if module.name.startswith("nats_executor.wire.")]
    classes = {
        node.name
        for module in wire
        for node in module.tree.body
        if isinstance(node, ast.ClassDef)
        and any("dataclass" in ast.unparse(each) for each in node.decorator_list)
    }

    # Parts of subjects, and of an entry in the form of NATS's object stores.
    others = {"Names", "Place", "Part", "Coordinates"}
    assert classes - others == {kind.__name__ for kind in document_messages.MESSAGES}


def test_the_page_of_subjects_is_current() -> None:
    assert (ROOT / "docs/reference/subjects.md").read_text() == document_subjects.document()


def test_the_page_has_every_subject() -> None:
    building = {
        name
        for name, method in vars(Names).items()
        if inspect.isfunction(method) and not name.startswith("_")
        for needed in [
            [p for p in inspect.signature(method).parameters.values() if p.name != "self"]
        ]
        if needed and needed[0].default is inspect.Parameter.empty
    }

    # The name of a consumer, patterns of several subjects, and the names of another team.
    others = {"consumer", "task_anywhere", "log_parts", "for_team"}
    assert building - others == set(document_subjects.DESCRIBED)


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


def test_every_page_that_a_file_names_is_there() -> None:
    """Pages have moved: a path of before leads nowhere."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    kinds = {".py", ".md", ".toml", ".yaml", ".yml", ".conf", ".json", ".sh", ".js", ".txt", ""}
    named = {
        (file, page)
        for file in filter(None, tracked)
        if (path := ROOT / file).suffix in kinds and path.is_file()
        for page in re.findall(r"(?<![\w/.-])docs/[\w/-]+\.md", path.read_text(errors="replace"))
    }

    assert len(named) > 50
    assert [found for found in sorted(named) if not (ROOT / found[1]).exists()] == []


def test_every_test_that_a_page_names_is_there() -> None:
    text = "".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    named = set(re.findall(r"`(test_\w+)`", text))
    files = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    defined = {name for source in files for name in re.findall(r"def (test_\w+)\(", source)}

    assert len(named) > 40
    assert named - defined == set()

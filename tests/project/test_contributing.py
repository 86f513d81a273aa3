"""CONTRIBUTING.md tells the truth: its map, its paths, and what its recipes say is noticed."""

from __future__ import annotations

import ast
import itertools
import re
from dataclasses import MISSING, fields, replace
from typing import Any, TypeGuard

import pytest

from nats_executor.cli import commands, definitions
from nats_executor.options import OPTIONS
from nats_executor.wire.fitting import fitted_presence, fitted_report
from nats_executor.wire.messages import Obeyed, Presence, Report, State, Workload
from nats_executor.wire.sizes import HEADERS_BYTES, PRESENCE_BYTES, REPORT_BYTES
from tests.tools.boundaries import ROOT, modules
from tests.tools.floors import FLOORS, STARTS_A_WORKER, imports, room

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
PACKAGES = ("nats_executor", "nats_worker")
WINGS = {
    f"{package}.{path.name}"
    for package in PACKAGES
    for path in (ROOT / package).iterdir()
    if (path / "__init__.py").exists()
}


# The map


def picture() -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Return the rooms that each box of the picture stands for, and the arrows between boxes."""
    boxes: dict[str, set[str]] = {}
    arrows: dict[str, set[str]] = {}
    package = ""
    for line in map(str.strip, PAGE.partition("```mermaid")[2].partition("```")[0].splitlines()):
        if line.startswith("subgraph"):
            package = line.partition("[")[2].rstrip("]")
            continue
        if "-->" not in line and not (package and re.match(r"\w+\[", line)):
            continue
        ends = [end.split(" & ") for end in line.split(" --> ")]
        for box in (box for end in ends for box in end):
            name, _, label = box.rstrip("]").partition("[")
            if label or name not in boxes:
                boxes[name] = {f"{package}.{part}" for part in (label or name).split(", ")}
        for tops, bottoms in itertools.pairwise(ends):
            for top in tops:
                arrows.setdefault(top.partition("[")[0], set()).update(
                    bottom.partition("[")[0] for bottom in bottoms
                )
    return boxes, arrows


def below(box: str, arrows: dict[str, set[str]]) -> set[str]:
    """Return the boxes that can be reached from one by arrows."""
    found: set[str] = set()
    ahead = [box]
    while ahead:
        new = arrows.get(ahead.pop(), set()) - found
        found |= new
        ahead += new
    return found


def test_the_picture_shows_every_wing_and_nothing_else() -> None:
    shown = set().union(*picture()[0].values())
    rooms = {name for floor in FLOORS for name in floor}

    assert WINGS - shown == set()
    assert shown - rooms == set()


def test_arrows_of_the_picture_go_down() -> None:
    boxes, arrows = picture()
    floor = {name: depth for depth, floor in enumerate(FLOORS) for name in floor}

    for top, bottoms in arrows.items():
        for bottom in bottoms:
            assert max(floor[n] for n in boxes[top]) < min(floor[n] for n in boxes[bottom]), (
                f"{top} --> {bottom}"
            )


def test_every_import_between_wings_follows_the_arrows() -> None:
    boxes, arrows = picture()
    box_of = {name: box for box, names in boxes.items() for name in names}
    reached = {box: below(box, arrows) for box in boxes}

    for name, imported in imports(modules()).items():
        for other in imported:
            top, bottom = box_of.get(room(name)), box_of.get(room(other))
            if top and bottom and top != bottom and (name, other) != STARTS_A_WORKER:
                assert bottom in reached[top], f"{name} imports {other}: no arrows lead there"


def rows(head: str) -> dict[str, str]:
    """Return the first column of a table and the rest of each row."""
    _, found, table = PAGE.partition(f"| {head} |")
    assert found, head
    lines = table.partition("\n\n")[0].splitlines()[2:]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_table_has_every_wing_and_where_to_start(package: str) -> None:
    table = rows(f"wing of `{package}`")
    named = {name for cell in table for name in re.findall(r"`([^`]+)`", cell)}

    assert {f"{package}.{name.rstrip('/')}" for name in named if name.endswith("/")} == {
        wing for wing in WINGS if wing.startswith(f"{package}.")
    }
    for cell, line in table.items():
        wing = re.findall(r"`(\w+)/`", cell)
        for module in re.findall(r"`(\w+\.py)`", line):
            assert (ROOT.joinpath(package, *wing) / module).exists(), line


def test_every_path_exists() -> None:
    named = re.findall(r"`([^`\s]+)`", PAGE) + re.findall(r"\]\(([^)#:]+)\)", PAGE)
    # What tests leave in `build/` is not in a fresh clone.
    top = {path.name for path in ROOT.iterdir()} - {"build"}
    paths = [name for name in named if name.partition("/")[0] in top and "*" not in name]

    assert len(paths) > 40
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_test_that_it_names_is_there() -> None:
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    defined = {name for source in sources for name in re.findall(r"def (test_\w+)\(", source)}
    named = set(re.findall(r"`(test_\w+)`", PAGE))

    assert len(named) >= 10
    assert named - defined == set()


def test_every_example_of_a_recipe_is_in_the_file_that_its_first_step_names() -> None:
    recipes = re.findall(r"\(example: `([\w. ]+)`\)\s+1\. (.*?)\n2\. ", PAGE, re.DOTALL)

    assert len(recipes) == 4
    for example, step in recipes:
        path = next(name for name in re.findall(r"`([^`\s]+)`", step) if "/" in name)
        word = example.rpartition(".")[2]
        assert re.search(rf"\b{word}\b", (ROOT / path).read_text()), f"no {example} in {path}"


def test_the_glossary_is_short() -> None:
    assert 10 <= len(rows("word")) <= 20


# What the recipes say is noticed


def test_every_option_is_used() -> None:
    """Outside the checks of its value, which are functions named `..._checks`."""
    read: set[str] = set()
    for module in modules():
        for node in module.tree.body:
            if not (isinstance(node, ast.FunctionDef) and node.name.endswith("_checks")):
                read |= {n.attr for n in ast.walk(node) if is_setting(n, module.name)}

    assert {option.name for option in OPTIONS} - read == set()


def is_setting(node: ast.AST, module: str) -> TypeGuard[ast.Attribute]:
    """Whether it reads an attribute of settings: other things have attributes of their names."""
    if not isinstance(node, ast.Attribute):
        return False
    match node.value:
        case ast.Name(id=owner) | ast.Attribute(attr=owner):
            own = {"self"} if module == "nats_executor.settings" else set()
            return owner in {"settings", "_settings", "s"} | own
    return False


def command_names(group: Any, words: tuple[str, ...] = ()) -> list[str]:
    found: list[str] = []
    for command in group:
        here = (*words, command.name)
        below = getattr(command, "subcommands", None)
        found += command_names(below, here) if below else [" ".join(here)]
    return found


def test_every_function_of_a_command_has_a_definition() -> None:
    defined = {
        re.sub("[- ]", "_", name.removeprefix("nats "))
        for name in command_names(definitions.get_nats_cli_commands())
    }

    assert set(commands.__all__) == defined


def test_a_page_names_every_command() -> None:
    """The list of all commands does not count: it names them by itself."""
    pages = set((ROOT / "docs").rglob("*.md")) - {ROOT / "docs/reference/commands.md"}
    text = "".join(path.read_text() for path in pages)

    for name in command_names(definitions.get_nats_cli_commands()):
        assert f"airflow {name}" in text


REPORT = Report(
    dispatch_id="d", queue="q", state=State.FAILED, kind="k", key=[], worker="w", worker_name="w"
)
PRESENCE = Presence(
    worker="w.1", name="w", host="h", pid=7, queues=["q"], concurrency=2, running=0,
    draining=False, started_at=0.0, at=0.0, version="1",
)  # fmt: skip
# Part of a subject, or compared with one, so that nothing may be cut off; or a worker's answer.
WHOLE = {"dispatch_id", "queue", "token", "state", "name", "lacks"}


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (message, field.name)
        for message in (REPORT, PRESENCE)
        for field in fields(message)
        if field.name not in WHOLE and not (message is PRESENCE and field.name == "worker")
        if str(field.type).startswith(("str", "list"))
    ],
)
def test_every_text_and_list_is_cut_where_it_is_too_large(message: Any, field: str) -> None:
    is_list = isinstance(getattr(message, field), list)
    large = replace(message, **{field: ["x" * 70_000] if is_list else "x" * 70_000})

    if message is REPORT:
        assert len(fitted_report(large)) <= REPORT_BYTES - HEADERS_BYTES
    else:
        assert len(fitted_presence(large)) <= PRESENCE_BYTES - HEADERS_BYTES


@pytest.mark.parametrize("kind", [Workload, Report, Presence, Obeyed])
def test_the_meaning_of_every_missing_field_is_written_down(kind: type[Any]) -> None:
    tests = (ROOT / "tests/wire/test_message_bounds.py").read_text()
    optional = {f.name for f in fields(kind) if f.default is not MISSING}

    assert [name for name in optional if not re.search(rf"\b{name}\b", tests)] == []

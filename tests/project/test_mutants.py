"""`make mutants`: its table and its explanations fit the code, and it tells what survives."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.tools.boundaries import ROOT, is_pure, modules
from tests.tools.mutants import TESTS, described, enclosing, explanations

SOURCE = """\
FIRST = 1

class Box:
    @property
    def size(self) -> int:
        return 1 + (
            2
        )

async def run() -> None:
    pass
"""


# It has no line that a mutant could change.
WITHOUT_MUTANTS = "nats_worker.delivery.observer"


def test_every_pure_module_has_tests_that_kill_its_mutants() -> None:
    pure = {module.name for module in modules() if is_pure(module.name)}
    wings = {name.rpartition(".")[0] for name in pure}
    listed = {path.removesuffix(".py").replace("/", ".") for path in TESTS}
    assert pure - wings - listed == {WITHOUT_MUTANTS}
    assert [path for path in TESTS if not (ROOT / path).is_file()] == []
    files = {file for tests in TESTS.values() for file in tests}
    assert [file for file in sorted(files) if not (ROOT / file).is_file()] == []


def test_every_explanation_is_about_a_line_that_is_there() -> None:
    """A line that has changed has other mutants: its explanation goes."""
    stale = [
        (path, name)
        for path, reasons in explanations().items()
        for name in reasons
        if was_of(name) not in " ".join((ROOT / path).read_text().split())
    ]
    assert stale == []
    assert all(reason for reasons in explanations().values() for reason in reasons.values())


def test_the_page_has_the_score_of_every_module() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| `(\S+)` \| (\d+) \| (\d+) \| (\d+) \| (\d+) % \|$", page, re.MULTILINE)

    assert [path for path, *_ in rows] == sorted(TESTS)
    for path, mutants, killed, explained, score in rows:
        assert int(explained) == len(explanations().get(path, {})), path
        assert (int(killed) + int(explained), score) == (int(mutants), "100"), path


def was_of(name: str) -> str:
    return name.partition("`")[2].partition("` -> `")[0]


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("FIRST = 1", "FIRST = 2", "`FIRST = 1` -> `FIRST = 2`"),
        ("1 + (", "1 - (", "Box.size: `return 1 + (` -> `return 1 - (`"),
        ("    @property\n", "", "Box.size: `@property` -> ``"),
        ("pass", "...", "run: `pass` -> `...`"),
    ],
)
def test_a_mutant_is_named_by_its_place_and_its_line(old: str, new: str, name: str) -> None:
    assert described(SOURCE, SOURCE.replace(old, new)).name == name


@pytest.mark.parametrize(
    ("line", "name"), [(1, ""), (3, "Box"), (4, "Box.size"), (7, "Box.size"), (10, "run")]
)
def test_a_line_lies_in_a_function_or_class(line: int, name: str) -> None:
    assert enclosing(SOURCE, line) == name


# In a process of its own: here the modules are loaded already.
RUN = """\
import sys
from tests.tools import mutants
path = "nats_executor/batches.py"
def made(path, source):
    loops = source.replace("for start in", "while True:\\n        pass\\n    for start in")
    worse = source.replace("start + size", "start - size")
    as_good = source.replace("len(items)", "len(items) + 0")
    codes = {"worse": worse, "as good": as_good, "endless": loops}
    return [mutants.Mutant(codes[name], "batches", name) for name in sys.argv[1:]]
mutants.mutants_of = made
mutants.LEAST_SECONDS, mutants.PATIENCE = (2.0 if "endless" in sys.argv else 120.0), 0
mutants.explanations = lambda: {path: {"batches: explained": "why"}}
sys.exit(mutants.main([path]))
"""


@pytest.mark.parametrize(
    ("faults", "code", "text"),
    [
        (["worse", "endless"], 0, "| 2 | 2 | 0 | 0 | 100 % |"),
        (["worse", "endless"], 0, "  (took longer than 2 s: batches: endless)\n"),
        (["worse", "as good"], 1, "  - batches: as good\n"),
    ],
)
def test_a_survivor_is_told_and_fails_the_run(faults: list[str], code: int, text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, *faults], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert text in done.stdout, done.stderr
    assert done.returncode == code

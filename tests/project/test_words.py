"""Words and forms of sentences that cost a reader a second reading are not used."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.tools.boundaries import ROOT, modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# What users and operators read, and the two packages. Tests are left out: they name logins and
# subjects by some of these words.
PLACES = (
    "nats_executor", "nats_worker", "docs", "deploy", "scripts", "Makefile", ".ci/run",
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md",
)  # fmt: skip
WORDS = re.compile(r"\b(nobody|whoever|somebody|anew)\b", re.IGNORECASE)
# They often follow a noun: "Workers that ..." is no verb with its object.
AFTER_A_NOUN = frozenset({"of", "that", "which", "and", "as"})


def texts(places: Iterable[str]) -> Iterator[tuple[Path, str]]:
    for place in places:
        path = ROOT / place
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                try:
                    yield file, file.read_text()
                except UnicodeDecodeError:  # a picture
                    continue


def uses(text: str) -> list[str]:
    """Return the lines that have one of the words, with their numbers."""
    lines = enumerate(text.splitlines(), 1)
    return [f"{number}: {line.strip()}" for number, line in lines if WORDS.search(line)]


def begins_with_a_verb(docstring: str) -> bool:
    """Whether the first word may be a verb in the third person, with its object behind it.

    It knows no grammar: the first word has to end in `s`, and the second one must not be one that
    often follows a noun. So "Errors in one screen." passes, although it has no verb, and some that
    have one are refused: "Reads and writes names." is to be "Reads names, and writes them." The
    rest of the docstring is not looked at.
    """
    first, second, *_ = [*docstring.split(), "", ""]
    return first.isalpha() and first.endswith("s") and second.strip(",.:;") not in AFTER_A_NOUN


def test_words_that_are_hard_to_read_are_not_used() -> None:
    read = list(texts(PLACES))
    found = [f"{path.relative_to(ROOT)}:{line}" for path, text in read for line in uses(text)]

    assert {path.relative_to(ROOT).parts[0] for path, _ in read} == {
        place.partition("/")[0] for place in PLACES
    }
    assert found == []


@pytest.mark.parametrize("line", ["Nobody reads it.", "x = 1  # made anew", "whoever-asks"])
def test_such_a_word_is_noticed(line: str) -> None:
    assert uses(f"first\n{line}\n") == [f"2: {line}"]
    assert uses("a new name, some bodies") == []


def test_a_modules_docstring_begins_with_a_verb() -> None:
    docstrings = {
        module.name: ast.get_docstring(module.tree) or ""
        for module in modules()
        if module.package != "airflow_nats_executor"
    }

    assert len(docstrings) > 100
    assert {name: text for name, text in docstrings.items() if not begins_with_a_verb(text)} == {}


@pytest.mark.parametrize(
    ("docstring", "is_one"),
    [
        ("Reads and writes names.", False),  # "Reads names, and writes them."
        ("Does once what each would do.", True),
        ("", False),
        ("Runs", True),
        ("Read names.", False),
        ("Names of queues.", False),
        ("Workers that are gone.", False),
        ("Streams, which are read.", False),
        ("Queues which are paused.", False),
        ("Streams and consumers.", False),
        ("What a worker says.", False),
        ("`nats-worker` runs.", False),
    ],
)
def test_a_first_word_is_judged(docstring: str, is_one: bool) -> None:
    assert begins_with_a_verb(docstring) == is_one

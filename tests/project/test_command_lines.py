"""Each command line in the pages and in `--help` is one that the real parsers take."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.tools.boundaries import ROOT
from tests.tools.command_parsers import below, command_parsers, plain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^ *```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?<![\w./`-])(?:airflow nats|nats-worker)(?= [\w'\"-]|$)")
INLINE = re.compile(r"`((?:airflow nats|nats-worker) [^`]+)`")
# Two spaces part an example from what is said of it.
REMARK = re.compile(r" {2,}(?=\S)|\s#\s")
ENDS = frozenset({"|", "||", "&&", ";", ">", ">>", "<", "&", ")", "2>", "2>&1"})


def code_of(path: Path) -> str:
    blocks = [block["text"] for block in BLOCK.finditer(path.read_text())]
    return "\n".join(blocks).replace("\\\n", " ")


def command_lines(text: str) -> Iterator[str]:
    """Yield each command line of a text, up to what a shell or a reader takes for its end."""
    for line in text.splitlines():
        if line.lstrip().startswith(("usage:", "#")):
            continue
        for found in COMMAND.finditer(line):
            yield REMARK.split(line[found.start() :], maxsplit=1)[0]


def words_of(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if word in ENDS:
            break
        words.append(word)
    return words


def command_of(words: list[str]) -> tuple[str, ...]:
    """Return the longest beginning that is a command or a group of them."""
    return max(
        (known for known in command_parsers() if tuple(words[: len(known)]) == known),
        key=len,
        default=(),
    )


def refusal(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what the parser says against a command line, '' if it takes it."""
    try:
        words = words_of(line)
    except ValueError as exc:
        return str(exc)
    known = command_of(words)
    parser = command_parsers()[known]
    if below(parser):
        return f"there is no {' '.join(words[: len(known) + 1])}"
    try:
        parser.parse_args(words[len(known) :])
    except SystemExit as exc:
        return "" if not exc.code else capsys.readouterr().err.strip().splitlines()[-1]
    return ""


def refused(text: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    found = {line: refusal(line, capsys) for line in command_lines(text)}
    return [f"{line}: {why}" for line, why in found.items() if why]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_line_of_a_page_is_understood(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(code_of(path), capsys) == []


def test_there_are_many_of_them() -> None:
    assert len({line for path in PAGES for line in command_lines(code_of(path))}) > 100


@pytest.mark.parametrize("words", list(command_parsers()), ids=" ".join)
def test_every_example_of_a_help_text_is_understood(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(plain(command_parsers()[words].epilog), capsys) == []


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    return {flag for found in parser._actions for flag in found.option_strings}


def unknown(text: str) -> list[str]:
    """Return what sentences name with an unknown verb or flag; arguments may be left out."""
    found = []
    for line in INLINE.findall(text):
        words = [word.rstrip(",") for word in line.split()]
        known = command_of(words)
        parser = command_parsers()[known]
        beyond = words[len(known) : len(known) + 1]
        is_verb = bool(below(parser)) and bool(beyond) and beyond[0].isalpha()
        named = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        if is_verb or not named <= flags_of(parser):
            found.append(line)
    return found


def test_every_command_that_a_sentence_names_is_there() -> None:
    sentences = [BLOCK.sub("", path.read_text()) for path in PAGES]
    helps = [plain(parser.epilog) for parser in command_parsers().values()]

    assert [line for text in (*sentences, *helps) for line in unknown(text)] == []
    assert unknown("Run `airflow nats queues halt gpu`, or `airflow nats check --all`.") == [
        "airflow nats queues halt gpu",
        "airflow nats check --all",
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("airflow nats queues pause gpu --for 2h", ""),
        ("$ airflow nats check   # all is well", ""),
        ("  airflow nats check -o json | jq '.[] | .queue'", ""),
        ("( set -a; . file; airflow nats setup )", ""),
        ("airflow nats queues pause gpu      until --it is resumed", ""),
        ("nats-worker -q default,gpu -c 4 && echo ended", ""),
        ("airflow nats queues halt gpu", "there is no airflow nats queues halt"),
        ("airflow nats queues pause", "required: QUEUE"),
        ("airflow nats queues pause gpu --until 9", "unrecognized arguments: --until 9"),
        ("airflow nats queues pause gpu --for ever", "ever"),
        ("nats-worker --colour", "unrecognized arguments: --colour"),
        ("airflow nats queues pause 'gpu", "No closing quotation"),
    ],
)
def test_a_command_line_is_held_against_the_parser(
    capsys: pytest.CaptureFixture[str], text: str, why: str
) -> None:
    assert list(command_lines(text))
    said = refused(text, capsys)
    assert why in said[0] if why else said == []

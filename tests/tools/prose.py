"""Finds sentences that cost a second reading: `python -m tests.tools.prose [FILES]`.

Without FILES it reads all that users and contributors read: the pages, the unreleased part of the
changelog, the descriptions of the options and every `--help`. Code is left out.

exit codes: 0 no finding; 1 findings, one a line; 2 a file cannot be read
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.cli.cli_config import GroupCommand
from markdown_it import MarkdownIt

from nats_executor.cli.definitions import get_nats_cli_commands
from nats_executor.options import OPTIONS
from tests.tools.boundaries import ROOT
from tests.tools.prose_rules import REMEDIES, broken, sentences

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow.cli.cli_config import CLICommand
    from markdown_it.token import Token

__all__ = ["Finding", "judge", "judge_commands", "judge_options", "judge_page", "main", "pages"]

MARKDOWN = MarkdownIt("commonmark").enable("table")
HEADS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
# A gap in a row of `--help`: a command and what it does, a column and what it means.
GAP = re.compile(r"\s{2,}")
# Airflow's help would take these brackets for markup.
ESCAPED = re.compile(r"\\+\[")


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence that breaks a rule."""

    place: str
    line: int
    rule: str
    sentence: str

    def __str__(self) -> str:
        where = f"{self.place}:{self.line}" if self.line else self.place
        return f"{where}: {self.rule}: {self.sentence}"


def judge(place: str, line: int, text: str) -> Iterator[Finding]:
    """Judge a paragraph; `line` is that of its first line, 0 where there are none."""
    for offset, sentence in sentences(text):
        at = line + text[:offset].count("\n") if line else 0
        for rule in broken(sentence):
            yield Finding(place, at, rule, sentence)


def judge_page(place: str, text: str) -> Iterator[Finding]:
    """Judge a page of Markdown: its paragraphs, lists, headings and the cells of its tables."""
    for token in MARKDOWN.parse(text):
        if token.type == "inline" and token.map:
            yield from judge(place, token.map[0] + 1, words_of(token))


def words_of(token: Token) -> str:
    """Return the text of a paragraph; code stays in backticks, a link's text in brackets."""
    shown = {"softbreak": "\n", "hardbreak": "\n", "link_open": "[", "link_close": "]"}
    parts = []
    for child in token.children or ():
        if child.type == "code_inline":
            parts.append(f"`{child.content}`")
        elif child.type in ("text", "image"):
            parts.append(child.content)
        else:
            parts.append(shown.get(child.type, ""))
    return "".join(parts)


def judge_options() -> Iterator[Finding]:
    """Judge the descriptions of all options."""
    for option in OPTIONS:
        yield from judge(f"the option {option.name}", 0, option.description)


def judge_commands() -> Iterator[Finding]:
    """Judge what `--help` of each command shows."""
    for name, command in commands("airflow nats", get_nats_cli_commands()[0]):
        texts = [command.help]
        if not isinstance(command, GroupCommand):
            texts += [str(arg.kwargs.get("help", "")) for arg in command.args]
            texts += paragraphs(command.epilog or "")
        for text in texts:
            yield from judge(f"{name} --help", 0, ESCAPED.sub("[", text))


def commands(name: str, command: CLICommand) -> Iterator[tuple[str, CLICommand]]:
    yield name, command
    if isinstance(command, GroupCommand):
        for below in command.subcommands:
            yield from commands(f"{name} {below.name}", below)


def paragraphs(epilog: str) -> Iterator[str]:
    """Yield the paragraphs of an epilog, and of the rows of its lists what they say."""
    lines: list[str] = []
    for line in epilog.splitlines():
        is_row = line.startswith("  ") and not line.startswith("     ")
        if lines and (is_row or not line.strip()):
            yield " ".join(lines)
            lines = []
        if is_row:
            _, _, said = GAP.sub("\n", line.strip()).partition("\n")
            lines = [said] if said else []
        elif line.strip():
            lines.append(line.strip())
    if lines:
        yield " ".join(lines)


def pages() -> list[Path]:
    """Return all pages that are judged; the one of commands is `--help`, which is judged itself."""
    found = set((ROOT / "docs").rglob("*.md")) - {ROOT / "docs/reference/commands.md"}
    return [*(ROOT / head for head in HEADS), *sorted(found)]


def prose_of(path: Path) -> str:
    """Read a page; of the changelog only the part that is not released yet."""
    text = path.read_text()
    if path.name != "CHANGELOG.md":
        return text
    head, *releases = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    return head + "".join(releases[:1])


def judge_pages(paths: Iterable[Path]) -> Iterator[Finding]:
    for path in paths:
        place = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        yield from judge_page(str(place), prose_of(path))


def main(arguments: list[str] | None = None) -> int:
    """Print what is found, and what to do about it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.tools.prose",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", metavar="FILES", nargs="*", type=lambda name: Path(name).resolve())
    files = parser.parse_args(arguments).files
    try:
        found = list(judge_pages(files or pages()))
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
        return 2
    if not files:
        found += [*judge_options(), *judge_commands()]
    for finding in found:
        sys.stdout.write(f"{finding}\n")
    for rule in dict.fromkeys(finding.rule for finding in found):
        sys.stderr.write(f"{rule}: {REMEDIES[rule]}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

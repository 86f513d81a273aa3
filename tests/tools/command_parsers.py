"""Finds the parser of each command, as Airflow and `nats-worker` make it."""

from __future__ import annotations

import argparse
import functools
from typing import TYPE_CHECKING

from airflow.cli.cli_parser import get_parser
from rich.text import Text

from nats_executor.cli.defining import unmarked
from nats_worker.cli import worker_parser

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["GROUP", "WORKER", "below", "command_parsers", "plain", "summaries"]

GROUP = ("airflow", "nats")
WORKER = ("nats-worker",)


@functools.cache
def command_parsers() -> dict[tuple[str, ...], argparse.ArgumentParser]:
    """Return each parser by the words of its command line, those of groups included."""
    airflow = below(get_parser())["nats"]
    return {WORKER: marked(worker_parser()), **dict(walk(airflow, GROUP))}


def marked(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Escape the texts of a parser that shows them as they are, so that `plain` suits them, too."""
    parser.epilog = unmarked(parser.epilog or "")
    for found in parser._actions:
        found.help = unmarked(found.help or "")
    return parser


def walk(
    parser: argparse.ArgumentParser, words: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    yield words, parser
    for name, inner in below(parser).items():
        yield from walk(inner, (*words, name))


def below(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of a group's commands."""
    for found in parser._actions:
        if isinstance(found, argparse._SubParsersAction):
            return dict(found.choices)
    return {}


def summaries(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return what a group says of each of its commands."""
    for found in parser._actions:
        if isinstance(found, argparse._SubParsersAction):
            return {choice.dest: plain(choice.help) for choice in found._choices_actions}
    return {}


def plain(text: str | None) -> str:
    """Return a text of a parser as Airflow shows it, without its markup."""
    return Text.from_markup(text or "", emoji=False).plain

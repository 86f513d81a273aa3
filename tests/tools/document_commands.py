"""Write docs/reference/commands.md from the parsers of the commands: `make docs`.

The page is the same whatever Python and terminal it is written with, which `--help` is not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.tools.command_parsers import WORKER, below, command_parsers, plain, summaries
from tests.tools.tables import cell, table

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["document"]

HEAD = """\
# Commands

Every command of `airflow nats` and `nats-worker`, with what its `--help` says. `make docs` writes
this page from the commands themselves.

`airflow nats` is there as soon as the package is installed, on every host with Airflow.
`nats-worker` starts a worker as `airflow nats worker` does. Each command reads the configuration
of the host on which you run it. Its answer goes to stdout, and all else to stderr, so that you can
pipe `-o json` into another program.
"""


def document() -> str:
    """Return the whole page."""
    parsers = command_parsers()
    commands = {words: parser for words, parser in parsers.items() if not below(parser)}
    texts = {
        (*words, name): text
        for words, parser in parsers.items()
        for name, text in summaries(parser).items()
    }
    texts[WORKER] = plain(parsers[WORKER].description).rstrip(".")
    order = [*(words for words in commands if words != WORKER), WORKER]
    rows = [(f"[`{' '.join(words)}`](#{'-'.join(words)})", texts[words]) for words in order]
    parts = ["\n".join(section(words, commands[words], texts[words])) for words in order]
    return "\n".join([HEAD, table(("command", "what it does"), rows), "", *parts])


def section(words: tuple[str, ...], parser: argparse.ArgumentParser, text: str) -> Iterator[str]:
    """Describe one command under a heading of its own, so that links can point at it."""
    arguments = [a for a in parser._actions if not isinstance(a, argparse._HelpAction)]
    yield f"## {' '.join(words)}\n"
    yield f"{text}.\n"
    yield f"```text\nusage: {' '.join([*words, *map(usage, by_place(arguments))])}\n```\n"
    rows = [(f"{cell(f'`{invocation(a)}`')}", cell(meaning(a))) for a in by_place(arguments)]
    if rows:
        yield table(("argument", "meaning"), rows) + "\n"
    if parser.epilog:
        yield f"```text\n{plain(parser.epilog).strip()}\n```\n"


def by_place(arguments: list[argparse.Action]) -> list[argparse.Action]:
    """Return the arguments with those first that stand at a place and have no flag."""
    return sorted(arguments, key=lambda argument: bool(argument.option_strings))


def usage(argument: argparse.Action) -> str:
    if not argument.option_strings:
        return value(argument)
    text = " ".join(filter(None, [argument.option_strings[0], value(argument)]))
    return text if argument.required else f"[{text}]"


def invocation(argument: argparse.Action) -> str:
    """Return all flags of an argument with its value, or the name of one without a flag."""
    return " ".join(filter(None, [", ".join(argument.option_strings), value(argument)]))


def value(argument: argparse.Action) -> str:
    if argument.nargs == 0:
        return ""
    name = name_of(argument)
    match argument.nargs:
        case "?":
            return f"[{name}]"
        case "*":
            return f"[{name} ...]"
        case "+":
            return f"{name} [{name} ...]"
    return name


def name_of(argument: argparse.Action) -> str:
    if isinstance(argument.metavar, str):
        return argument.metavar
    if argument.choices is not None:
        return "{" + ",".join(map(str, argument.choices)) + "}"
    return argument.dest.upper()


def meaning(argument: argparse.Action) -> str:
    return plain(argument.help) % vars(argument)


def main() -> None:
    Path(sys.argv[1]).write_text(document())


if __name__ == "__main__":
    main()

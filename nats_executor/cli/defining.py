"""Defines a command and the arguments that several commands have."""

from __future__ import annotations

import copy
import re

from airflow.cli.cli_config import (
    ARG_OUTPUT,
    ARG_VERBOSE,
    ActionCommand,
    Arg,
    lazy_load_command,
    positive_int,
)

from nats_executor.cli.durations import interval

__all__ = [
    "ARG_CONCURRENCY",
    "ARG_QUEUES",
    "ARG_QUEUE_PATTERNS",
    "ARG_TEAM",
    "ARG_WATCH",
    "LIST_ARGS",
    "action",
]

ARG_QUEUES = Arg(
    ("-q", "--queues"),
    help="Names of the queues, separated by commas; without it, [operators] default_queue. "
    "Put a name with a comma or outer spaces in double quotes: -q '\"a,b\",gpu'",
)
ARG_CONCURRENCY = Arg(
    ("-c", "--concurrency"),
    type=positive_int(allow_zero=False),
    help="Workloads that run at a time; without it, [nats_executor] worker_concurrency",
)
ARG_TEAM = Arg(
    ("-t", "--team-name"),
    help="Team whose section of the configuration to use ([core] multi_team)",
)


ARG_QUEUE_PATTERNS = Arg(
    ("-q", "--queue"),
    dest="queue_patterns",
    metavar="PATTERN",
    help="Only queues with a name like this, such as 'etl-*'; several with commas between",
)
ARG_SORT = Arg(("--sort",), metavar="COLUMN", help="Sort by this column of the list")
ARG_REVERSE = Arg(("--reverse",), action="store_true", help="Show the last row first")
ARG_WATCH = Arg(
    ("--watch",), type=interval, metavar="SECONDS", help="Look again every SECONDS, until Ctrl-C"
)
# Of each list.
LIST_ARGS = (ARG_SORT, ARG_REVERSE, ARG_WATCH, ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE)

# What rich takes for a tag, with the backslashes before it.
TAG = re.compile(r"(\\*)(\[[a-z#/@][^\[]*?\])")


def action(name: str, what: str, args: tuple[Arg, ...], epilog: str | None = None) -> ActionCommand:
    """Define a command whose function has its name, with `_` for `-` and spaces."""
    return ActionCommand(
        name=name.rpartition(" ")[2],
        help=unmarked(what),
        func=lazy_load_command(f"nats_executor.cli.commands.{re.sub('[- ]', '_', name)}"),
        args=[unmarked_arg(arg) for arg in args],
        epilog=unmarked(epilog) if epilog else None,
    )


def unmarked(text: str) -> str:
    """Escape square brackets for Airflow's help, which takes them for markup and drops them.

    `rich.markup.escape` does the same, but every `airflow` call would load it for that.
    """
    return TAG.sub(r"\1\1\\\2", text)


def unmarked_arg(arg: Arg) -> Arg:
    """Return an argument with its help escaped; the same one may be shown without markup, too."""
    text = arg.kwargs.get("help")
    if not isinstance(text, str):
        return arg
    escaped = copy.copy(arg)
    escaped.kwargs = arg.kwargs | {"help": unmarked(text)}
    return escaped

"""Defines a command and the arguments that several commands have."""

from __future__ import annotations

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
    "LIST_ARGS",
    "action",
]

ARG_QUEUES = Arg(
    ("-q", "--queues"),
    help="Names of the queues, separated by commas; without it [operators] default_queue. "
    "A name that has a comma or outer spaces stands in double quotes: -q '\"a,b\",gpu'",
)
ARG_CONCURRENCY = Arg(
    ("-c", "--concurrency"),
    type=positive_int(allow_zero=False),
    help="Workloads that run at a time; without it \\[nats_executor] worker_concurrency",
)
ARG_TEAM = Arg(
    ("-t", "--team-name"),
    help="Team whose section of the configuration to use (\\[core] multi_team)",
)


ARG_QUEUE_PATTERNS = Arg(
    ("-q", "--queue"),
    dest="queue_patterns",
    metavar="PATTERN",
    help="Only queues whose names match, such as 'etl-*', or one of several, separated by commas",
)
ARG_SORT = Arg(("--sort",), metavar="COLUMN", help="Sort by this column of the list")
ARG_REVERSE = Arg(("--reverse",), action="store_true", help="Show the last row first")
ARG_WATCH = Arg(
    ("--watch",), type=interval, metavar="SECONDS", help="Look again after so long, until Ctrl-C"
)
# Of each list.
LIST_ARGS = (ARG_SORT, ARG_REVERSE, ARG_WATCH, ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE)


def action(name: str, what: str, args: tuple[Arg, ...], epilog: str | None = None) -> ActionCommand:
    """Define a command whose function has its name, with `_` for `-` and spaces."""
    return ActionCommand(
        name=name.rpartition(" ")[2],
        help=what,
        func=lazy_load_command(f"nats_executor.cli.commands.{re.sub('[- ]', '_', name)}"),
        args=args,
        epilog=epilog,
    )

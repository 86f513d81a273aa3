"""Defines a command and the arguments that several commands have."""

from __future__ import annotations

import re

from airflow.cli.cli_config import ActionCommand, Arg, lazy_load_command, positive_int

__all__ = ["ARG_CONCURRENCY", "ARG_QUEUES", "ARG_TEAM", "action"]

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


def action(name: str, what: str, args: tuple[Arg, ...], epilog: str | None = None) -> ActionCommand:
    """Define a command whose function has its name, with `_` for `-` and spaces."""
    return ActionCommand(
        name=name.rpartition(" ")[2],
        help=what,
        func=lazy_load_command(f"nats_executor.cli.commands.{re.sub('[- ]', '_', name)}"),
        args=args,
        epilog=epilog,
    )

"""Defines the commands for dead letters."""

from __future__ import annotations

from airflow.cli.cli_config import (
    ARG_OUTPUT,
    ARG_VERBOSE,
    ARG_YES,
    Arg,
    GroupCommand,
    positive_int,
)

from nats_executor.cli.defining import ARG_TEAM, action
from nats_executor.cli.durations import duration

__all__ = ["dead_letters_commands"]

ARG_LETTERS_QUEUE = Arg(("-q", "--queue"), help="Only letters of this queue")
ARG_DAG = Arg(("--dag",), help="Only letters of this Dag's tasks")
ARG_OLDER_THAN = Arg(
    ("--older-than",),
    metavar="TIME",
    type=duration,
    default=0.0,
    help="Only letters of at least this age: 90s, 30m, 2h, 1d or 1h30m",
)
ARG_MOST = Arg(
    ("--limit",),
    metavar="N",
    type=positive_int(allow_zero=False),
    help="At most the newest N; without it, 100 for a list and 10000 for other commands",
)
ARG_DRY_RUN = Arg(("--dry-run",), action="store_true", help="Change nothing; say what would happen")
ARG_SEQUENCE = Arg(
    ("sequence",),
    metavar="SEQUENCE",
    type=positive_int(allow_zero=False),
    help="Number of the letter, as in `airflow nats dead-letters list`",
)
ARG_SEQUENCES = Arg(
    ("sequences",),
    metavar="SEQUENCE",
    nargs="*",
    type=positive_int(allow_zero=False),
    help="Numbers of letters as in `airflow nats dead-letters list`; without them, all letters "
    "that the other options choose",
)
FILTERS = (ARG_LETTERS_QUEUE, ARG_DAG, ARG_OLDER_THAN, ARG_MOST)
WORKING = (ARG_SEQUENCES, *FILTERS, ARG_DRY_RUN, ARG_YES, ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE)

LIST_EPILOG = """\
examples:
  airflow nats dead-letters list                             the newest 100
  airflow nats dead-letters list -q gpu --older-than 1d
  airflow nats dead-letters list --dag etl --limit 1000 -o json

A dead letter is a workload that no worker could handle. Its task failed in Airflow with the same
reason. `-` (null in JSON) stands for a value that cannot be read, and for a missing map index.

It needs a NATS user of the role operator.

exit codes:
  0  listed
  2  the command was refused, or NATS did not answer
"""

SHOW_EPILOG = """\
examples:
  airflow nats dead-letters show 17
  airflow nats dead-letters show 17 -o yaml

The command prints all that NATS has of the letter, but neither its body nor a token.

It needs a NATS user of the role operator.

exit codes:
  0  shown
  2  no letter has that number, the command was refused, or NATS did not answer
"""

RETRY_EPILOG = """\
examples:
  airflow nats dead-letters retry 17                   the task of one letter
  airflow nats dead-letters retry --dag etl --dry-run  what would happen
  airflow nats dead-letters retry -q gpu --yes         without a question

The command clears the task instance in Airflow, and the tasks downstream that did not run because
of it. The scheduler then sends a new try, and the command removes the letter.

If the task instance is not failed any more, or is in another try, the command keeps the letter and
says why. It cannot retry callbacks and connection tests.

It needs Airflow's database, and a NATS user of the role operator.

exit codes:
  0  all letters are retried; --dry-run
  1  you did not confirm, or some letters are not retried
  2  the command was refused, or NATS or the database did not answer
"""

PURGE_LETTERS_EPILOG = """\
examples:
  airflow nats dead-letters purge 17 18
  airflow nats dead-letters purge --older-than 2d --dry-run   what would go
  airflow nats dead-letters purge --dag etl --yes             without a question

The command says how many letters it will remove, and asks. It runs nothing again. To empty the
whole stream at once, use `airflow nats purge dead-letters`.

It needs a NATS user of the role operator.

exit codes:
  0  removed; --dry-run
  1  you did not confirm
  2  the command was refused, or NATS did not answer
"""


def dead_letters_commands() -> GroupCommand:
    """Return the commands for dead letters."""
    subcommands = (
        action(
            "dead-letters list",
            "List workloads that no worker could handle",
            (*FILTERS, ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE),
            LIST_EPILOG,
        ),
        action(
            "dead-letters show",
            "Show all that NATS has of one letter",
            (ARG_SEQUENCE, ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE),
            SHOW_EPILOG,
        ),
        action(
            "dead-letters retry",
            "Have Airflow run tasks of dead letters again",
            WORKING,
            RETRY_EPILOG,
        ),
        action("dead-letters purge", "Remove dead letters", WORKING, PURGE_LETTERS_EPILOG),
    )
    return GroupCommand(
        name="dead-letters",
        help="Look at workloads that no worker could handle, retry or remove them",
        subcommands=subcommands,
    )

"""Defines the command for teams that come from Celery."""

from __future__ import annotations

from airflow.cli.cli_config import ARG_OUTPUT, ARG_VERBOSE, Arg, GroupCommand

from nats_executor.cli.defining import action

__all__ = ["migration_commands"]

ARG_FILES = Arg(
    ("--file",),
    dest="files",
    metavar="PATH",
    nargs="+",
    default=(),
    help="Files to look through as well: unit files, scripts, compose files, Helm values",
)

MIGRATE_CHECK_EPILOG = """\
examples:
  airflow nats migrate check                                        the configuration and the Dags
  airflow nats migrate check --file /etc/systemd/system/airflow-worker.service
  airflow nats migrate check --file compose.yaml values.yaml
  airflow nats migrate check -o json                                for scripts

Run it where the scheduler runs, with the scheduler's configuration. It changes nothing, asks no
broker and runs no Dag's code: it reads the Dags from Airflow's database. It prints no password.

columns:
  theirs   an option, a command or a value, as Celery has it
  value    what it is set to; `hidden` if it may be a secret
  change   what you do: same, set, drop or decide
  ours     the option or the command in its place
  note     why, or what to do

changes:
  same     it stays as it is
  set      use the option or the command in `ours`
  drop     leave it out; you miss nothing, and `ours` may name what you use now
  decide   nothing takes its place, or it works in another way

It needs Airflow's database, and no NATS user.

exit codes:
  0  nothing is left to decide
  1  something is left to decide
  2  a file or the database cannot be read
"""


def migration_commands() -> GroupCommand:
    """Return the group."""
    return GroupCommand(
        name="migrate",
        help="Come from Celery, or go back",
        subcommands=(
            action(
                "migrate check",
                "Print what becomes of each setting of Celery, and what is left to decide",
                (ARG_FILES, ARG_OUTPUT, ARG_VERBOSE),
                MIGRATE_CHECK_EPILOG,
            ),
        ),
    )

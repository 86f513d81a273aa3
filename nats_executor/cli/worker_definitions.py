"""Defines the command that starts a worker, and those for workers that run."""

from __future__ import annotations

from airflow.cli.cli_config import (
    ARG_DAEMON,
    ARG_LOG_FILE,
    ARG_PID,
    ARG_STDERR,
    ARG_STDOUT,
    ARG_VERBOSE,
    ActionCommand,
    Arg,
    GroupCommand,
    positive_int,
)

from nats_executor.cli.defining import (
    ARG_CONCURRENCY,
    ARG_QUEUE_PATTERNS,
    ARG_QUEUES,
    ARG_TEAM,
    LIST_ARGS,
    action,
)
from nats_executor.cli.durations import duration
from nats_executor.cli.fleet_definitions import fleet_commands

__all__ = ["WORKER_ARGS", "WORKER_EPILOG", "workers_commands"]

ARG_HOSTNAME = Arg(
    ("-H", "--hostname"),
    help="Name of the worker; without it, the host's name. Workers on one host need unlike names",
)
ARG_WORKER_NAMES = Arg(
    ("workers",),
    metavar="NAME",
    help="Names of workers as in `airflow nats workers list`, separated by commas",
)
ARG_DRAINED = Arg(
    ("workers",),
    metavar="NAME",
    nargs="?",
    help="Names of workers as in `airflow nats workers list`, separated by commas, or shell "
    "patterns such as 'etl-*'; without it, all that serve --queue",
)
ARG_OF_QUEUE = Arg(("-q", "--queue"), metavar="QUEUE", help="Only workers that serve this queue")
ARG_DRAIN_REASON = Arg(
    ("--reason",), default="", help="Reason, shown to all who see the worker; not secret"
)
ARG_WAIT = Arg(
    ("--wait",), action="store_true", help="Return only when nothing runs there any more"
)
ARG_TIMEOUT = Arg(
    ("--timeout",),
    metavar="TIME",
    type=duration,
    help="Longest time that --wait waits: 90s, 30m, 2h, 1d or 1h30m",
)
ARG_SERVING = Arg(
    ("--serving",),
    metavar="QUEUE",
    help="Only among workers of this queue, if workers of two queues have the same name",
)
ARG_NEW_CONCURRENCY = Arg(
    ("concurrency",),
    metavar="N",
    type=positive_int(allow_zero=False),
    help="Number of workloads that the worker runs at a time from now on",
)
ARG_QUEUE = Arg(("queue",), metavar="QUEUE", help="Name of the queue, any text as it is")
ARG_WORKER_PATTERNS = Arg(
    ("--worker",),
    dest="worker_patterns",
    metavar="PATTERN",
    help="Only workers with a name like this, such as 'etl-*'; several with commas between",
)
ARG_STATES = Arg(
    ("--state",), help="Only workers in this state; several states with commas between"
)

ARG_SERVE_LOGS = Arg(
    ("--serve-logs",),
    action="store_true",
    help="Serve logs over [logging] worker_log_server_port as well; the UI reads them over NATS",
)
ARG_NO_LOG_SERVER = Arg(
    ("-s", "--skip-serve-logs"),
    action="store_true",
    help="Does nothing: this is the default",
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
    ARG_SERVE_LOGS,
    ARG_NO_LOG_SERVER,
    ARG_VERBOSE,
)

WORKER_EPILOG = """\
examples:
  airflow nats worker                        the default queue, 16 slots
  airflow nats worker -q default,gpu -c 4    two queues, four slots for both
  airflow nats worker -q '"a,b",gpu'         two queues; one has a comma in its name
  airflow nats worker -H etl-2 -D            a second one on this host, in the background
  airflow nats worker --serve-logs           where the API server cannot reach NATS

The first SIGTERM or Ctrl-C drains: running tasks may go on for [nats_executor] drain_seconds.
A second one sends them SIGTERM, a third one SIGKILL. The worker still delivers state and logs.
"""

WORKERS_LIST_EPILOG = """\
examples:
  airflow nats workers list --state lost,paused        workers that need attention
  airflow nats workers list -q gpu --sort running      workers of a queue, idle ones first
  airflow nats workers list --watch 5                  again every 5 s

columns:
  state              running, draining, paused (takes nothing at the moment) or lost
  running            slots that its workloads hold, of `concurrency`
  last_seen_seconds  age of its record; it renews it every [nats_executor] heartbeat_seconds
  drained_by         who drained it; if empty, a draining worker stops
  reason             why it is drained or paused
  version            the worker's release of this project; `airflow` and `python` beside it
  differs            which of the three differ from this machine's; of Python, the first two
                     numbers count

It needs a NATS user of the role monitor or operator.

exit codes:
  0  listed
  2  NATS did not answer
"""

# Of every command that changes workers.
CHANGE = """\
The change lasts until the worker restarts. After a restart its command line and configuration
decide again. Running workloads go on.

It needs a NATS user of the role operator.
"""
UNTIL_RESTART = f"""\
{CHANGE}
exit codes:
  0  the workers have the new setting
  1  a worker refused or did not answer
  2  NATS did not answer
"""

SET_CONCURRENCY_EPILOG = f"""\
examples:
  airflow nats workers set-concurrency etl-1 32
  airflow nats workers set-concurrency etl-1,etl-2 4   takes nothing until fewer than 4 run

{UNTIL_RESTART}"""

ADD_QUEUE_EPILOG = f"""\
examples:
  airflow nats workers add-queue etl-1 backfill        the worker pulls from it at once
  airflow nats workers add-queue etl-1,etl-2 backfill

{UNTIL_RESTART}"""

REMOVE_QUEUE_EPILOG = f"""\
examples:
  airflow nats workers remove-queue etl-1 backfill     other workers take its workloads

A worker keeps its last queue. To have it take nothing, drain or stop it.
{CHANGE}
exit codes:
  0  the workers do not serve the queue any more
  1  a worker did not serve it, refused or did not answer
  2  NATS did not answer
"""

DRAIN_EPILOG = """\
examples:
  airflow nats workers drain etl-1 --reason 'new kernel'
  airflow nats workers drain etl-1 --wait --timeout 2h && ssh etl-1 reboot
  airflow nats workers drain 'etl-*',gpu-7                 patterns, in quotes for the shell
  airflow nats workers drain --queue gpu                   all that serve the queue

A drained worker takes no new workloads. Its running tasks go on, and the worker stays up. Lists
show it as draining. A restart does not end the drain: `airflow nats workers undrain` does.

--wait prints a line each time a task ends. Ctrl-C and --timeout end the wait, but not the drain.

It needs a NATS user of the role operator.

exit codes:
  0  the workers are drained; with --wait, nothing runs there
  1  a worker refused or did not answer, or --wait ended too early
  2  no worker has that name, or NATS did not answer
"""

UNDRAIN_EPILOG = """\
examples:
  airflow nats workers undrain etl-1
  airflow nats workers undrain 'etl-*'
  airflow nats workers undrain --queue gpu      all that serve it, or did when drained

You can undrain a worker that is stopped. It takes workloads when it starts again.

It needs a NATS user of the role operator.

exit codes:
  0  the workers are not drained
  1  a worker refused or did not answer
  2  no worker has that name, or NATS did not answer
"""


def workers_commands() -> GroupCommand:
    """Return the commands for workers that run."""
    common = (ARG_SERVING, ARG_TEAM, ARG_VERBOSE)
    subcommands = (
        action(
            "workers list",
            "List workers with their load",
            (ARG_WORKER_PATTERNS, ARG_QUEUE_PATTERNS, ARG_STATES, *LIST_ARGS),
            WORKERS_LIST_EPILOG,
        ),
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
            "Have a worker stop taking workloads from a queue",
            (ARG_WORKER_NAMES, ARG_QUEUE, *common),
            REMOVE_QUEUE_EPILOG,
        ),
        *drain_commands(),
        *fleet_commands(),
    )
    return GroupCommand(
        name="workers",
        help="Look at workers and change them while they run",
        subcommands=subcommands,
    )


def drain_commands() -> tuple[ActionCommand, ...]:
    """Return the commands that have workers take nothing more, and again."""
    which, common = (ARG_DRAINED, ARG_OF_QUEUE), (ARG_TEAM, ARG_VERBOSE)
    return (
        action(
            "workers drain",
            "Have a worker take no new workloads; running tasks go on",
            (*which, ARG_DRAIN_REASON, ARG_WAIT, ARG_TIMEOUT, *common),
            DRAIN_EPILOG,
        ),
        action(
            "workers undrain",
            "Have a drained worker take workloads again",
            (*which, *common),
            UNDRAIN_EPILOG,
        ),
    )

"""Defines the commands that print permissions and accounts."""

from __future__ import annotations

from airflow.cli.cli_config import ARG_VERBOSE, ActionCommand, Arg, positive_int

from nats_executor.cli.defining import ARG_QUEUES, ARG_TEAM, action

__all__ = ["accounts_command", "auth_command", "limits_command"]

# Those of `permissions.Role`, not loaded just to parse a command line.
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
    help="[nats_executor] inbox_prefix of the user's processes; without it _INBOX_ and the user",
)
ARG_CERTIFICATE = Arg(
    ("--certificate",),
    action="store_true",
    help="Users log in without a password: the name in their TLS certificate counts",
)
ARG_WORKER_USERS = Arg(
    ("worker_users",),
    nargs="*",
    metavar="USER=QUEUE",
    help="One NATS user for workers, and the queues that they serve, separated by commas",
)
ARG_SITES = Arg(
    ("--sites",),
    nargs="+",
    metavar="USER=QUEUE",
    help="NATS users of leaf nodes, and the queues that workers serve behind them",
)
ARG_MAX_TEAMS = Arg(
    ("--max-teams",),
    metavar="N",
    type=positive_int(allow_zero=True),
    default=20,
    help="Teams beside the global deployment ([core] multi_team; default: 20)",
)
ARG_MAX_QUEUES = Arg(
    ("--max-queues",),
    metavar="N",
    type=positive_int(allow_zero=False),
    default=1000,
    help="Queues that each team may have (default: 1000)",
)
ARG_FORMAT = Arg(
    ("--format",),
    choices=("config", "jwt"),
    default="config",
    help="A block for the server's configuration (default), or JSON for a user's JWT",
)

AUTH_EPILOG = """\
examples:
  airflow nats auth --user worker-gpu -q gpu                  a worker of one queue
  airflow nats auth --user scheduler --role scheduler
  airflow nats auth --user UDX...4K -q gpu --inbox-prefix _INBOX_gpu    with an NKey
  airflow nats auth --user worker-gpu -q gpu --format jwt     the `nats` claims, for operator mode

The command does not connect to NATS. Run it again after you add a queue, or change priority_bands
or queue_limits. Only the role admin may create and change streams, so run `airflow nats setup` as
such a user.

If deploy/nats/make-users made your users, run that again instead. This command prints workers for
a single account that all users share.
"""

ACCOUNTS_EPILOG = """\
examples:
  airflow nats accounts worker-gpu=gpu worker-etl=default,etl
  airflow nats accounts worker-gpu=gpu --format jwt     the `nats` claims, for operator mode
  airflow nats accounts worker-gpu=gpu --sites site-muc=press,weld
  airflow nats accounts worker-gpu=gpu --team-name red  users red-admin, red-worker-gpu and so on

It prints Airflow's account with the users admin, operator, scheduler, api-server, triggerer,
monitor and those of sites. Each worker user gets an account of its own, which borrows what it
needs. With --team-name it prints whole accounts of that team, which stand beside those of the
global deployment on the same servers. Their names begin with the team's.

The command does not connect to NATS. Run it again, with all workers, after you add a queue, or
change priority_bands or queue_limits.
"""

LIMITS_EPILOG = """\
examples:
  airflow nats limits                            room for 20 teams and 1000 queues of each
  airflow nats limits --max-teams 50 --max-queues 3000 > limits.conf

Prints the variables that deploy/nats/cluster.conf includes. It connects to nothing.
deploy/nats/make-users writes the same file. NATS takes changed limits with a reload; no server has
to be restarted. The figures follow from [nats_executor] replicas, storage, priority_bands and the
sizes of the streams.
"""


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
        ARG_WORKER_USERS, ARG_SITES, ARG_CERTIFICATE, ARG_FORMAT, ARG_MAX_QUEUES, ARG_TEAM,
        ARG_VERBOSE,
    )  # fmt: skip
    return action(
        "accounts", "Print NATS accounts, one for each worker user", which, ACCOUNTS_EPILOG
    )


def limits_command() -> ActionCommand:
    """Return the command that computes the limits of servers and accounts."""
    which = (ARG_MAX_TEAMS, ARG_MAX_QUEUES, ARG_TEAM, ARG_VERBOSE)
    what = "Print the limits of NATS for a number of teams and queues"
    return action("limits", what, which, LIMITS_EPILOG)

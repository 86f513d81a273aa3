"""Defines the commands that cancel tasks."""

from __future__ import annotations

from airflow.cli.cli_config import (
    ARG_OUTPUT,
    ARG_VERBOSE,
    ARG_YES,
    ActionCommand,
    Arg,
    GroupCommand,
)

from nats_executor.cli.defining import ARG_TEAM, action
from nats_executor.cli.durations import duration

__all__ = ["delete_queue_command", "purge_queue_command", "tasks_commands"]

ARG_CANCEL_DAG = Arg(("--dag",), help="Only tasks of this Dag")
ARG_RUN = Arg(("--run",), metavar="RUN", help="Only tasks of this run, by its id")
ARG_TASK = Arg(("--task",), metavar="TASK", help="Only task instances of this task, by its id")
ARG_ONLY_INDEX = Arg(
    ("--map-index",), metavar="N", type=int, help="Only this index of mapped tasks"
)
ARG_CANCEL_QUEUE = Arg(("-q", "--queue"), help="Only tasks of this queue")
ARG_STATE = Arg(
    ("--state",), choices=("queued", "running"), help="Only tasks that wait, or that run"
)
ARG_QUEUED_LONGER = Arg(
    ("--older-than",),
    metavar="TIME",
    type=duration,
    help="Only tasks that wait, or run, for at least so long: 90s, 30m, 2h, 1d or 1h30m",
)
ARG_CANCEL_REASON = Arg(("--reason",), default="", help="Why, for Airflow's audit log; not secret")
ARG_LIST_ONLY = Arg(("--dry-run",), action="store_true", help="Change nothing; list the tasks")
ARG_WHETHER = Arg(
    ("--dry-run",), action="store_true", help="Change nothing; say whether it is possible"
)
ARG_NO_WAIT = Arg(
    ("--no-wait",), action="store_true", help="Do not wait until their messages are gone"
)
ARG_GONE_WITHIN = Arg(
    ("--timeout",),
    metavar="TIME",
    type=duration,
    default=60.0,
    help="How long to wait for that at most: 90s, 30m, 2h, 1d or 1h30m (default: 60s)",
)
ARG_PURGED = Arg(("queue",), metavar="QUEUE", help="Name of the queue, any text as it is")
CONFIRMED = (
    ARG_CANCEL_REASON, ARG_LIST_ONLY, ARG_NO_WAIT, ARG_GONE_WITHIN, ARG_YES, ARG_TEAM, ARG_OUTPUT,
    ARG_VERBOSE,
)  # fmt: skip

CANCEL_EPILOG = """\
examples:
  airflow nats tasks cancel --dag etl --run manual__2026-01-01 --dry-run   list them
  airflow nats tasks cancel --dag etl --task load --reason 'wrong input'
  airflow nats tasks cancel -q gpu --state queued --older-than 2h --yes    without a question

At least one filter is required. Each task instance becomes failed in Airflow, with a line in its
audit log, and Airflow does not try it again. A scheduler then removes the messages of those that
wait, and the command waits for that. A task that runs is ended by its next heartbeat to Airflow.
Only tasks whose messages NATS has are found: none of another executor.

It needs Airflow's database, and a NATS user of the role monitor or operator.

columns:
  cancelled          task instances that are failed now
  changed_meanwhile  those that began, ended or were queued again before they could be

exit codes: 0 all are cancelled and their messages gone, or nothing was found, or --dry-run; 1 not
confirmed, some changed meanwhile, or messages are left after --timeout; 2 refused, or NATS or the
database does not answer
"""

PURGE_QUEUE_EPILOG = """\
examples:
  airflow nats queues purge gpu --dry-run              list the tasks that wait
  airflow nats queues purge gpu --reason 'gone for good'
  airflow nats queues purge gpu --dag etl --older-than 1d --yes

It fails the tasks that wait in the queue, as `airflow nats tasks cancel` does. What runs goes on,
and so do callbacks and connection tests. To keep the tasks: `airflow nats queues pause`

It needs Airflow's database, and a NATS user of the role monitor or operator.

exit codes: 0 all are cancelled and their messages gone, or nothing waits, or --dry-run; 1 not
confirmed, some began meanwhile, or messages are left after --timeout; 2 no queue has that name,
refused, or NATS or the database does not answer
"""

DELETE_QUEUE_EPILOG = """\
examples:
  airflow nats queues delete gpu
  airflow nats queues delete gpu --dry-run     say whether that is possible
  airflow nats queues delete gpu --yes         without a question

It removes the queue's consumers in NATS and the note of its pause. It refuses while workloads wait
or run there, and while a worker serves it. A task that is sent to the queue later makes it again.

It needs a NATS user of the role admin.

exit codes: 0 deleted, or --dry-run; 1 not confirmed, or it is in use; 2 no queue has that name,
refused, or NATS does not answer
"""


def tasks_commands() -> GroupCommand:
    """Return the commands for tasks."""
    which = (
        ARG_CANCEL_DAG, ARG_RUN, ARG_TASK, ARG_ONLY_INDEX, ARG_CANCEL_QUEUE, ARG_STATE,
        ARG_QUEUED_LONGER,
    )  # fmt: skip
    what = "Fail tasks that wait or run, without another try"
    cancel = action("tasks cancel", what, (*which, *CONFIRMED), CANCEL_EPILOG)
    return GroupCommand(name="tasks", help="Cancel tasks that wait or run", subcommands=(cancel,))


def purge_queue_command() -> ActionCommand:
    """Return the command that empties a queue."""
    which = (ARG_PURGED, ARG_CANCEL_DAG, ARG_QUEUED_LONGER, *CONFIRMED)
    return action("queues purge", "Fail the tasks that wait in a queue", which, PURGE_QUEUE_EPILOG)


def delete_queue_command() -> ActionCommand:
    """Return the command that removes an unused queue."""
    which = (ARG_PURGED, ARG_WHETHER, ARG_YES, ARG_TEAM, ARG_VERBOSE)
    return action("queues delete", "Delete a queue that is empty", which, DELETE_QUEUE_EPILOG)

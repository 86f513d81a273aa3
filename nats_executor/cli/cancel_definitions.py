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
    help="Only tasks that have waited or run at least this long: 90s, 30m, 2h, 1d or 1h30m",
)
ARG_CANCEL_REASON = Arg(
    ("--reason",), default="", help="Reason, for Airflow's audit log; not secret"
)
ARG_LIST_ONLY = Arg(("--dry-run",), action="store_true", help="Change nothing; list the tasks")
ARG_WHETHER = Arg(
    ("--dry-run",), action="store_true", help="Change nothing; say if the queue could be deleted"
)
ARG_NO_WAIT = Arg(
    ("--no-wait",), action="store_true", help="Do not wait until their messages are gone"
)
ARG_GONE_WITHIN = Arg(
    ("--timeout",),
    metavar="TIME",
    type=duration,
    default=60.0,
    help="Longest time to wait for that: 90s, 30m, 2h, 1d or 1h30m (default: 60s)",
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

Give at least one filter. The command sets each task instance to failed in Airflow and writes a line
into its audit log. Airflow does not try it again.

If a task waits, a scheduler removes its message, and the command waits for that. If a task runs, it
ends at its next heartbeat to Airflow. The command only finds tasks that have a message in NATS, so
none of another executor.

It needs Airflow's database, and a NATS user of the role monitor or operator.

columns:
  cancelled          task instances that are failed now
  changed_meanwhile  task instances that began, ended or were queued again in the meantime

exit codes:
  0  all tasks are cancelled and their messages gone, or none was found, or --dry-run
  1  you did not confirm, some tasks changed meanwhile, or messages are left after --timeout
  2  the command was refused, or NATS or the database did not answer
"""

PURGE_QUEUE_EPILOG = """\
examples:
  airflow nats queues purge gpu --dry-run              list the tasks that wait
  airflow nats queues purge gpu --reason 'gone for good'
  airflow nats queues purge gpu --dag etl --older-than 1d --yes

The command fails the tasks that wait in the queue, as `airflow nats tasks cancel` does. Running
tasks, callbacks and connection tests go on. To keep the tasks, use `airflow nats queues pause`.

It needs Airflow's database, and a NATS user of the role monitor or operator.

exit codes:
  0  all tasks are cancelled and their messages gone, or nothing waits, or --dry-run
  1  you did not confirm, some tasks began meanwhile, or messages are left after --timeout
  2  no queue has that name, the command was refused, or NATS or the database did not answer
"""

DELETE_QUEUE_EPILOG = """\
examples:
  airflow nats queues delete gpu
  airflow nats queues delete gpu --dry-run     say if the queue could be deleted
  airflow nats queues delete gpu --yes         without a question

The command removes the queue's consumers in NATS, and its pause. It refuses while workloads wait or
run in the queue, and while a worker serves it. A later task for the queue creates it again.

It needs a NATS user of the role admin.

exit codes:
  0  the queue is deleted; --dry-run
  1  you did not confirm, or the queue is in use
  2  no queue has that name, the command was refused, or NATS did not answer
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

"""Defines the commands for queues."""

from __future__ import annotations

from airflow.cli.cli_config import ARG_OUTPUT, ARG_VERBOSE, Arg, GroupCommand, positive_int

from nats_executor.cli.cancel_definitions import delete_queue_command, purge_queue_command
from nats_executor.cli.defining import ARG_QUEUE_PATTERNS, ARG_TEAM, LIST_ARGS, action
from nats_executor.cli.durations import duration

__all__ = ["queues_commands"]

ARG_PAUSED_QUEUES = Arg(
    ("paused_queues",),
    metavar="QUEUE",
    help="Names of queues as in `airflow nats queues list`, separated by commas",
)
ARG_ONE_QUEUE = Arg(("queue",), metavar="QUEUE", help="Name of the queue, any text as it is")
ARG_LIMIT = Arg(
    ("--limit",),
    type=positive_int(allow_zero=False),
    default=20,
    help="Most tasks to list (default: 20)",
)
ARG_DURATION = Arg(
    ("--for",),
    dest="duration",
    metavar="TIME",
    type=duration,
    help="Length of the pause: 90s, 30m, 2h, 1d or 1h30m; without it, until you resume the queue",
)
ARG_REASON = Arg(
    ("--reason",), default="", help="Reason, shown to all who see the queue; not secret"
)
QUEUES_LIST_EPILOG = """\
examples:
  airflow nats queues list --sort pending --reverse    the longest backlog first
  airflow nats queues list -q 'etl-*' --watch 2        again every 2 s
  airflow nats queues list -o json | jq '.[] | select(.workers == 0)'

columns:
  pending              workloads that wait; no worker has them
  pending_by_band      the same for each priority band, the lowest band first
  in_flight            workloads that workers have and that have not ended
  redelivered          of those, workloads that NATS gave to more than one worker
  in_per_s, out_per_s  workloads a second that arrived, and that workers took; only with --watch,
                       from the second look on
  workers, slots       living workers that serve the queue, and workloads that they run at a time
  paused_until         end of its pause, who paused it, and why

It needs a NATS user of the role monitor or operator.

exit codes:
  0  listed
  2  NATS did not answer
"""

QUEUES_PAUSE_EPILOG = """\
examples:
  airflow nats queues pause gpu                                  until it is resumed
  airflow nats queues pause gpu,etl --for 2h --reason 'new driver'
  airflow nats queues pause '"a,b"'                              a name with a comma in it

NATS delivers nothing from a paused queue. Running tasks go on, schedulers send more, and no task
loses a try. The pause lasts through restarts of all parts. If you pause the queue again, the new
time and reason count.

It needs a NATS user of the role operator.

exit codes:
  0  paused
  2  the command was refused, or NATS did not answer
"""

QUEUES_SHOW_EPILOG = """\
examples:
  airflow nats queues show gpu
  airflow nats queues show gpu -o json | jq '.[0].workers'

It takes a second, to measure the rates. Columns beside those of `queues list`:
  slots_in_use       slots with workloads of any queue, on the workers that serve this queue
  limit              its limit in [nats_executor] queue_limits, if there is one
  unserved_bands     priority bands that no living worker takes; give workers the same
                     priority_bands as the schedulers
  oldest_seconds     longest wait of a workload at the last full minute, as its scheduler counts; -
                     if nothing waits
  ..._last_hour      most workloads that waited, workloads that started (if their wait is known)
                     and workloads that ended
  mean_wait_seconds  mean time from sending to the start, of those that started in the last hour

It needs a NATS user of the role monitor or operator.

exit codes:
  0  shown
  2  no queue has that name, or NATS did not answer
"""

QUEUES_PEEK_EPILOG = """\
examples:
  airflow nats queues peek gpu
  airflow nats queues peek gpu --limit 1000 -o json

The list has the order that workers follow: the highest priority band first, and in each band the
task that Airflow queued first. It may still have a task that a worker has just taken. It has no
callbacks and no connection tests.

It needs Airflow's database, and a NATS user of the role monitor or operator.

exit codes:
  0  listed
  2  no queue has that name, or NATS did not answer
"""

QUEUES_RESUME_EPILOG = """\
examples:
  airflow nats queues resume gpu
  airflow nats queues resume gpu,etl      a queue that was not paused stays as it is

It needs a NATS user of the role operator.

exit codes:
  0  the queue is not paused
  2  the command was refused, or NATS did not answer
"""


def queues_commands() -> GroupCommand:
    """Return the commands for queues."""
    subcommands = (
        action(
            "queues list",
            "List queues with their backlog",
            (ARG_QUEUE_PATTERNS, *LIST_ARGS),
            QUEUES_LIST_EPILOG,
        ),
        action(
            "queues show",
            "Describe one queue in full",
            (ARG_ONE_QUEUE, ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE),
            QUEUES_SHOW_EPILOG,
        ),
        action(
            "queues peek",
            "List the tasks that wait in a queue, the next one first",
            (ARG_ONE_QUEUE, ARG_LIMIT, ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE),
            QUEUES_PEEK_EPILOG,
        ),
        action(
            "queues pause",
            "Stop the delivery of a queue's workloads to workers",
            (ARG_PAUSED_QUEUES, ARG_DURATION, ARG_REASON, ARG_TEAM, ARG_VERBOSE),
            QUEUES_PAUSE_EPILOG,
        ),
        action(
            "queues resume",
            "Start the delivery of a paused queue again",
            (ARG_PAUSED_QUEUES, ARG_TEAM, ARG_VERBOSE),
            QUEUES_RESUME_EPILOG,
        ),
        purge_queue_command(),
        delete_queue_command(),
    )
    return GroupCommand(
        name="queues", help="Look at queues, pause and empty them", subcommands=subcommands
    )

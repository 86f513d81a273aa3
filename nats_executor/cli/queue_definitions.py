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
    help="Name of the queue as in `airflow nats queues list`, or several, separated by commas",
)
ARG_ONE_QUEUE = Arg(("queue",), metavar="QUEUE", help="Name of the queue, any text as it is")
ARG_LIMIT = Arg(
    ("--limit",),
    type=positive_int(allow_zero=False),
    default=20,
    help="How many tasks to list at most (default: 20)",
)
ARG_DURATION = Arg(
    ("--for",),
    dest="duration",
    metavar="TIME",
    type=duration,
    help="How long: 90s, 30m, 2h, 1d or 1h30m; without it until the queue is resumed",
)
ARG_REASON = Arg(
    ("--reason",), default="", help="Why, for everyone who finds the queue paused; not secret"
)
QUEUES_LIST_EPILOG = """\
examples:
  airflow nats queues list --sort pending --reverse    the longest backlog first
  airflow nats queues list -q 'etl-*' --watch 2        again every 2 s
  airflow nats queues list -o json | jq '.[] | select(.workers == 0)'

columns:
  pending          workloads that no worker has been given
  pending_by_band  of those, how many in each priority band, the lowest one first
  in_flight        workloads that workers have been given and that are not over
  redelivered      of those, the ones that were given to more than one
  in_per_s, out_per_s  workloads a second that came, and that workers were given; of --watch only,
                   from the second look on
  workers, slots   living workers that serve it, and how much they run at a time
  paused_until     when its pause ends, by whom it was paused, and why

exit codes: 0 listed; 2 NATS does not answer
"""

QUEUES_PAUSE_EPILOG = """\
examples:
  airflow nats queues pause gpu                                  until it is resumed
  airflow nats queues pause gpu,etl --for 2h --reason 'new driver'
  airflow nats queues pause '"a,b"'                              a name with a comma in it

NATS delivers nothing from a paused queue. Running tasks go on, schedulers keep sending, and no try
is spent. The pause outlives restarts of everything. Asked again, the new time and reason count.

It needs a NATS user of the role operator.

exit codes: 0 paused; 2 refused, or NATS does not answer
"""

QUEUES_SHOW_EPILOG = """\
examples:
  airflow nats queues show gpu
  airflow nats queues show gpu -o json | jq '.[0].workers'

beside the columns of `queues list`, whose rates it finds in a second:
  slots_in_use    of the slots of the workers that serve it, those with workloads, of any queue
  limit           of [nats_executor] queue_limits, none without
  unserved_bands  priority bands that no living worker takes; then set priority_bands there, too
  oldest_seconds  for how long the one that waits longest had waited at the last full minute, as
                  its scheduler counts; - if nothing waits
  ..._last_hour   the most that waited; how many workloads started, of those whose wait is known;
                  how many ended
  mean_wait_seconds  from sending to the start, of those that started in the last hour

exit codes: 0 shown; 2 no queue has that name, or NATS does not answer
"""

QUEUES_PEEK_EPILOG = """\
examples:
  airflow nats queues peek gpu
  airflow nats queues peek gpu --limit 1000 -o json

Lists tasks in the order in which workers take them: the highest priority band first, then what
Airflow queued first. Run it where Airflow's database can be reached. A task that a worker has taken
this moment may still be listed; callbacks and connection tests are not.

It needs a NATS user of the role monitor or operator.

exit codes: 0 listed; 2 no queue has that name, or NATS does not answer
"""

QUEUES_RESUME_EPILOG = """\
examples:
  airflow nats queues resume gpu
  airflow nats queues resume gpu,etl      one that was not paused stays as it is

It needs a NATS user of the role operator.

exit codes: 0 not paused any more; 2 refused, or NATS does not answer
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
            "Keep what waits in a queue from its workers",
            (ARG_PAUSED_QUEUES, ARG_DURATION, ARG_REASON, ARG_TEAM, ARG_VERBOSE),
            QUEUES_PAUSE_EPILOG,
        ),
        action(
            "queues resume",
            "Let a paused queue go on",
            (ARG_PAUSED_QUEUES, ARG_TEAM, ARG_VERBOSE),
            QUEUES_RESUME_EPILOG,
        ),
        purge_queue_command(),
        delete_queue_command(),
    )
    return GroupCommand(
        name="queues", help="Look at queues, pause and empty them", subcommands=subcommands
    )

"""Defines the commands that ask running workers, and those that have them go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.cli.cli_config import ARG_OUTPUT, ARG_VERBOSE, Arg

from nats_executor.cli.defining import ARG_TEAM, action

if TYPE_CHECKING:
    from airflow.cli.cli_config import ActionCommand

__all__ = ["fleet_commands"]

ARG_ONE_WORKER = Arg(
    ("worker",), metavar="NAME", help="Name of the worker as in `airflow nats workers list`"
)
ARG_AMONG = Arg(
    ("--serving",),
    metavar="QUEUE",
    help="Look among the workers of this queue only, for a name that workers of two queues have",
)

SHOW_WORKER_EPILOG = """\
examples:
  airflow nats workers show etl-1
  airflow nats workers show etl-1 -o json | jq '.[0].carried[] | [.dag, .task, .phase, .seconds]'

The first table has the columns of `airflow nats workers list`, and:
  *_here               the releases on this machine, with which `differs` compares
  uptime_seconds       since the worker started; connected_seconds since it last connected to NATS
  memory_bytes         of the worker and its tasks, where pages that they share count once
  memory_used_bytes    of the limit that is closest, of the cgroup or the machine, see memory_of
  workloads            how many it has in hand

The second table, with -o json the list `carried`, has what it has in hand:
  phase     waiting (for as many slots as it needs), looking (whether it may run here), claimed
            (nothing has started), starting, running, renewing (its token has expired), ending
  since     when that phase began, by the worker's clock, and `seconds` ago
  attempt   number of this worker's claim

A worker of an earlier release does not tell what it runs. Then the columns are empty.

It needs a NATS user of the role operator.

exit codes: 0 shown; 1 it does not tell what it runs; 2 no such worker, or NATS does not answer
"""


def fleet_commands() -> tuple[ActionCommand, ...]:
    """Return the commands that ask running workers, and those that have them go."""
    return (
        action(
            "workers show",
            "Show one worker, and what it runs",
            (ARG_ONE_WORKER, ARG_AMONG, ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE),
            SHOW_WORKER_EPILOG,
        ),
    )

"""Defines the command that explains what one task waits for."""

from __future__ import annotations

from airflow.cli.cli_config import ARG_OUTPUT, ARG_VERBOSE, ActionCommand, Arg

from nats_executor.cli.defining import ARG_TEAM, ARG_WATCH, action

__all__ = ["why_command"]

ARG_DAG_ID = Arg(("dag",), metavar="DAG", help="Id of the Dag")
ARG_RUN_ID = Arg(("run",), metavar="RUN", help="Id of the Dag run")
ARG_TASK_ID = Arg(("task",), metavar="TASK", help="Id of the task")
ARG_MAP_INDEX = Arg(
    ("--map-index",), metavar="N", type=int, default=-1, help="Index of a mapped task's instance"
)

WHY_EPILOG = """\
examples:
  airflow nats why etl manual__2026-11-30T12:00:00 load
  airflow nats why etl manual__2026-11-30T12:00:00 load --map-index 3
  airflow nats why etl manual__2026-11-30T12:00:00 load --watch 5    until Ctrl-C
  airflow nats why etl manual__2026-11-30T12:00:00 load -o json      for scripts

The command prints one sentence, what to do, and the facts behind it. In JSON the sentence is
`reason`, the advice is `remedy`, and `cause` is one of these:

  it goes on by itself: waits its turn, workers full, queue limit, claimed, token renewal, lost,
  not wanted, executor full, in the scheduler, scheduler lost, not queued, runs, over,
  other executor

  a person has to act: queue paused, no worker, band unserved, workers paused, workers draining,
  workers lost, weight, not sent, too large, dead letter

The command counts the tasks ahead in Airflow's database. `ahead_least` and `ahead_most` differ if
Airflow queued several tasks at the same moment. It estimates the start from the number of tasks of
the queue that started in the last five minutes. It reads no message of a task, and no token.

It needs Airflow's database, and a NATS user of the role operator.

exit codes:
  0  the task goes on by itself
  1  a person has to act
  2  no such task, the command was refused, or NATS or the database did not answer
"""


def why_command() -> ActionCommand:
    """Return the command."""
    which = (ARG_DAG_ID, ARG_RUN_ID, ARG_TASK_ID, ARG_MAP_INDEX)
    what = "Say why a task is still queued, and what to do"
    return action("why", what, (*which, ARG_WATCH, ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE), WHY_EPILOG)

"""Defines the command that shows queues and workers live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.cli.cli_config import ARG_VERBOSE, Arg

from nats_executor.cli.defining import ARG_TEAM, action
from nats_executor.cli.durations import interval

if TYPE_CHECKING:
    from airflow.cli.cli_config import ActionCommand

__all__ = ["top_command"]

ARG_EVERY = Arg(
    ("--every",),
    type=interval,
    metavar="SECONDS",
    default=2.0,
    help="Seconds between two looks (default: 2)",
)

TOP_EPILOG = """\
examples:
  airflow nats top
  airflow nats top --every 0.5

keys:
  Tab              switch between queues and workers; a selected worker shows its workloads
  Up, Down, j, k   select a row
  p                pause the selected queue, or resume it
  d                drain the selected worker, or undrain it
  /, s             filter by name, sort by the next column
  ?, q             help, quit

It needs a terminal. p, d and a worker's workloads need a NATS user of the role operator.

exit codes:
  0    you pressed q
  2    there is no terminal, or the settings are wrong
  130  you pressed Ctrl-C
"""


def top_command() -> ActionCommand:
    """Return the command that shows queues and workers live."""
    what = "Watch queues and workers, pause and drain them by keys"
    return action("top", what, (ARG_EVERY, ARG_TEAM, ARG_VERBOSE), TOP_EPILOG)

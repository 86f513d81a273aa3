"""Defines the commands that try the deployment out."""

from __future__ import annotations

from airflow.cli.cli_config import ARG_OUTPUT, ARG_VERBOSE, ActionCommand, Arg, positive_int

from nats_executor.cli.defining import ARG_TEAM, action
from nats_executor.cli.durations import interval

__all__ = ["trial_commands"]

ARG_PINGED_QUEUE = Arg(
    ("-q", "--queue"), help="Queue to try, any text as it is; without it, [operators] default_queue"
)
ARG_COUNT = Arg(
    ("-n", "--count"),
    metavar="COUNT",
    type=positive_int(allow_zero=False),
    default=1,
    help="Number of probes, one after the other",
)
ARG_PING_TIMEOUT = Arg(
    ("--timeout",),
    metavar="SECONDS",
    type=interval,
    default=10.0,
    help="Seconds to wait for each probe, at most 45 (default: 10)",
)
ARG_BUNDLE = Arg(
    ("--bundle",),
    metavar="FILE",
    help="Also write a zip archive for support, without secrets; the file must not exist yet",
)

PING_EPILOG = """\
examples:
  airflow nats ping                        the default queue
  airflow nats ping -q gpu -n 10 -o json   ten probes, one after the other
  airflow nats ping && echo works

A scheduler sends a probe through the queue. A worker takes it like a task, starts a process that
does nothing, and reports. The probe uses no Dag, no row of the database and no API server. It takes
one slot, and the highest priority band.

columns, with the shortest, median and longest milliseconds of each step:
  command to scheduler and back   the question to the scheduler, and its answer
  publish to ack                  until NATS has stored the probe
  queue wait                      until a worker has claimed it
  claim to process                until the worker's process runs, by the worker's clock
  process to report               until that process has ended, by the worker's clock
  report to scheduler             until the scheduler has read the worker's report
  whole                           all of it; `-` (null in JSON) is a step that was not seen

It needs a NATS user of the role operator, and Airflow's database, which names the schedulers.

exit codes:
  0  the probe came back
  1  no scheduler or no worker answered in time; a line gives the reason
  2  the command was refused, or NATS or the database did not answer
"""

DOCTOR_EPILOG = """\
examples:
  airflow nats doctor
  airflow nats doctor -o json
  airflow nats doctor --bundle support.zip   also write an archive for support

The command finds all that `airflow nats check` finds. It also looks at versions, clocks, limits,
certificates, files of secrets, the living schedulers and the API server. It changes nothing. It
sends the API server a token for a task that does not exist, and so learns if the server accepts the
tokens of this installation.

columns:
  check     name of the check
  status    `ok` and `unknown` need no action; all others do
  details   what it found, and what to do

The archive has the findings, versions, settings, streams, queues, workers, and the answers of the
schedulers. It has no passwords, tokens, keys, users in addresses or bodies of messages. Its mode is
0600.

It needs a NATS user of the role operator. A machine without Airflow's database, such as a worker's,
shows the schedulers as `unknown`.

exit codes:
  0  nothing needs action
  1  something needs action; the table names it
  2  the configuration is wrong, or the archive cannot be written
"""


def ping_command() -> ActionCommand:
    """Return the command that sends a probe."""
    args = (
        ARG_PINGED_QUEUE,
        ARG_COUNT,
        ARG_PING_TIMEOUT,
        ARG_TEAM,
        ARG_OUTPUT,
        ARG_VERBOSE,
    )
    what = "Try a queue: send a probe to a worker and time each step"
    return action("ping", what, args, PING_EPILOG)


def doctor_command() -> ActionCommand:
    """Return the command that examines the deployment."""
    what = "Examine the deployment from this machine: each finding with its remedy"
    return action("doctor", what, (ARG_BUNDLE, ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE), DOCTOR_EPILOG)


def trial_commands() -> tuple[ActionCommand, ...]:
    """Return the commands that try the deployment out."""
    return doctor_command(), ping_command()

"""Defines the commands that try the deployment out."""

from __future__ import annotations

from airflow.cli.cli_config import ARG_OUTPUT, ARG_VERBOSE, ActionCommand, Arg, positive_int

from nats_executor.cli.defining import ARG_TEAM, action
from nats_executor.cli.durations import interval

__all__ = ["trial_commands"]

ARG_PINGED_QUEUE = Arg(
    ("-q", "--queue"), help="Queue to try, any text as it is; without it [operators] default_queue"
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
    help="Seconds to wait for each probe, 45 at most; 10 without it",
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

A scheduler sends a probe through the queue. A worker takes it like a task, has its fork server
start a process that does nothing, and reports. No Dag, no row of the database and no API server is
part of it. The probe takes a slot, and the most urgent priority band.

columns: the shortest, median and longest milliseconds of each step
  command to scheduler and back   the question to the scheduler, and its answer
  publish to ack                  until NATS has stored the probe
  queue wait                      until a worker has claimed it
  claim to process                until the worker's process runs, by the worker's clock
  process to report               until that process has ended, by the worker's clock
  report to scheduler             until the scheduler has read the worker's report
  whole                           all of it; `-` (null in JSON) is a step that was not seen

It needs Airflow's database, which names the living schedulers, and a NATS user of the role
operator.

exit codes: 0 it works; 1 no scheduler or no worker has answered in time, with the reason;
2 refused, or NATS or the database does not answer
"""

DOCTOR_EPILOG = """\
examples:
  airflow nats doctor
  airflow nats doctor -o json
  airflow nats doctor --bundle support.zip   also write an archive for support

It finds what `airflow nats check` finds, and looks at versions, clocks, limits, certificates, files
of secrets, the living schedulers, and the API server. It changes nothing. To find out whether the
API server accepts the tokens of this installation, it sends one of no task that exists.

columns:
  check     what was looked at
  status    `ok` and `unknown` need no person; any other one does
  details   what was found, and what to do

The archive has the findings, versions, settings, streams, queues, workers, and what schedulers
said. It has no passwords, tokens, keys, users in addresses or bodies of messages. Its mode is 0600.

It needs a NATS user of the role operator. Without Airflow's database, as on a worker's machine, the
schedulers are `unknown`.

exit codes: 0 nothing needs a person; 1 something does, named in the table; 2 the configuration is
wrong, or the archive cannot be written
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

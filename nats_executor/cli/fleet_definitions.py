"""Defines the commands that ask running workers, and those that have them go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.cli.cli_config import ARG_OUTPUT, ARG_VERBOSE, ARG_YES, Arg

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
    help="Only among workers of this queue, if workers of two queues have the same name",
)
ARG_SOME_WORKERS = Arg(
    ("workers",),
    metavar="NAME",
    nargs="?",
    help="Names of workers as in `airflow nats workers list`, separated by commas, or shell "
    "patterns such as 'etl-*'",
)
ARG_THAT_SERVE = Arg(("-q", "--queue"), metavar="QUEUE", help="Only workers that serve this queue")
ARG_ALL = Arg(("--all",), action="store_true", help="All workers except lost ones")
ARG_NOW = Arg(
    ("--now",), action="store_true", help="End its running tasks, too, as a second signal does"
)
ARG_STOP_REASON = Arg(("--reason",), default="", help="Reason, for the worker's log; not secret")

SHOW_WORKER_EPILOG = """\
examples:
  airflow nats workers show etl-1
  airflow nats workers show etl-1 -o json | jq '.[0].carried[] | [.dag, .task, .phase, .seconds]'

The first table has the columns of `airflow nats workers list`, and:
  *_here               releases on this machine; `differs` compares with them
  uptime_seconds       seconds since the worker started
  connected_seconds    seconds since it last connected to NATS
  memory_bytes         memory of the worker and its tasks; pages that they share count once
  memory_used_bytes    memory in use of the closest limit; memory_of says if that is the cgroup's
                       or the machine's
  workloads            number of workloads that it has

The second table lists these workloads. With -o json it is the list `carried`:
  phase     waiting (for enough free slots), looking (if it may run here), claimed (nothing has
            started), starting, running, renewing (its token has expired), ending
  since     time when that phase began, by the worker's clock; `seconds` counts from then
  attempt   number of this worker's claim

A worker of an earlier release does not list its workloads. Then the columns are empty.

It needs a NATS user of the role operator.

exit codes:
  0  shown
  1  the worker does not list its workloads
  2  no worker has that name, or NATS did not answer
"""

STOP_EPILOG = """\
examples:
  airflow nats workers stop etl-1 --reason 'new kernel'
  airflow nats workers stop 'etl-*',gpu-7            patterns, in quotes for the shell
  airflow nats workers stop --queue gpu              all that serve the queue
  airflow nats workers stop --all                    asks first; --yes for scripts
  airflow nats workers stop etl-1 --now              ends what runs there

The worker takes no new workloads. It ends when its tasks have ended, or after [nats_executor]
drain_seconds, as after SIGTERM. Workloads that have not started go to other workers and lose no
try.

With --now, running tasks get SIGTERM at once. Airflow retries them if they have retries left. A
second --now kills them.

systemd or Kubernetes may start the worker again. To keep it from work until you say otherwise, use
`airflow nats workers drain`. The worker's log names you and the reason.

It needs a NATS user of the role operator.

exit codes:
  0  the workers stop
  1  you did not confirm, or a worker refused or did not answer
  2  no worker has that name, or NATS did not answer
"""

PING_WORKERS_EPILOG = """\
examples:
  airflow nats workers ping                      all workers, lost ones too
  airflow nats workers ping 'etl-*'
  airflow nats workers ping --queue gpu -o json

columns:
  answer         alive, silent (connected, no answer in 2 s) or gone
  milliseconds   time from here through NATS to the worker and back

It needs a NATS user of the role operator.

exit codes:
  0  all workers answered
  1  a worker did not answer
  2  no worker has that name, or NATS did not answer
"""

FORGET_EPILOG = """\
examples:
  airflow nats workers forget etl-1
  airflow nats workers forget 'etl-*' --queue gpu

The command removes the records of a lost worker. Then `airflow nats check` stops naming it. The
command refuses a worker that answers, or that was seen a moment ago. The schedulers care for the
tasks of a lost worker, with or without this command.

It needs a NATS user of the role operator.

exit codes:
  0  forgotten
  1  a worker lives, or may live
  2  no worker has that name, or NATS did not answer
"""


def fleet_commands() -> tuple[ActionCommand, ...]:
    """Return the commands that ask running workers, and those that have them go."""
    which = (ARG_SOME_WORKERS, ARG_THAT_SERVE)
    return (
        action(
            "workers show",
            "Show one worker, and the workloads that it runs",
            (ARG_ONE_WORKER, ARG_AMONG, ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE),
            SHOW_WORKER_EPILOG,
        ),
        action(
            "workers stop",
            "Have a worker drain and end",
            (*which, ARG_ALL, ARG_NOW, ARG_STOP_REASON, ARG_YES, ARG_TEAM, ARG_VERBOSE),
            STOP_EPILOG,
        ),
        action(
            "workers ping",
            "Ask workers if they are there",
            (*which, ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE),
            PING_WORKERS_EPILOG,
        ),
        action(
            "workers forget",
            "Remove the records of a lost worker",
            (*which, ARG_TEAM, ARG_VERBOSE),
            FORGET_EPILOG,
        ),
    )

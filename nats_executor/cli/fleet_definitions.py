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
    help="Look among the workers of this queue only, for a name that workers of two queues have",
)
ARG_SOME_WORKERS = Arg(
    ("workers",),
    metavar="NAME",
    nargs="?",
    help="Name of the worker as in `airflow nats workers list`, or a pattern as of a shell, or "
    "several, separated by commas",
)
ARG_THAT_SERVE = Arg(("-q", "--queue"), metavar="QUEUE", help="Only workers that serve this queue")
ARG_ALL = Arg(("--all",), action="store_true", help="All workers but those that are lost")
ARG_NOW = Arg(
    ("--now",), action="store_true", help="End what runs there, too, as a second signal does"
)
ARG_STOP_REASON = Arg(("--reason",), default="", help="Why, for the worker's log; not secret")

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

STOP_EPILOG = """\
examples:
  airflow nats workers stop etl-1 --reason 'new kernel'
  airflow nats workers stop 'etl-*',gpu-7            patterns, in quotes for the shell
  airflow nats workers stop --queue gpu              all that serve the queue
  airflow nats workers stop --all                    asks first; --yes for scripts
  airflow nats workers stop etl-1 --now              ends what runs there

The worker takes nothing more and ends once nothing runs, or after [nats_executor] drain_seconds,
as after SIGTERM. With --now its tasks get SIGTERM at once; Airflow retries those that have retries
left. Once more --now kills them. What has not started goes to other workers and spends no try.

It is not remembered: systemd or Kubernetes may start the worker again. To keep it from work
instead, use `airflow nats workers drain`. The worker's log names you and the reason.

It needs a NATS user of the role operator.

exit codes: 0 they stop; 1 not confirmed, or a worker refused or did not answer; 2 no such worker,
or NATS did not answer
"""

PING_WORKERS_EPILOG = """\
examples:
  airflow nats workers ping                      all, those that are lost, too
  airflow nats workers ping 'etl-*'
  airflow nats workers ping --queue gpu -o json

columns:
  answer         alive, silent (its connection is there, and it does not answer in 2 s), or gone
  milliseconds   from here through NATS to the worker and back

It needs a NATS user of the role operator.

exit codes: 0 all answer; 1 one does not; 2 no such worker, or NATS does not answer
"""

FORGET_EPILOG = """\
examples:
  airflow nats workers forget etl-1
  airflow nats workers forget 'etl-*' --queue gpu

It removes what NATS still knows of a worker that is lost, so that `airflow nats check` names it no
more. A worker that answers, or that was seen a moment ago, is refused. What a lost worker ran is
seen to by the schedulers, with and without this.

It needs a NATS user of the role operator.

exit codes: 0 forgotten; 1 a worker lives, or may live; 2 no such worker, or NATS does not answer
"""


def fleet_commands() -> tuple[ActionCommand, ...]:
    """Return the commands that ask running workers, and those that have them go."""
    which = (ARG_SOME_WORKERS, ARG_THAT_SERVE)
    return (
        action(
            "workers show",
            "Show one worker, and what it runs",
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
            "Ask workers whether they are there",
            (*which, ARG_TEAM, ARG_OUTPUT, ARG_VERBOSE),
            PING_WORKERS_EPILOG,
        ),
        action(
            "workers forget",
            "Remove what NATS knows of a worker that is lost",
            (*which, ARG_TEAM, ARG_VERBOSE),
            FORGET_EPILOG,
        ),
    )

"""Runs the commands that try the deployment out. Each returns normally for exit code 0."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from airflow.configuration import conf

from nats_executor.cli.arguments import ask, command, print_error, quiet, settings_for, show
from nats_executor.errors import BrokerError
from nats_executor.operations.probing import hop_rows, ping_queue
from nats_executor.text import number_of, one_line, presentable
from nats_executor.wire.scheduler_answers import ProbeOrder

if TYPE_CHECKING:
    from argparse import Namespace

    from nats_executor.broker.port import Broker
    from nats_executor.operations.probing import Probed

__all__ = ["doctor", "ping"]


@command
@quiet
def doctor(args: Namespace) -> None:
    """Print what is wrong with the deployment as seen from here; exit 1 if anything is."""
    # Only this command needs all of that.
    from nats_executor.operations.bundle import bundle_parts, write_bundle
    from nats_executor.operations.diagnoses import is_fine
    from nats_executor.operations.doctoring import (
        Examination,
        examination_rows,
        examine_broker,
        living_or_why,
    )

    settings = settings_for(args)
    jobs, database = living_or_why()
    try:
        found = ask(settings, lambda broker: examine_broker(broker, settings, jobs, database))
    except BrokerError as exc:  # what is not NATS can be looked at all the same
        found = Examination(failure=str(exc))
    rows = examination_rows(found, settings, args.team_name)
    show(rows, args.output)
    if args.bundle:
        write_bundle(args.bundle, bundle_parts(found, settings, rows))
        sys.stderr.write(f"{one_line(args.bundle)} written; look through it before you send it\n")
    if not all(map(is_fine, rows)):
        raise SystemExit(1)


@command
@quiet
def ping(args: Namespace) -> None:
    """Send probes through a queue, and print how long each step took; exit 1 without a result."""
    from nats_executor.operations.schedulers import living_schedulers

    settings = settings_for(args)
    queue = args.queue or conf.get_mandatory_value("operators", "default_queue")
    order = ProbeOrder(queue=queue, seconds=args.timeout)
    jobs = living_schedulers()

    async def send_all(broker: Broker) -> list[Probed]:
        pinged: list[Probed] = []
        while len(pinged) < args.count and not (pinged and pinged[-1].failure):
            pinged.append(await ping_queue(broker, settings.names, jobs, order))
        return pinged

    pinged = ask(settings, send_all)
    done = [one for one in pinged if not one.failure]
    if done:
        sys.stderr.write(f"{one_line(summary(queue, done))}\n")
        show(hop_rows(done), args.output)
    if failure := pinged[-1].failure:
        print_error(failure)
        raise SystemExit(1)


def summary(queue: str, done: list[Probed]) -> str:
    workers = sorted({presentable(one.result.worker) for one in done if one.result})
    jobs = sorted({one.job for one in done})
    return (
        f"{number_of(len(done), 'probe')} through queue {queue!r}, sent by scheduler "
        f"{', '.join(jobs)}, run by worker {', '.join(workers)}"
    )

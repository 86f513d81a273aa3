"""Runs the commands that ask workers, change them and have them stop."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from airflow.utils.platform import getuser

from nats_executor.cli.arguments import (
    ask,
    command,
    print_error,
    quiet,
    require_yes,
    say,
    settings_for,
    show,
    show_details,
)
from nats_executor.errors import ConfigError, NotFound
from nats_executor.fleet.workers import seen_workers
from nats_executor.installation import installed
from nats_executor.operations.choosing import ALL, Which
from nats_executor.operations.describing import (
    Untold,
    carried_rows,
    description_of,
    worker_details,
)
from nats_executor.operations.orders import OrderResult, give_orders, named
from nats_executor.operations.pinging import forget_workers, ping_rows, ping_workers
from nats_executor.operations.stopping import stop_workers, stoppable
from nats_executor.operations.survey import Survey, worker_rows
from nats_executor.text import number_of
from nats_executor.wire.messages import ShutDown
from nats_executor.wire.names import Order, Verb
from nats_executor.wire.queue_names import in_text

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from nats_executor.broker.port import Broker
    from nats_executor.fleet.presences import Seen
    from nats_executor.wire.descriptions import Description

__all__ = [
    "is_all_well",
    "workers_add_queue",
    "workers_forget",
    "workers_ping",
    "workers_remove_queue",
    "workers_set_concurrency",
    "workers_show",
    "workers_stop",
]


@command
@quiet
def workers_show(args: Namespace) -> None:
    """Print all that is known of one worker; exit 1 if it does not tell what it runs."""
    settings = settings_for(args)

    async def look(broker: Broker) -> tuple[Seen, Description | Untold]:
        workers = await seen_workers(broker, settings)
        if args.serving is not None:
            workers = [seen for seen in workers if args.serving in seen.presence.queues]
        found = named(args.worker, workers, settings)
        if isinstance(found, OrderResult):
            raise NotFound(found.text)
        return found, await description_of(broker, settings, found)

    seen, description = ask(settings, look)
    [row] = worker_rows(Survey([], [], [seen]), settings)
    details = worker_details(row, description, installed())
    carried = None if isinstance(description, Untold) else carried_rows(description)
    if args.output in {"json", "yaml"}:
        show_details(details | {"carried": carried}, args.output)
    else:
        show_details(details, args.output)
        if carried:
            show(carried, args.output)
    if isinstance(description, Untold):
        print_error(f"worker {args.worker} does not tell what it runs: {description.text}")
        raise SystemExit(1)


@command
@quiet
def workers_stop(args: Namespace) -> None:
    """Have workers drain and end; exit 1 if one does not obey."""
    settings = settings_for(args)
    if args.all and (args.workers or args.queue is not None):
        raise ConfigError("name workers or a queue, or all by --all, not both")
    which = ALL if args.all else Which(in_text(args.workers or ""), args.queue)
    found = ask(settings, lambda broker: stoppable(broker, settings, which, are_all=args.all))
    if args.all:
        running = sum(seen.presence.running for seen in found)
        count = number_of(len(found), "worker")
        sys.stderr.write(f"{count} to stop, with {number_of(running, 'slot')} in use\n")
        require_yes(args, "Stop them?", "none was stopped")
    order = ShutDown(by=getuser(), reason=args.reason, is_now=args.now)
    if not is_all_well(ask(settings, lambda broker: stop_workers(broker, settings, found, order))):
        raise SystemExit(1)


@command
@quiet
def workers_ping(args: Namespace) -> None:
    """Print after how many milliseconds each worker answers; exit 1 if one does not."""
    settings = settings_for(args)
    which = Which(in_text(args.workers or ""), args.queue)
    rows = ping_rows(ask(settings, lambda broker: ping_workers(broker, settings, which)), settings)
    show(rows, args.output)
    if any(row["milliseconds"] is None for row in rows):
        raise SystemExit(1)


@command
@quiet
def workers_forget(args: Namespace) -> None:
    """Remove the records of workers that are lost; exit 1 if one may live."""
    settings = settings_for(args)
    which = Which(in_text(args.workers or ""), args.queue)
    if not is_all_well(ask(settings, lambda broker: forget_workers(broker, settings, which))):
        raise SystemExit(1)


@command
@quiet
def workers_set_concurrency(args: Namespace) -> None:
    """Change the number of a running worker's slots."""
    order(args, Verb.SET_CONCURRENCY, str(args.concurrency))


@command
@quiet
def workers_add_queue(args: Namespace) -> None:
    """Have a running worker serve one more queue."""
    order(args, Verb.ADD_QUEUE, args.queue)


@command
@quiet
def workers_remove_queue(args: Namespace) -> None:
    """Have a running worker take nothing more from a queue."""
    order(args, Verb.REMOVE_QUEUE, args.queue)


def order(args: Namespace, what: Order, value: str) -> None:
    """Tell workers what to change; exit 1 if one does not obey, 2 if NATS does not answer."""
    settings = settings_for(args)
    names = in_text(args.workers)
    answers = ask(
        settings,
        lambda broker: give_orders(broker, settings, names, what, value, serving=args.serving),
    )
    if not is_all_well(answers):
        raise SystemExit(1)


def is_all_well(answers: Sequence[OrderResult]) -> bool:
    """Print a line for each worker; returns whether all have obeyed."""
    for answer in answers:
        if answer.is_obeyed:
            say(answer.text)
        else:
            print_error(answer.text)
    return all(answer.is_obeyed for answer in answers)

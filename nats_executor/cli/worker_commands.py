"""Runs the commands that ask workers and have them stop. Each returns normally for exit code 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats_executor.cli.arguments import (
    ask,
    command,
    print_error,
    quiet,
    settings_for,
    show,
    show_details,
)
from nats_executor.errors import NotFound
from nats_executor.fleet.workers import seen_workers
from nats_executor.installation import installed
from nats_executor.operations.describing import (
    Untold,
    carried_rows,
    description_of,
    worker_details,
)
from nats_executor.operations.orders import OrderResult, named
from nats_executor.operations.survey import Survey, worker_rows

if TYPE_CHECKING:
    from argparse import Namespace

    from nats_executor.broker.port import Broker
    from nats_executor.fleet.presences import Seen
    from nats_executor.wire.descriptions import Description

__all__ = ["workers_show"]


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

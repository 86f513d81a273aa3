"""Runs the commands that look at queues, pause and resume them."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow.utils.platform import getuser

from nats_executor.cli.arguments import (
    ask,
    command,
    quiet,
    say,
    settings_for,
    show,
    show_details,
    show_list,
)
from nats_executor.fleet.histories import history_of
from nats_executor.operations.details import last_hour, queue_details
from nats_executor.operations.pausing import Wish, pause_queues, resume_queues
from nats_executor.operations.survey import survey_queue_rows, take_look, take_survey
from nats_executor.wire.queue_names import in_text

if TYPE_CHECKING:
    from argparse import Namespace

    from nats_executor.broker.port import Broker
    from nats_executor.fleet.queues import Row
    from nats_executor.fleet.rates import Counters
    from nats_executor.operations.survey import Survey
    from nats_executor.wire.history import History

__all__ = ["queues_list", "queues_pause", "queues_peek", "queues_resume", "queues_show"]

# From the first look of `queues show` to its second one, which gives the rates.
RATE_SECONDS = 1.0


@command
@quiet
def queues_list(args: Namespace) -> None:
    """Print one row for each queue."""
    settings = settings_for(args)

    looks: list[Counters] = []

    def rows(survey: Survey) -> list[Row]:
        before = looks.pop() if looks else None
        looks.append(survey.look)
        return survey_queue_rows(survey, settings, before)

    patterns = {"queue": in_text(args.queue_patterns or "")}
    show_list(args, settings, rows, patterns)


@command
@quiet
def queues_show(args: Namespace) -> None:
    """Print all that is known of one queue."""
    settings = settings_for(args)

    async def looks(broker: Broker) -> tuple[Survey, History | None, Counters | None]:
        survey = await take_survey(broker, settings)
        queue_details(survey, args.queue, settings)  # an unknown queue is told at once
        await asyncio.sleep(RATE_SECONDS)
        history = await history_of(broker, settings.names, args.queue)
        return survey, history, await take_look(broker, settings)

    survey, history, after = ask(settings, looks)
    details = queue_details(survey, args.queue, settings, after)
    hour = last_hour(history, int(time.time() // 60), details["pending"])
    show_details(details | hour, args.output)


@command
@quiet
def queues_peek(args: Namespace) -> None:
    """Print one row for each task that waits in a queue."""
    from nats_executor.operations.peeking import peek, queued_tasks, waiting_rows

    settings, queue = settings_for(args), args.queue
    found = ask(settings, lambda broker: peek(broker, settings, queue))
    now, limit = datetime.now(UTC), args.limit
    queued = queued_tasks(queue)
    show(waiting_rows(queued, found.dispatches, settings, queue, now=now, limit=limit), args.output)
    if not found.is_whole:
        sys.stderr.write("NATS does not list all of so many messages: some tasks may be missing\n")


@command
@quiet
def queues_pause(args: Namespace) -> None:
    """Keep what waits in queues from their workers, until a time or until they are resumed."""
    settings = settings_for(args)
    wish = Wish(by=getuser(), reason=args.reason, seconds=args.duration)
    queues = in_text(args.paused_queues)
    told = ask(settings, lambda broker: pause_queues(broker, settings.names, queues, wish))
    for line in told:
        say(line)


@command
@quiet
def queues_resume(args: Namespace) -> None:
    """Let queues go on."""
    settings = settings_for(args)
    queues = in_text(args.paused_queues)
    for line in ask(settings, lambda broker: resume_queues(broker, settings.names, queues)):
        say(line)

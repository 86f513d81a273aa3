"""Runs the commands that cancel tasks. Each returns normally for exit code 0."""

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
)
from nats_executor.operations.deleting import delete_queue
from nats_executor.text import lines

if TYPE_CHECKING:
    from argparse import Namespace

    from nats_executor.operations.cancelling import FoundTask, TaskFilter
    from nats_executor.settings import Settings

__all__ = ["queues_delete", "queues_purge", "tasks_cancel"]


@command
@quiet
def tasks_cancel(args: Namespace) -> None:
    """Fail tasks that wait or run, once a person has said yes."""
    from nats_executor.operations.cancelling import TaskFilter

    wanted = TaskFilter(
        args.dag, args.run, args.task, args.map_index, args.queue, args.state, args.older_than
    )
    cancel(args, wanted.require_any(), "tasks cancel")


@command
@quiet
def queues_purge(args: Namespace) -> None:
    """Fail the tasks that wait in a queue, once a person has said yes."""
    from nats_executor.operations.cancelling import QUEUED, TaskFilter

    wanted = TaskFilter(dag=args.dag, queue=args.queue, state=QUEUED, older_than=args.older_than)
    cancel(args, wanted, "queues purge")


@command
@quiet
def queues_delete(args: Namespace) -> None:
    """Delete a queue that is empty and unserved, once a person has said yes."""
    settings, queue = settings_for(args), args.queue
    possible = ask(settings, lambda broker: delete_queue(broker, settings, queue, is_trial=True))
    if not possible.is_obeyed:
        print_error(possible.text)
        raise SystemExit(1)
    if args.dry_run:
        say(possible.text)
        return
    tell_person(possible.text)
    require_yes(args, "Delete it?", "nothing was deleted")
    outcome = ask(settings, lambda broker: delete_queue(broker, settings, queue))
    if not outcome.is_obeyed:
        print_error(outcome.text)
        raise SystemExit(1)
    say(outcome.text)


def cancel(args: Namespace, wanted: TaskFilter, name: str) -> None:
    """Find tasks, ask, fail them in Airflow, and wait until their messages are gone."""
    from nats_executor.operations.cancelling import (
        Author,
        cancel_tasks,
        cancelled_rows,
        find_tasks,
        tasks_in_words,
    )
    from nats_executor.operations.peeking import peek

    settings = settings_for(args)
    there = ask(settings, lambda broker: peek(broker, settings, wanted.queue))
    found, is_whole = find_tasks(wanted, there.dispatches)
    if not (is_whole and there.is_whole):
        tell_person("there are more tasks than one call takes; repeat it for the rest")
    if args.dry_run or not found:
        show([task.as_row() for task in found], args.output)
        return
    tell_person(f"To be failed, and not tried again: {tasks_in_words(found)}")
    require_yes(args, "Cancel them?", "nothing was cancelled")
    cancelled = cancel_tasks(found, Author(getuser(), args.reason, name))
    is_gone = args.no_wait or has_gone(settings, cancelled, args.timeout)
    show(cancelled_rows(found, cancelled), args.output)
    if not is_gone or len(cancelled) < len(found):
        raise SystemExit(1)


def has_gone(settings: Settings, cancelled: list[FoundTask], timeout: float) -> bool:
    """Wait for the executors, and return whether the messages are gone."""
    from nats_executor.operations.cancelling import has_scheduler
    from nats_executor.operations.vanishing import until_gone

    if not has_scheduler():
        tell_person("no scheduler lives: the messages stay until one has started")
        return False
    gone = {task.dispatch_id for task in cancelled}
    return ask(settings, lambda broker: until_gone(broker, settings, gone, timeout, tell_person))


def tell_person(text: str) -> None:
    """Print a line to stderr, as stdout is for the rows."""
    sys.stderr.write(f"{lines(text)}\n")
    sys.stderr.flush()

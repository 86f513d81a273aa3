"""Lists what can be ordered on the page, and carries it out as the command of the same name does.

One more command is one more row of `ACTIONS`: the page makes its button and its dialog from that.
"""

from __future__ import annotations

import glob
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from nats_executor.fleet.letters import Wanted
from nats_executor.operations.cancelling import (
    QUEUED,
    Author,
    TaskFilter,
    cancel_tasks,
    find_tasks,
    tasks_in_words,
)
from nats_executor.operations.choosing import Which
from nats_executor.operations.clearing import clear_again
from nats_executor.operations.draining import drain_workers, undrain_workers
from nats_executor.operations.letters import (
    MOST_LETTERS,
    find_letters,
    letters_at,
    remove_letters,
)
from nats_executor.operations.orders import OrderResult, give_orders
from nats_executor.operations.pausing import Wish, pause_queues, resume_queues
from nats_executor.operations.peeking import peek
from nats_executor.operations.pinging import forget_workers, ping_rows, ping_workers
from nats_executor.operations.stopping import stop_workers, stoppable
from nats_executor.text import number_of
from nats_executor.ui.asking import ORDER_BUDGET_SECONDS, desks
from nats_executor.wire.messages import ShutDown
from nats_executor.wire.names import Verb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from nats_executor.broker.port import Broker
    from nats_executor.fleet.letters import Letter
    from nats_executor.fleet.queues import Row
    from nats_executor.settings import Settings
    from nats_executor.wire.names import Order

__all__ = ["ACTIONS", "Action", "Wanting", "as_described"]

# Lines of one answer; the count says how many there are.
MOST_LINES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanting:
    """What a user of the page wants, as its dialog was filled in.

    Attributes:
        by: the user's name in Airflow.
        targets: names of queues or workers, or sequences of dead letters.
        clearable: says which of some Dags this user may clear task instances of.
        is_trial: change nothing, and say what would happen.
    """

    by: str
    targets: Sequence[str]
    clearable: Callable[[Collection[str]], Collection[str]]
    reason: str = ""
    seconds: float | None = None
    number: int | None = None
    queue: str | None = None
    dag: str | None = None
    run: str | None = None
    task: str | None = None
    map_index: int | None = None
    older_than: float = 0.0
    is_now: bool = False
    is_trial: bool = False


class ActionOutcome(NamedTuple):
    """What came of it, in lines, and of how many things."""

    results: list[OrderResult]
    how_many: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that can be ordered.

    Attributes:
        command: its words on the command line.
        table: the tab that has its button; `delivery` is that of a task instance.
        asks: the fields of its dialog beside the reason; a field with `?` may stay empty.
        has_trial: whether the dialog shows first what would happen.
        by_filter: whether it is about all that the filter shows, where nothing is selected.
    """

    command: str
    label: str
    table: str
    consequence: str
    carry_out: Callable[[Wanting], ActionOutcome]
    asks: tuple[str, ...] = ()
    is_dangerous: bool = False
    has_trial: bool = False
    by_filter: bool = False


def tell_nats(question: Callable[[Broker, Settings], Awaitable[Any]]) -> Any:
    """Give an order over the connection of this process; nothing that was seen before is shown."""
    desk = desks.here()

    async def give() -> Any:
        return await question(desk.require_broker(), desk.settings)

    try:
        return desk.ask(give, budget_seconds=ORDER_BUDGET_SECONDS)
    finally:
        desk.forget()


def obeyed(lines: Sequence[str]) -> ActionOutcome:
    return ActionOutcome([OrderResult(True, line) for line in lines], len(lines))


# Queues


def pause_chosen(wanting: Wanting) -> ActionOutcome:
    wish = Wish(by=wanting.by, reason=wanting.reason, seconds=wanting.seconds)
    return obeyed(tell_nats(lambda broker, s: pause_queues(broker, s.names, wanting.targets, wish)))


def resume_chosen(wanting: Wanting) -> ActionOutcome:
    return obeyed(tell_nats(lambda broker, s: resume_queues(broker, s.names, wanting.targets)))


def purge_queues(wanting: Wanting) -> ActionOutcome:
    """Fail the tasks that wait in queues; their executors then take the messages out."""
    outcomes = [
        fail_tasks(wanting, TaskFilter(queue=queue, state=QUEUED), "queues purge")
        for queue in wanting.targets
    ]
    results = [result for outcome in outcomes for result in outcome.results]
    return ActionOutcome(results, sum(outcome.how_many for outcome in outcomes))


def cancel_chosen(wanting: Wanting) -> ActionOutcome:
    wanted = TaskFilter(wanting.dag, wanting.run, wanting.task, wanting.map_index)
    return fail_tasks(wanting, wanted.require_any(), "tasks cancel")


def fail_tasks(wanting: Wanting, wanted: TaskFilter, command: str) -> ActionOutcome:
    """Fail tasks in Airflow, of Dags whose tasks this user may change."""
    there = tell_nats(lambda broker, s: peek(broker, s, wanted.queue))
    found, is_whole = find_tasks(wanted, there.dispatches)
    may = wanting.clearable({task.dag_id for task in found})
    own = [task for task in found if task.dag_id in may]
    done = (
        own if wanting.is_trial else cancel_tasks(own, Author(wanting.by, wanting.reason, command))
    )
    verb = "would be failed" if wanting.is_trial else "failed"
    of_queue = f"queue {wanted.queue}: " if wanted.queue else ""
    results = [OrderResult(True, f"{of_queue}{tasks_in_words(done) if done else 'no task'} {verb}")]
    if len(own) < len(found):
        text = (
            f"{of_queue}{number_of(len(found) - len(own), 'task')} kept: you may not change its Dag"
        )
        results.append(OrderResult(False, text))
    if len(done) < len(own):
        text = f"{of_queue}{number_of(len(own) - len(done), 'task')} changed meanwhile"
        results.append(OrderResult(False, text))
    if not (is_whole and there.is_whole):
        text = f"{of_queue}there are more tasks than one call takes; repeat it for the rest"
        results.append(OrderResult(False, text))
    return ActionOutcome(results, len(done))


# Workers


def which(wanting: Wanting) -> Which:
    """Return the workers; a name that looks like a pattern means that name alone."""
    return Which([glob.escape(name) for name in wanting.targets])


def drain_chosen(wanting: Wanting) -> ActionOutcome:
    found = tell_nats(
        lambda broker, s: drain_workers(
            broker, s, which(wanting), by=wanting.by, reason=wanting.reason
        )
    )
    return ActionOutcome(found.results, len(found.results))


def undrain_chosen(wanting: Wanting) -> ActionOutcome:
    found = tell_nats(lambda broker, s: undrain_workers(broker, s, which(wanting), by=wanting.by))
    return ActionOutcome(found, len(found))


def stop_chosen(wanting: Wanting) -> ActionOutcome:
    shut_down = ShutDown(by=wanting.by, reason=wanting.reason, is_now=wanting.is_now)

    async def stop(broker: Broker, settings: Settings) -> list[OrderResult]:
        found = await stoppable(broker, settings, which(wanting))
        return await stop_workers(broker, settings, found, shut_down)

    results = tell_nats(stop)
    return ActionOutcome(results, len(results))


def forget_chosen(wanting: Wanting) -> ActionOutcome:
    results = tell_nats(lambda broker, s: forget_workers(broker, s, which(wanting)))
    return ActionOutcome(results, len(results))


def ping_chosen(wanting: Wanting) -> ActionOutcome:
    def line(row: Row) -> OrderResult:
        after, name = row["milliseconds"], row["worker"]
        if after is None:
            return OrderResult(False, f"worker {name} does not answer: it is {row['answer']}")
        return OrderResult(True, f"worker {name} answers after {after} ms")

    pinged = tell_nats(lambda broker, s: ping_workers(broker, s, which(wanting)))
    rows = ping_rows(pinged, desks.here().settings)
    return ActionOutcome([line(row) for row in rows], len(rows))


def change(verb: Order, value: Callable[[Wanting], object]) -> Callable[[Wanting], ActionOutcome]:
    """Return how workers are changed while they run."""

    def carry_out(wanting: Wanting) -> ActionOutcome:
        text = str(value(wanting))
        found = tell_nats(lambda broker, s: give_orders(broker, s, wanting.targets, verb, text))
        return ActionOutcome(found, len(found))

    return carry_out


# Dead letters


def letters_of(wanting: Wanting) -> list[Letter]:
    """Return the letters that were selected; without any, those that the filter shows."""
    if wanting.targets:
        sequences = [int(target) for target in wanting.targets]
        return list(tell_nats(lambda b, s: letters_at(b, s.names, sequences)).letters)
    wanted = Wanted(wanting.queue, wanting.dag, wanting.older_than)
    return list(tell_nats(lambda b, s: find_letters(b, s.names, wanted, MOST_LETTERS)).letters)


def remove(letters: Sequence[Letter]) -> int:
    return int(tell_nats(lambda broker, s: remove_letters(broker, s.names, letters)))


def purge_chosen(wanting: Wanting) -> ActionOutcome:
    letters = letters_of(wanting)
    count = len(letters) if wanting.is_trial else remove(letters)
    verb = "would be removed" if wanting.is_trial else "removed"
    return ActionOutcome([OrderResult(True, f"{number_of(count, 'dead letter')} {verb}")], count)


def retry_chosen(wanting: Wanting) -> ActionOutcome:
    """Have Airflow run the tasks of letters again, of Dags that this user may clear."""
    letters = letters_of(wanting)
    may = wanting.clearable({letter.dag for letter in letters if letter.dag})
    own = [letter for letter in letters if not letter.dag or letter.dag in may]
    outcomes = clear_again(own, by=wanting.by, is_trial=wanting.is_trial)
    done = [outcome.letter for outcome in outcomes if not outcome.refusal]
    if not wanting.is_trial:
        remove(done)
    kept = [(outcome.letter, outcome.refusal) for outcome in outcomes if outcome.refusal]
    kept += [
        (letter, "you may not clear tasks of its Dag")
        for letter in letters
        if letter.dag and letter.dag not in may
    ]
    verb = "can be retried" if wanting.is_trial else "retried"
    first = f"{len(done)} of {number_of(len(letters), 'dead letter')} {verb}"
    lines = [OrderResult(not kept, first)]
    lines += [
        OrderResult(False, f"{letter.sequence} ({letter.dag or 'Dag unknown'}) is kept: {why}")
        for letter, why in kept[:MOST_LINES]
    ]
    if len(kept) > MOST_LINES:
        lines.append(OrderResult(False, f"and {len(kept) - MOST_LINES} more are kept"))
    return ActionOutcome(lines, len(done))


LASTS = "It lasts until the worker restarts."
ACTIONS = (
    Action(
        command="queues pause", label="Pause", table="queues", asks=("seconds?",),
        consequence="No worker takes anything from it until the pause ends. Running tasks go on, "
        "new ones wait.",
        carry_out=pause_chosen,
    ),
    Action(
        command="queues resume", label="Resume", table="queues",
        consequence="Workers take the workloads that wait at once.",
        carry_out=resume_chosen,
    ),
    Action(
        command="queues purge", label="Purge", table="queues", has_trial=True, is_dangerous=True,
        consequence="The tasks that wait there fail in Airflow, without another try, and a "
        "scheduler takes their messages out. Running tasks go on.",
        carry_out=purge_queues,
    ),
    Action(
        command="tasks cancel", label="Cancel task", table="delivery", has_trial=True,
        is_dangerous=True, by_filter=True,
        consequence="It fails in Airflow, without another try. If it waits, a scheduler takes its "
        "message out; if it runs, its next heartbeat ends it.",
        carry_out=cancel_chosen,
    ),
    Action(
        command="workers drain", label="Drain", table="workers",
        consequence="It takes no new workloads, also after a restart, until you undrain it. Its "
        "running tasks go on.",
        carry_out=drain_chosen,
    ),
    Action(
        command="workers undrain", label="Undrain", table="workers",
        consequence="It takes workloads again.",
        carry_out=undrain_chosen,
    ),
    Action(
        command="workers stop", label="Stop", table="workers", asks=("is_now?",),
        is_dangerous=True,
        consequence="It takes no new workloads, lets its tasks end and then ends, as by SIGTERM. "
        "systemd or Kubernetes may start it again.",
        carry_out=stop_chosen,
    ),
    Action(
        command="workers forget", label="Forget", table="workers",
        consequence="Lists do not show a lost worker any more. A worker that may live is refused.",
        carry_out=forget_chosen,
    ),
    Action(
        command="workers ping", label="Ping", table="workers",
        consequence="It asks the worker for an answer and changes nothing.",
        carry_out=ping_chosen,
    ),
    Action(
        command="workers set-concurrency", label="Set concurrency", table="workers",
        asks=("number",),
        consequence=f"It runs this many workloads at a time. {LASTS}",
        carry_out=change(Verb.SET_CONCURRENCY, lambda wanting: wanting.number),
    ),
    Action(
        command="workers add-queue", label="Add queue", table="workers", asks=("queue",),
        consequence=f"It takes from this queue, too. {LASTS}",
        carry_out=change(Verb.ADD_QUEUE, lambda wanting: wanting.queue),
    ),
    Action(
        command="workers remove-queue", label="Remove queue", table="workers", asks=("queue",),
        consequence=f"It takes no new workloads from this queue. {LASTS}",
        carry_out=change(Verb.REMOVE_QUEUE, lambda wanting: wanting.queue),
    ),
    Action(
        command="dead-letters retry", label="Retry", table="dead-letters", has_trial=True,
        by_filter=True,
        consequence="Airflow clears the tasks and runs them as a new try. If Airflow does not want "
        "a task any more, its letter stays.",
        carry_out=retry_chosen,
    ),
    Action(
        command="dead-letters purge", label="Purge", table="dead-letters", has_trial=True,
        by_filter=True, is_dangerous=True,
        consequence="They are gone for good. Airflow does not run their tasks again.",
        carry_out=purge_chosen,
    ),
)  # fmt: skip
"""All of them; `tests/ui` fails when a command has none."""


def as_described(action: Action) -> dict[str, Any]:
    """Return what the page needs to make a button and a dialog."""
    return {
        "command": action.command,
        "label": action.label,
        "table": action.table,
        "consequence": action.consequence,
        "asks": list(action.asks),
        "is_dangerous": action.is_dangerous,
        "has_trial": action.has_trial,
        "by_filter": action.by_filter,
    }

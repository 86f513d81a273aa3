"""Lists the events that this project writes into Airflow's audit log about task instances.

The orders of the page in Airflow's UI have rows of their own there; `ui/actions.py` lists these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BY_ORDER", "SAID", "WAITS", "order_event"]


class AuditEvent(NamedTuple):
    """One event of a task instance.

    Attributes:
        name: the event in the audit log.
        author: the part or the person who writes it; the log's owner, if a person.
        occasions: when it is written.
        content: what its text says.
    """

    name: str
    author: str
    occasions: tuple[str, ...]
    content: str


def order_event(command: str) -> str:
    """Return the event of an order, by the words of its command."""
    return f"nats {command}"


SAID = AuditEvent(
    "nats executor",
    "the scheduler",
    (
        "A try failed, and the reason is known: `worker etl-1 lost while it ran process 4711`.",
        "A worker gave the task back before its start, once for each reason.",
        "The executor took the task back, because no worker serves its queue.",
        "The executor took the task back from a worker that did not start it in time.",
    ),
    "the reason",
)
WAITS = AuditEvent(
    "nats executor waits",
    "the scheduler",
    ("A task has waited for `explain_after_seconds`, once for each reason.",),
    "the sentence of `airflow nats why`: the reason for its wait, and what to do",
)
# What a person orders about task instances, by the words of the command.
BY_ORDER: Mapping[str, AuditEvent] = {
    "tasks cancel": AuditEvent(
        order_event("tasks cancel"),
        "the user of the command or of the page",
        ("`airflow nats tasks cancel`, or the page's button, failed the task instance.",),
        "the state that it had, and the user's reason",
    ),
    "queues purge": AuditEvent(
        order_event("queues purge"),
        "the user of the command or of the page",
        ("`airflow nats queues purge`, or the page's button, failed the task instance.",),
        "the state that it had, and the user's reason",
    ),
    "dead-letters retry": AuditEvent(
        order_event("dead-letters retry"),
        "the user of the command or of the page",
        ("`airflow nats dead-letters retry`, or the page's button, cleared the task instance.",),
        "the number of the dead letter, and its dispatch id",
    ),
}

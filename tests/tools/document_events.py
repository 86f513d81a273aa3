"""Write docs/reference/events.md from the tables of events and of orders: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

from nats_executor.audit_events import BY_ORDER, SAID, WAITS, order_event
from nats_executor.ui.actions import ACTIONS
from tests.tools.tables import cell, table

__all__ = ["document"]

HEAD = """\
# Events in the audit log

This project writes into Airflow's audit log why a task waits, why it failed, and what people
ordered. In Airflow's UI you find the rows under Browse > Audit Log, those of one task instance also
in its own tab. `make docs` writes this page from `nats_executor/audit_events.py` and
`nats_executor/ui/actions.py`.

## Events of task instances

A backlog that moves has no row, however long it is.

| event | written by | when | text |
|---|---|---|---|
"""
ORDERS = """
## Orders of the page

Each order of [the page in Airflow's UI](../how-to/ui.md) has a row before it is carried out. Its
owner is the user. Its text is the order in JSON: `targets`, `reason` and whatever else the dialog
asked for. If the row cannot be written, nothing is ordered. A command in a terminal writes only the
rows of the table above.

"""


def document() -> str:
    """Return the whole page."""
    events = "".join(
        f"| `{event.name}` | {event.author} | {cell(occasion)} | {cell(event.content)} |\n"
        for event in (SAID, WAITS, *BY_ORDER.values())
        for occasion in event.occasions
    )
    orders = [(f"`{order_event(a.command)}`", cell(a.consequence)) for a in ACTIONS]
    return HEAD + events + ORDERS + table(("event", "what the order does"), orders) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document())

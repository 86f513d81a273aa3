"""Write docs/reference/messages.md from the classes of messages: `make docs`."""

from __future__ import annotations

import inspect
import json
import re
import sys
from dataclasses import MISSING, Field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

from nats_executor.wire import bounds, messages, sizes
from nats_executor.wire.descriptions import Carried, Description, Phase
from nats_executor.wire.history import History, Minute
from nats_executor.wire.log_pages import Page, Question
from nats_executor.wire.scheduler_answers import ExecutorState, ProbeOrder, ProbeResult
from tests.tools.tables import cell, table

__all__ = ["MESSAGES", "document", "meanings"]


# Each message, and where it travels.
MESSAGES: dict[type[Any], str] = {
    messages.Workload: "It travels in the tasks stream.",
    messages.Report: "It travels in the results stream.",
    messages.Presence: "It is a record of the workers bucket, and the answer to `ping`.",
    messages.Hold: "It is a record of the holds bucket.",
    messages.Drain: "It is a record of the holds bucket, and the order `drain`.",
    History: "It is a record of the holds bucket.",
    messages.ShutDown: "It is the order `shut-down`.",
    messages.Obeyed: "It answers each order to a worker.",
    Description: "It answers `describe`.",
    Carried: "It is an entry of a `Description`.",
    Question: "It is the question `log`.",
    Page: "It answers `log`.",
    ExecutorState: "It answers the question `state` to a scheduler.",
    ProbeOrder: "It is the order `probe` to a scheduler.",
    ProbeResult: "It answers `probe`.",
}
# Of those whose readers set a bound of their own; a part has that of the whole.
OWN_BOUNDS = {
    History: sizes.HISTORY_BYTES,
    ProbeOrder: sizes.QUESTION_BYTES,
}
VALUES = (messages.State, messages.Kind, Phase)
VALUE = re.compile(r"""^ +[A-Z_]+ = "(?P<value>[^"]+)"(?: *# (?P<text>.+))?$""", re.MULTILINE)
TYPES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "yes or no",
    "bytes": "bytes",
    "list[str]": "list of texts",
    "list[int]": "list of whole numbers",
    "list[Any]": "list",
    "list[Carried]": "list of `Carried`",
    "dict[str, Any]": "map",
    "str | None": "text or nil",
    "int | None": "whole number or nil",
}
# A field means the same in each message that says nothing else of it.
COMMON = {
    "airflow": "The release of Airflow there.",
    "airflow_version": "The release of Airflow there.",
    "at": "When it was written, in epoch seconds by the writer's clock.",
    "by": "The name of the person who ordered it.",
    "concurrency": "Slots of the worker.",
    "dag": "The Dag of the task instance.",
    "dispatch_id": "The id of the dispatch: the `external_executor_id` in Airflow.",
    "draining": "True if the worker takes nothing more.",
    "host": "The host on which it runs.",
    "key": "The parts of the workload's coordinates, as in `Workload`.",
    "kind": "Airflow's workload type, as in `Workload`.",
    "name": "The worker's name, which people see.",
    "pid": "The process id of the worker.",
    "python": "The release of Python there.",
    "python_version": "The release of Python there.",
    "queue": "Airflow's name of the queue.",
    "queues": "Airflow's names of the queues that the worker serves.",
    "reason": "The reason, in that person's words.",
    "run": "The Dag run of the task instance.",
    "running": "The slots that the worker's workloads hold.",
    "sender": "The executor that published the workload.",
    "started_at": "When the worker started, in epoch seconds by its clock.",
    "state": "The state of the workload.",
    "task": "The task of the task instance.",
    "try_number": "The number of the try.",
    "worker": "The worker's id, new with each of its starts.",
    "worker_name": "The worker's name, which people see.",
}
HEAD = f"""\
# Messages

Every message that goes over NATS. `make docs` writes this page from the classes in
`nats_executor/wire/`. [Subjects](subjects.md) tells where they go.

A message is a msgpack map with the names of the fields as keys, and `v`, the version of the format:
{messages.FORMAT}. A reader ignores a field that it does not know, and takes the default for a field
that is missing. It refuses a message of another version. A field without a default has to be there.

A reader also refuses what is over a bound:

- a message has at most the bytes that its part of this page names
- it has at most {bounds.MOST_ITEMS:,} items, and {bounds.DEEPEST} levels of lists and maps
- a list has at most {messages.LONGEST_LIST:,} entries
- a whole number lies between 0 and 2^{messages.LARGEST.bit_length() - 1}
"""


def document() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *map(section, MESSAGES), *map(values, VALUES)])


def section(kind: type[Any]) -> str:
    most = OWN_BOUNDS.get(kind, messages.SIZES.get(kind, sizes.ANSWER_BYTES))
    bound = "" if kind is Carried else f" It has at most {most:,} bytes."
    hints = get_type_hints(kind)
    means = COMMON | (meanings(Minute) if kind is History else {}) | meanings(kind)
    rows = [
        (f"`{f.name}`", type_of(hints[f.name]), default(f), cell(means[f.name]))
        for f in fields(kind)
    ]
    first, _, _ = (inspect.getdoc(kind) or "").partition("\n")
    return f"""\
## {kind.__name__}

{first} {MESSAGES[kind]}{bound}

{table(("field", "type", "default", "meaning"), rows)}
"""


def meanings(kind: type[Any]) -> dict[str, str]:
    """Return what the docstring of a class says of each attribute."""
    _, _, text = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    found = re.finditer(r"^    (?P<name>\w+): (?P<text>.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return {match["name"]: sentence(match["text"]) for match in found}


def sentence(text: str) -> str:
    words = " ".join(text.split()).rstrip(".")
    return f"{words[0].upper()}{words[1:]}."


def type_of(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return f"text: one of [{hint.__name__}](#{hint.__name__.lower()})"
    name = hint.__name__ if type(hint) is type else str(hint)
    name = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", name)
    return TYPES[name]


def default(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        return "empty"
    if field.default is MISSING:
        return "none"
    return f"`{json.dumps(field.default)}`" if field.default not in ("", b"") else "empty"


def values(kind: type[StrEnum]) -> str:
    """Return the values of a field, with what stands beside each of them in the code."""
    first, _, _ = (inspect.getdoc(kind) or "").partition("\n")
    found = VALUE.finditer(inspect.getsource(kind))
    rows = [(f"`{value['value']}`", cell(value["text"] or "")) for value in found]
    return f"## {kind.__name__}\n\n{first}\n\n{table(('value', 'meaning'), rows)}\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document())

"""Write the tables of docs/reference/limits.md: what was measured, and the code's bounds."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from nats_executor.broker.releases import CONSUMERS_BY_DEFAULT, LIMITING
from nats_executor.settings import LEAST, MOST_BANDS
from nats_executor.wire import bounds, messages, names, sizes

__all__ = ["PAGE", "RECORD", "document"]

RECORD = "tests/limits.json"
PAGE = "docs/reference/limits.md"
BLOCK = re.compile(
    r"(?P<begin><!-- (?P<name>\w+): written by `make docs` -->\n).*?(?P<end><!-- end -->)",
    re.DOTALL,
)
LOOK = {
    "one look, messages to NATS": "one look: messages to NATS",
    "CPU s of NATS": "one look: CPU s of NATS",
    "CPU s of the command": "one look: CPU s of the caller",
}
LANES = {
    "consumers": "consumers",
    "`setup`, messages to NATS": "setup: messages to NATS",
    "`setup`, CPU s of NATS": "setup: CPU s of NATS",
    "memory of NATS, MB": "memory of NATS, MB",
    **LOOK,
    "start of a scheduler, messages": "start of a scheduler: messages to NATS",
}
KEPT = {
    "bytes stored for each": "bytes stored for each",
    "memory of NATS, MB": "memory of NATS, MB",
}
RELOADED = {
    "configuration, MB": "configuration, MB",
    "first reload, CPU s": "reload 1: CPU s of NATS",
    "second reload, CPU s": "reload 2: CPU s of NATS",
    "memory of NATS, MB": "memory of NATS, MB",
}
# The first column's name, and the figures by their columns.
TABLES: dict[str, tuple[str, dict[str, str]]] = {
    "queues": ("queues", LANES),
    "bands": ("bands of each of 10 queues", LANES),
    "workers": ("workers", {**KEPT, **LOOK, "workers that it shows": "workers seen"}),
    "waiting": ("workloads", {**KEPT, "sending, CPU s of NATS": "sending: CPU s of NATS", **LOOK}),
    "reports": (
        "reports",
        {**KEPT, "start of a scheduler, messages": "start of a scheduler: messages to NATS"},
    ),
    "schedulers": (
        "executors",
        {
            "messages from NATS for each report": "messages from NATS for each report",
            "2,000 reports, CPU s of NATS": "reports: CPU s of NATS",
        },
    ),
    "payload": ("bytes", {"outcome": "outcome"}),
    "default_payload": ("bytes", {"outcome": "outcome"}),
    "accounts": ("queues with an account each", RELOADED),
    "teams": ("teams of five queues", RELOADED),
}


def kib(size: int) -> str:
    unit, name = (2**20, "MiB") if size >= 2**20 else (2**10, "KiB")
    return f"{size // unit:,} {name}"


def rows_of_bounds() -> list[tuple[str, str, str]]:
    """Return every bound of the code: what it is of, how much, and what comes of more."""
    held = names.PLAIN.pattern.partition("{1,")[2].rstrip("}")
    release = ".".join(map(str, LIMITING[:2]))
    return [
        ("a workload", kib(sizes.WORKLOAD_BYTES), "the task fails with the reason"),
        ("items in a workload", f"{bounds.MOST_ITEMS:,}", "a dead letter"),
        ("levels of lists and maps", str(bounds.DEEPEST), "the task fails with the reason"),
        ("a report", kib(sizes.REPORT_BYTES), "the worker cuts its texts"),
        ("a worker's record", kib(sizes.PRESENCE_BYTES), "the worker cuts its texts"),
        ("a list of names in a message", f"{messages.LONGEST_LIST:,}", "the message is refused"),
        ("a dead letter", kib(sizes.LETTER_BYTES), "it is cut"),
        ("workers in one look", f"{sizes.MOST_RECORDS:,} records", "the oldest records count"),
        (
            "queues that workers name, in one look",
            f"{sizes.MOST_NAMES:,}",
            "the records of before count",
        ),
        (
            "reports that wait for the scheduler's thread",
            f"{sizes.WAITING_REPORTS:,}, {kib(sizes.WAITING_BYTES)}",
            "the others wait in NATS",
        ),
        ("records of workers", kib(sizes.WORKERS_BUCKET_BYTES), "the oldest go"),
        ("notes of pauses and drains", kib(sizes.HOLDS_BUCKET_BYTES), "the oldest go"),
        ("thresholds in `priority_bands`", str(MOST_BANDS), "the setting is refused"),
        ("least `max_results_bytes`", kib(LEAST["max_results_bytes"]), "the setting is refused"),
        (
            "least `max_dead_letters_bytes`",
            kib(LEAST["max_dead_letters_bytes"]),
            "the setting is refused",
        ),
        (
            "a name as it is in a subject",
            f"{held} letters, digits, `-`, `_`",
            "a part of it and a hash: any text works",
        ),
        (
            f"consumers of a stream, nats-server {release} and later, no limit in the account",
            f"{CONSUMERS_BY_DEFAULT:,}",
            "the workloads of a new queue wait in the scheduler",
        ),
    ]


def table(rows: list[list[str]]) -> str:
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def measured(name: str, steps: list[dict[str, Any]]) -> str:
    """Return a table with a row for each size."""
    first, columns = TABLES[name]
    rows = [[first, *columns]]
    for step in steps:
        found = step.get("figures", {})
        values = [shown(found[figure]) for figure in columns.values()] if found else []
        failed = [step["failed"], *[""] * (len(columns) - 1)] if not found else []
        rows.append([f"{step['size']:,}", *values, *failed])
    return table(rows)


def machine_line(record: dict[str, Any]) -> str:
    machine = record["machine"]
    loads = [step["load"] for steps in record["steps"].values() for step in steps]
    return (
        f"{machine['at'][:10]}, {machine['cpus']} CPUs ({machine['cpu']}), "
        f"{machine['memory_gb']:g} GB, nats-server {machine['nats-server']}, Python "
        f"{machine['python']}; the load of the machine was {min(loads):g} to {max(loads):g}.\n"
    )


def document(page: str, record: str) -> str:
    """Return the page with its blocks written anew."""
    found = json.loads(record)
    blocks = {name: measured(name, steps) for name, steps in found["steps"].items()}
    blocks["machine"] = machine_line(found)
    blocks["bounds"] = table([["bound of", "is", "more than that"], *map(list, rows_of_bounds())])
    return BLOCK.sub(lambda m: f"{m['begin']}{blocks[m['name']]}{m['end']}", page)


def main() -> None:
    page, record = map(Path, sys.argv[1:])
    page.write_text(document(page.read_text(), record.read_text()))


if __name__ == "__main__":
    main()

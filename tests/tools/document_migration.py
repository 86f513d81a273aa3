"""Write the tables of the page for teams that come from Celery: `make docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nats_executor.migration.chart import VALUES
from nats_executor.migration.counterparts import ANY, COUNTERPARTS, Change
from nats_executor.migration.verbs import COMMANDS, INSPECTIONS, SCREENS, WORKER_FLAGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nats_executor.migration.verbs import Counterverb

__all__ = ["document", "tables"]

PLACE = re.compile(r"<!-- (?P<name>[a-z]+): written by `make docs` -->\n.*?<!-- end -->", re.DOTALL)
PAGE = re.compile(r"\bdocs/(?P<kind>[a-z-]+)/(?P<page>[a-z-]+)\.md")


def document(page: str) -> str:
    """Return the page with each table in its place."""
    made = tables()

    def table(found: re.Match[str]) -> str:
        name = found["name"]
        return f"<!-- {name}: written by `make docs` -->\n{made[name]}\n<!-- end -->"

    return PLACE.sub(table, page)


def tables() -> dict[str, str]:
    """Return each table by the name of its place."""
    return {
        "options": written("Celery's option", option_rows()),
        "commands": written("Celery's command", verb_rows(COMMANDS, is_code=True)),
        "flags": written("`airflow celery worker`", flag_rows(), ours="`airflow nats worker`"),
        "inspections": written("Celery's own command", verb_rows(INSPECTIONS)),
        "screens": written("Flower", verb_rows(SCREENS)),
        "values": written("The official chart", value_rows(), ours="Our chart"),
    }


def written(theirs: str, rows: Iterable[tuple[str, str, str]], *, ours: str = "Here") -> str:
    head = [f"| {theirs} | {ours} | Note |", "|---|---|---|"]
    return "\n".join(head + [f"| {' | '.join(row)} |" for row in rows])


def option_rows() -> Iterator[tuple[str, str, str]]:
    for row in COUNTERPARTS:
        option = "all others" if row.option == ANY else row.option
        ours = code(row.ours.removesuffix(" = {value}"))
        yield (
            code(f"[{row.section}] {option}"),
            ours or nothing(row.change),
            linked(row.note),
        )


def nothing(change: Change) -> str:
    return "decide" if change is Change.DECIDE else "not needed"


def verb_rows(
    verbs: Iterable[Counterverb], *, is_code: bool = False
) -> Iterator[tuple[str, str, str]]:
    for verb in verbs:
        theirs = code(verb.theirs) if is_code else verb.theirs
        yield theirs, code(verb.ours) or "nothing", linked(verb.note)


def flag_rows() -> Iterator[tuple[str, str, str]]:
    for flag in WORKER_FLAGS:
        yield ", ".join(map(code, flag.names)), code(flag.ours) or "nothing", linked(flag.note)


def value_rows() -> Iterator[tuple[str, str, str]]:
    for value in VALUES:
        ours = code(value.ours) or nothing(value.change)
        yield code(value.path), ours, linked(value.note)


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def linked(note: str) -> str:
    """Turn the names of pages, which are those of a terminal, into links from `docs/how-to`."""
    return PAGE.sub(link, note)


def link(found: re.Match[str]) -> str:
    kind, page = found["kind"], found["page"]
    target = f"{page}.md" if kind == "how-to" else f"../{kind}/{page}.md"
    return f"[{page}]({target})"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(document(page.read_text()))

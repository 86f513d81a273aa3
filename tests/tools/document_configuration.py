"""Write docs/reference/configuration.md from the table of options: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nats_executor.options import OPTIONS, SECTION

if TYPE_CHECKING:
    from nats_executor.option import Option

__all__ = ["document"]

HEAD = f"""\
# Configuration

Every option of the section `[{SECTION}]`, in `airflow.cfg` or as an environment variable.
`airflow config list --section {SECTION}` shows the same list with the values of an installation.
Executor and workers read the same options; a value that cannot work stops the start with a message
that names the option, the value and the remedy.

A secret also comes from a command or from a secrets backend: append `_cmd` or `_secret` to its name
(`_CMD` or `_SECRET` to its variable). It never appears in a log, a `repr` or the process list.

With `[core] multi_team` a team's variables have its name in front of the section, with three
underscores: `AIRFLOW__RED___{SECTION.upper()}__SERVERS`. A team's section inherits nothing from the
global one.

This page is generated from `nats_executor/options.py` by `make docs`.
"""


def document() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, summary(), *map(entry, OPTIONS)])


def summary() -> str:
    rows = [f"| [`{o.name}`](#{o.name}) | {o.type} | {default(o)} |" for o in OPTIONS]
    return "\n".join(["| option | type | default |", "|---|---|---|", *rows, ""])


def entry(option: Option) -> str:
    """Describe one option under a heading of its own, so that links can point at it."""
    secret = "\n- a secret: `_cmd` and `_secret` work" if option.sensitive else ""
    return f"""\
## {option.name}

{option.description}

- variable: `AIRFLOW__{SECTION.upper()}__{option.name.upper()}`
- type: {option.type}
- default: {default(option)}
- example: {option.example if option.sensitive else f"`{option.example}`"}
- since: {option.version_added}{secret}
"""


def default(option: Option) -> str:
    return "none" if option.default is None else f"`{option.default}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document())
